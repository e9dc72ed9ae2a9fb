"""Every reader of files with the small valid files that it reads, in every ending and layout that it knows."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.fuzz import seeds
from tests.fuzz.seeds import Files, Row, written

from evenhand.core.answer_cache import AnswerCache
from evenhand.data import (
    adjudication,
    bbq,
    bscore,
    cabbq,
    cbbq,
    civil_comments,
    crows_pairs,
    difference_awareness,
    disco,
    discrim_eval,
    esbbq,
    gg_bbq,
    gpqa,
    holistic_bias,
    honest,
    ifeval,
    kobbq,
    mbbq,
    mmlu,
    multiple_choice_file,
    pronouns,
    redditbias,
    seat,
    self_diagnosis,
    stereoset,
    super_natural_instructions,
    text_file,
    text_source,
    unqover,
    wikitext,
    winobias,
    winogender,
    winoqueer,
)
from evenhand.evaluation.loading import read_rows
from evenhand.experiment import config, recipes, training_sources
from evenhand.methods.distillation.rules.packs import rule_pack
from evenhand.models import json_files, saved
from evenhand.models.earlier_records import next_to_weights
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.report import Report


class Target(NamedTuple):
    """A reader, and files that it reads."""

    name: str
    files: Files
    read: Callable[[Path], object]
    """From the folder of the files."""


EVERY = (".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz", ".tsv", ".parquet", ".arrow")
LINES = (".jsonl", ".jsonl.gz")
COLUMNS = (".jsonl.gz", ".csv", ".parquet")


def _tables(
    name: str, rows: Sequence[Row], endings: Sequence[str], stem: str, read: Callable[[Path], object]
) -> Iterator[Target]:
    for ending in endings:
        yield Target(f"{name}{ending}", {f"{stem}{ending}": written(rows, ending)}, read)


def _encoded(texts: Mapping[str, str]) -> Files:
    return {name: text.encode() for name, text in texts.items()}


def _bbq_family() -> Iterator[Target]:
    yield from _tables("bbq", seeds.BBQ, EVERY, "Age", lambda f: bbq.load_rows(str(f)))
    yield from _tables("bbq two groups", seeds.INTERSECTIONAL, LINES, "Race_x_gender", lambda f: bbq.load_rows(str(f)))
    stem = "KoBBQ_test_samples"
    yield from _tables(
        "kobbq", seeds.KOBBQ, (".tsv", ".tsv.gz", ".parquet"), stem, lambda f: kobbq.load(str(f), partial=True)
    )
    yield from _tables("esbbq", seeds.ESBBQ, (*LINES, ".parquet"), "es/Age", lambda f: esbbq.load(str(f), partial=True))
    yield from _tables("cabbq", seeds.ESBBQ, LINES, "ca/Age", lambda f: cabbq.load(str(f), partial=True))
    yield from _tables(
        "gg_bbq", seeds.GG_BBQ, (*LINES, ".csv", ".parquet"), "subset-1/a", lambda f: gg_bbq.load_rows(str(f))
    )
    yield from _tables("mbbq", seeds.BBQ, (*LINES, ".json"), "Age_en", lambda f: mbbq.load_rows(str(f)))
    yield from _tables(
        "cbbq", seeds.CBBQ, (".json", ".csv"), "age/ambiguous/ambiguous", lambda f: cbbq.load_rows(str(f))
    )


def _pairs() -> Iterator[Target]:
    yield from _tables(
        "crows_pairs", seeds.CROWS, EVERY, "crows_pairs_anonymized", lambda f: crows_pairs.load_pairs(str(f))
    )
    yield from _tables(
        "winoqueer", seeds.WINOQUEER, COLUMNS, "winoqueer_final", lambda f: winoqueer.load_pairs(str(f), partial=True)
    )
    yield from _tables(
        "stereoset", seeds.STEREOSET, (*LINES, ".parquet"), "dev", lambda f: stereoset.load_examples(str(f))
    )
    hub = "intrasentence/validation-00000-of-00001"
    yield from _tables(
        "stereoset hub", seeds.STEREOSET_HUB, (".parquet", ".arrow"), hub, lambda f: stereoset.load_examples(str(f))
    )
    released = {"dev.json": json.dumps(seeds.STEREOSET_RELEASED).encode()}
    yield Target("stereoset released", released, lambda f: stereoset.load_examples(str(f)))
    yield Target("winogender", _encoded(seeds.WINOGENDER), lambda f: winogender.load_schemas(str(f)))
    yield Target("winobias", _encoded(seeds.WINOBIAS), lambda f: winobias.load_twins(str(f), ("dev",)))
    yield Target(
        "redditbias", _encoded(seeds.REDDITBIAS), lambda f: redditbias.load_twins(str(f), "valid", ("gender",))
    )
    yield Target("seat", {"t.jsonl": json.dumps(seeds.SEAT).encode()}, lambda f: seat.load(str(f)))


def _questions() -> Iterator[Target]:
    yield from _tables("gpqa", seeds.GPQA, (*EVERY,), "gpqa_main", lambda f: gpqa.load(str(f)))
    yield from _tables(
        "mmlu hub", seeds.MMLU, (".arrow", ".parquet"), "symbols/test-00000", lambda f: mmlu.load(str(f))
    )
    lines = {f"{s}/symbols_{s}.csv": b"Which?,Au,He,Co,Pb,A\nWhat?,Zn,Ag,Fe,Hg,B\n" for s in ("dev", "test")}
    yield Target("mmlu", lines, lambda f: mmlu.load(str(f)))
    yield from _tables(
        "ifeval", seeds.IFEVAL, (*LINES, ".parquet"), "input_data", lambda f: ifeval.load_prompts(str(f))
    )
    yield from _tables("bscore", seeds.BSCORE, LINES, "questions", lambda f: bscore.load_questions(str(f)))
    prompts = {"src/prompts/color/4-choice_color_subjective.txt": b"Which color: [red, blue]?"}
    yield Target("bscore clone", prompts, lambda f: bscore.load_questions(str(f)))
    yield from _tables(
        "difference_awareness", seeds.DIFFERENCE, LINES, "D1", lambda f: difference_awareness.load(str(f), partial=True)
    )
    yield from _tables(
        "discrim_eval",
        seeds.DISCRIM,
        (*LINES, ".csv", ".parquet"),
        "explicit",
        lambda f: discrim_eval.load(str(f), partial=True),
    )
    for name, rows, endings in (
        ("questions", seeds.QUESTIONS, EVERY[:-1]),
        ("arc", seeds.ARC, (".jsonl", ".parquet")),
        ("numbered", seeds.NUMBERED, (".jsonl", ".csv")),
        ("race", seeds.RACE, (".jsonl", ".json")),
        ("summeval", seeds.SUMMEVAL, (".jsonl", ".parquet")),
    ):
        yield from _tables(
            f"multiple choice {name}", rows, endings, "train", lambda f: multiple_choice_file.load(str(f))
        )
    yield from _tables("own rows", seeds.QUESTIONS, (*LINES, ".csv", ".tsv"), "own", _own_rows)


class _Own(NamedTuple):
    """An item of a benchmark of somebody's own."""

    id: str
    cluster: str


