"""The demo benchmarks as files in exactly the official formats, so that the same readers read both."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from evenhand.data.io.demo import BENCHMARKS
from evenhand.proving_ground.generator import bbq_questions, differences, questions, replies, stereotypes, texts
from evenhand.proving_ground.generator.cipher import LANGUAGES
from evenhand.proving_ground.generator.planted import MAIN
from evenhand.proving_ground.generator.words import (
    DESCRIPTORS,
    EVERY_AXIS,
    EXPLICIT_FRAMES,
    NOUNS,
    OCCUPATIONS,
    ORIENTATION,
    PRONOUN_FRAMES,
    STATES,
    TEMPLATES,
)

SENTENCES, DOCUMENTS = 240, 4
"""Number of the text world's sentences on which perplexity is measured, and of the files that contain them."""


def contents() -> dict[str, bytes]:
    """Return every file of the demo benchmarks, by its path below `BENCHMARKS`."""
    files: dict[str, bytes] = {}
    for category, rows in bbq_questions.rows().items():
        files[f"bbq/{category}.jsonl.gz"] = _packed(_jsonl(rows))
    files |= _spillover()
    files |= {f"holisticbias/v1.0/{name}": content for name, content in _holistic().items()}
    files |= {f"mmlu/{name}": questions.as_csv(rows).encode() for name, rows in questions.mmlu_rows().items()}
    gpqa = questions.gpqa_rows()
    files["gpqa/gpqa_main.csv"] = questions.as_csv([list(gpqa[0]), *(list(r.values()) for r in gpqa)]).encode()
    files["ifeval/input_data.jsonl"] = _jsonl(replies.ifeval_rows())
    files["bscore/questions.jsonl"] = _jsonl(replies.bscore_rows())
    files["label_bias/tasks/task_demo_reviews.json"] = questions.natural_instructions_json().encode()
    files["adjudication/instructions.txt"] = _lines(replies.two_wishes())
    return files | _stereotypes() | _pronouns() | _perplexity()


def write(folder: Path = BENCHMARKS) -> None:
    """Write all files; existing ones are replaced."""
    for name, content in contents().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _spillover() -> dict[str, bytes]:
    """Return the files for demo-x: its own axis, all axes in the cipher, and customs on which groups differ."""
    own = {"english": [ORIENTATION.name], "cipher": [axis.name for axis in EVERY_AXIS]}
    files = {
        f"bbq_x/{language}/{axis}.jsonl.gz": _packed(_jsonl(bbq_questions.rows_in(language)[axis]))
        for language in LANGUAGES
        for axis in own[language]
    }
    parts = differences.rows()
    return files | {f"difference_awareness/{part}.jsonl.gz": _packed(_jsonl(rows)) for part, rows in parts.items()}


def _stereotypes() -> dict[str, bytes]:
    """Return the sets of pairs and triples of sentences."""
    files = {"stereoset/stereoset_dev_flat.jsonl": _jsonl(stereotypes.stereoset_rows())}
    files["crows_pairs/crows_pairs_anonymized.csv"] = questions.as_csv(stereotypes.crows_pairs_table()).encode()
    files["winogender/all_sentences.tsv"] = _tsv(stereotypes.winogender_sentences())
    files["winogender/occupations-stats.tsv"] = _tsv(stereotypes.winogender_statistics())
    files |= {f"winobias/{name}": text.encode() for name, text in stereotypes.winobias_files().items()}
    tables = stereotypes.redditbias_tables()
    return files | {f"redditbias/{name}": questions.as_csv(table).encode() for name, table in tables.items()}


def _pronouns() -> dict[str, bytes]:
    """Return frames and occupations, with the keys of `templates/pronouns.yaml`, and the shares of women."""
    frames = {
        "language": "en",
        "pronouns": {"pronoun": ["he", "she"]},
        "person": "person",
        "fillers": {"state": list(STATES)},
        "frames": dict(zip(("said", "left", "smiled"), PRONOUN_FRAMES, strict=True)),
        "gendered": {"gender": ["man", "woman"]},
        "told": dict(zip(("who_is", "is_a_and"), EXPLICIT_FRAMES, strict=True)),
        "occupations": list(OCCUPATIONS),
    }
    written = yaml.safe_dump(frames, sort_keys=False, default_flow_style=False, width=1000)
    return {
        "pronouns/pronouns.yaml": written.encode(),
        "pronouns/shares.json": (json.dumps(OCCUPATIONS, indent=2) + "\n").encode(),
    }


def _perplexity() -> dict[str, bytes]:
    """Return files with sentences of the main model's text world, one per line."""
    sentences = sorted(texts.world(MAIN))
    chosen = sentences[:: max(1, len(sentences) // SENTENCES)][:SENTENCES]
    share = len(chosen) // DOCUMENTS
    return {f"perplexity/{n + 1}.txt": _lines(chosen[n * share : (n + 1) * share]) for n in range(DOCUMENTS)}


def _holistic() -> dict[str, bytes]:
    """Return HolisticBias's four JSON files; `standalone_noun_phrases` has an empty list for every axis."""
    parts: Mapping[str, Any] = {
        "descriptors.json": {
            axis: {bucket: list(words) for bucket, words in buckets.items()} for axis, buckets in DESCRIPTORS.items()
        },
        "nouns.json": {kind: [list(pair) for pair in pairs] for kind, pairs in NOUNS.items()},
        "sentence_templates.json": TEMPLATES,
        "standalone_noun_phrases.json": {axis: [] for axis in DESCRIPTORS},
    }
    return {name: (json.dumps(part, indent=2) + "\n").encode() for name, part in parts.items()}


def _lines(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def _jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _tsv(rows: Iterable[Iterable[str]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


if __name__ == "__main__":
    write()