def _own_rows(folder: Path) -> object:
    return read_rows(next(folder.iterdir()), lambda row: _Own(str(row["id"]), str(row["question"])))


def _texts() -> Iterator[Target]:
    yield from _tables(
        "self_diagnosis", seeds.SCORED, (*LINES, ".json", ".parquet"), "texts", lambda f: self_diagnosis.load(str(f))
    )
    yield from _tables(
        "self_diagnosis generations", seeds.GENERATIONS, LINES, "texts", lambda f: self_diagnosis.load(str(f))
    )
    yield from _tables(
        "civil_comments", seeds.SCORED, COLUMNS, "train", lambda f: civil_comments.toxic_comments(str(f))
    )
    yield from _tables(
        "honest", seeds.HONEST, (".tsv",), "binary/en_template", lambda f: honest.load(str(f), partial=True)
    )
    yield from _tables(
        "hurtlex", seeds.LEXICON, (".tsv", ".tsv.gz"), "hurtlex_EN", lambda f: honest.load_lexicon(str(f))
    )
    yield Target("unqover", seeds.unqover(), lambda f: unqover.load(str(f), partial=True))
    yield Target(
        "holistic_bias", seeds.demo("holisticbias/v1.0", "*.json"), lambda f: holistic_bias.load_parts(str(f), "1.0")
    )
    task = {
        "tasks/task1_review_classification.json": json.dumps(seeds.TASK).encode(),
        "tasks/README.md": seeds.TASK_TABLE.encode(),
    }
    yield Target("super_natural_instructions", task, lambda f: super_natural_instructions.load(str(f), paper=True))
    plain = {"a.txt": b"One line.\n\nAnother text.\n", "b.md": b"Ein Satz. Noch einer.\n"}
    yield Target("text_file", plain, lambda f: text_file.load_documents(str(f)))
    yield Target("wikitext", {"wiki.test.raw": b" = Title = \n\n A line .\n"}, lambda f: wikitext.load("test", str(f)))
    rows = {"wikitext-2-raw-v1/test-00000.parquet": written([{"text": ""}, {"text": " = T = \n"}], ".parquet")}
    yield Target("wikitext hub", rows, lambda f: wikitext.load("test", str(f)))
    for name in ("a.txt", "a.txt.gz"):
        content = b"One text.\n\nAnother.\n"
        files = {name: gzip.compress(content, mtime=0) if name.endswith(".gz") else content}
        yield Target(f"texts {name}", files, lambda f: text_source.texts(str(next(f.iterdir()))))
    texts = [{"text": "One."}, {"text": "Two."}]
    yield from _tables("texts", texts, LINES, "a", lambda f: text_source.texts(str(next(f.iterdir()))))
    yield from _tables("training", seeds.TRAINING, LINES, "a", lambda f: training_sources.load(str(next(f.iterdir()))))


def _settings() -> Iterator[Target]:
    shipped = seeds.SHIPPED
    yield Target(
        "pronouns", seeds.demo("pronouns", "*.yaml"), lambda f: pronouns.load_pronouns(str(f / "pronouns.yaml"))
    )
    yield Target(
        "disco",
        {"d.yaml": (shipped / "templates/disco.yaml").read_bytes()},
        lambda f: disco.load_blanks(str(f / "d.yaml")),
    )
    texts = {"a.yaml": (shipped / "templates/adjudication_demo.yaml").read_bytes()}
    yield Target("adjudication", texts, lambda f: adjudication.load_texts(str(f / "a.yaml")))
    yield Target(
        "prompt pack", {"p.yaml": (shipped / "prompts/en.yaml").read_bytes()}, lambda f: prompt_pack(str(f / "p.yaml"))
    )
    yield Target("rule pack", {"r.yaml": seeds.RULES.encode()}, lambda f: rule_pack(str(f / "r.yaml")))
    yield Target("run file", {"run.yaml": seeds.RUN.encode()}, lambda f: config.read(f / "run.yaml"))
    for name in ("b_score_command_r7b", "permutation_race"):
        recipe = {"r.yaml": (shipped / f"recipes/{name}.yaml").read_bytes()}
        yield Target(f"recipe {name}", recipe, lambda f: recipes.read(f / "r.yaml"))


def _saved() -> Iterator[Target]:
    for kind, content in seeds.SAVED.items():
        file = {"evenhand.json": json.dumps(content).encode()}
        yield Target(f"evenhand.json {kind}", file, lambda f: saved.check(f, trusted=False, base=False))
    yield Target("adapter", {"adapter_config.json": b'{"base_model_name_or_path": "demo"}'}, saved.base_of_adapter)
    old = {"method": "pcgu", "base": "demo", "curve": [{"loss": 1.5}], "seconds": 3.0, "texts": 20}
    yield Target("earlier record", {"unlearning.json": json.dumps(old).encode()}, next_to_weights)
    yield Target(
        "json file", {"a.json": json.dumps(old).encode()}, lambda f: json_files.read_value(f / "a.json", unique=True)
    )
    yield Target("answer cache", {"cache.sqlite": _cache()}, _cached)
    record = {
        "model": "demo",
        "method": "none",
        "benchmark": "bbq",
        "metric": "accuracy",
        "group": "overall",
        "value": 0.5,
    }
    run = {
        "manifest.json": b'{"seed": 1, "benchmarks": {}, "usage": []}',
        "scores.parquet": written([record], ".parquet"),
    }
    yield Target("run folder", run, Report.load)


def _cache() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cache.sqlite"
        cache = AnswerCache(file)
        cache.put({"a": {"text": "yes"}, "b": [1, 2]})
        cache._db.execute("PRAGMA journal_mode=DELETE")
        cache.close()
        return file.read_bytes()


def _cached(folder: Path) -> object:
    cache = AnswerCache(folder / "cache.sqlite")
    try:
        return cache.get(["a", "b"]), len(cache)
    finally:
        cache.close()


def targets() -> dict[str, Target]:
    """All readers by name."""
    groups = (_bbq_family, _pairs, _questions, _texts, _settings, _saved)
    return {target.name: target for group in groups for target in group()}
