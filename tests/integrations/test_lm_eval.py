"""The harness's tasks on our models, in order and by every verb; our results in its format."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evenhand.core.records import Record
from evenhand.errors import RunError, SettingsError
from evenhand.integrations.lm_eval import as_lm, write_results
from evenhand.interfaces import Ability, Choice, Dialogue, Message, Model, Passage, Question, Reply, Sampling, Score
from evenhand.models.tiny import tiny_model
from evenhand.prompting.rendering import BareText
from evenhand.report import Report
from evenhand.testing import ScriptedModel

lm_eval = pytest.importorskip("lm_eval")


class Shortest(Model):
    """Finds short continuations likely and chooses the last option; keeps what it was asked."""

    name = "shortest"

    def __init__(self) -> None:
        self.passages: list[Passage] = []
        self.questions: list[Question] = []
        self.dialogues: list[Dialogue] = []
        self.samplings: list[Sampling] = []
        self.calls = 0

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"score", "choose", "generate"})

    @property
    def fingerprint(self) -> str:
        return "abc"

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        self.calls += 1
        self.passages += passages
        return [Score(-float(len(p.continuation)), 1) for p in passages]

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.calls += 1
        self.questions += questions
        out = []
        for q in questions:
            rest = 0.4 / (len(q.options) - 1)
            out.append(Choice(len(q.options) - 1, (*[rest] * (len(q.options) - 1), 0.6)))
        return out

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        self.calls += 1
        self.dialogues += dialogues
        self.samplings.append(sampling)
        return [Reply(f"{d.messages[-1].content}|{d.draw}\nmore") for d in dialogues]

    def save(self, folder: str | Path) -> Path:
        raise NotImplementedError


def request(*args: Any, doc: int | None = 0, task: str = "toy") -> Any:
    return SimpleNamespace(args=args, doc_id=doc, task_name=task, idx=0)


DOCS = [
    {"question": "Which animal barks?", "choices": ["horse", "dog", "elephant"], "gold": 1},
    {"question": "Which animal is a pet?", "choices": ["tiger", "lioness", "cat"], "gold": 2},
    {"question": "Which one is large?", "choices": ["ant", "elephant"], "gold": 1},
]


def toy_task(folder: Path, **changed: Any) -> dict[str, Any]:
    file = folder / "toy.jsonl"
    file.write_text("".join(json.dumps(d) + "\n" for d in DOCS))
    return {
        "task": "toy",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **changed,
    }


def evaluated(lm: Any, task: dict[str, Any], **options: Any) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    found: dict[str, Any] = lm_eval.simple_evaluate(
        lm, tasks=[task], task_manager=manager, bootstrap_iters=0, **options
    )
    return found


def test_the_harness_scores_a_task_in_order_and_at_once(tmp_path: Path) -> None:
    model = Shortest()
    found = evaluated(as_lm(model), toy_task(tmp_path))
    assert model.calls == 1 and len(model.passages) == 8
    assert model.passages[1] == Passage(" dog", "Which animal barks?", id="toy 0")
    assert found["results"]["toy"]["acc,none"] == pytest.approx(2 / 3), "dog and cat are the shortest; ant is wrong"
    sample = found["samples"]["toy"][0]
    assert [float(r[0]) for r in sample["filtered_resps"]] == [-6.0, -4.0, -9.0]
    assert found["config"]["model"] == "shortest" and found["config"]["model_sha"] == "abc"


def test_requests_of_a_document_can_be_put_as_a_question(tmp_path: Path) -> None:
    model = Shortest()
    found = evaluated(as_lm(model, multiple_choice="choose"), toy_task(tmp_path))
    assert model.calls == 1 and not model.passages
    assert [q.options for q in model.questions] == [tuple(d["choices"]) for d in DOCS]
    assert model.questions[0].question == "Which animal barks?" and model.questions[0].answer_by == "text"
    assert found["results"]["toy"]["acc,none"] == pytest.approx(2 / 3), "the last option is right twice"
    values = [float(r[0]) for r in found["samples"]["toy"][0]["filtered_resps"]]
    assert values == pytest.approx([math.log(0.2), math.log(0.2), math.log(0.6)])


def test_only_requests_that_form_a_question_are_chosen() -> None:
    model = Shortest()
    asked = [
        request("Q?", " yes", doc=0),
        request("Q?", " yes", doc=1),  # the same text in another document
        request("Q?", " no", doc=0),
        request("Other context", " alone", doc=0),
        request("Q?", " no", doc=1),
        request("", " yes", doc=0),  # unconditional, as for acc_mutual_info
        request("", " no", doc=0),
        request("Q?", " yes", doc=None),
        request("Q?", " yes", doc=0),  # repeated
    ]
    got = as_lm(model, multiple_choice="choose").loglikelihood(asked)
    yes, no = (math.log(0.4), False), (math.log(0.6), True)
    assert [g if i in (3, 5, 6, 7) else (pytest.approx(g[0]), g[1]) for i, g in enumerate(got)] == [
        yes,
        yes,
        no,
        (-6.0, False),
        no,
        (-4.0, False),
        (-3.0, False),
        (-4.0, False),
        yes,
    ]
    assert [q.options for q in model.questions] == [("yes", "no")] * 2
    assert len(model.passages) == 4


@pytest.mark.parametrize("answer_by", ["text", "letters"])
def test_how_a_question_is_put(answer_by: Any) -> None:
    model = Shortest()
    lm = as_lm(model, multiple_choice="choose", answer_by=answer_by)
    chat = lm.apply_chat_template([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}])
    lm.loglikelihood([request(c, o, doc=i) for i, c in enumerate(["Plain?", chat]) for o in (" A", " B")])
    plain, dialogue = model.questions
    assert plain.template == ("bare" if answer_by == "text" else "letters")
    assert dialogue.dialogue == Dialogue((Message("system", "Be brief."), Message("user", "Hi?")))


def test_a_decision_without_probabilities_and_no_decision() -> None:
    decided = as_lm(ScriptedModel(decide=lambda q: 1), multiple_choice="choose")
    pair = [request("Q?", " a"), request("Q?", " b")]
    assert decided.loglikelihood(pair) == [(-math.inf, False), (0.0, True)]
    silent = as_lm(ScriptedModel(decide=lambda q: None), multiple_choice="choose")
    with pytest.warns(UserWarning, match="1 of 1 questions have no answer"):
        assert silent.loglikelihood(pair) == [(-math.log(2), False)] * 2


def test_single_continuations_say_what_is_not_known() -> None:
    lm = as_lm(Shortest())
    with pytest.warns(UserWarning, match="perplexity is right"):
        assert lm.loglikelihood([request("a", " bc")]) == [(-3.0, False)]
    assert lm.loglikelihood([request("a", " bc"), request("a", " ")]) == [(-3.0, False), (0.0, False)]
    assert lm.loglikelihood([]) == []


def test_rolling_is_the_whole_text() -> None:
    model = Shortest()
    assert as_lm(model).loglikelihood_rolling([request("abc"), request(""), request("a")]) == [-3.0, 0.0, -1.0]
    assert model.passages == [Passage("abc", id="toy 0"), Passage("a", id="toy 0")]


def test_generation_keeps_order_stops_and_draws() -> None:
    model = Shortest()
    greedy = {"until": ["\n"], "do_sample": False, "temperature": 0.7, "max_gen_toks": 5}
    drawn = {"until": "|", "do_sample": True, "temperature": 0.5, "top_p": 0.9}
    lm = as_lm(model)
    chat = lm.apply_chat_template([{"role": "user", "content": "chat"}])
    asked = [("a", greedy), ("a", drawn), ("b", greedy), ("a", drawn), (chat, greedy), ("c", {"do_sample": True})]
    got = lm.generate_until([request(*a) for a in asked])
    assert got == ["a|0", "a", "b|0", "a", "chat|0", "c|0\nmore"]
    assert model.calls == 3, "one call per kind of sampling"
    assert model.samplings[0] == Sampling(0.0, 5, stop=("\n",))
    assert model.samplings[1] == Sampling(0.5, 256, 0.9, stop=("|",))
    assert model.samplings[2].temperature == 1.0
    assert isinstance(model.dialogues[0], BareText) and not isinstance(model.dialogues[2], BareText)
    assert [d.draw for d in model.dialogues] == [0, 0, 0, 0, 1, 0]


def test_what_cannot_be_followed_is_refused() -> None:
    lm = as_lm(Shortest())
    with pytest.raises(SettingsError, match="top_k, repetition_penalty are not supported"):
        lm.generate_until([request("a", {"top_k": 5, "repetition_penalty": 1.2, "until": []})])
    with pytest.raises(SettingsError, match="gen_prefix"):
        lm.apply_chat_template([], add_generation_prompt=False)
    chat = lm.apply_chat_template([{"role": "user", "content": "x"}])
    with pytest.raises(SettingsError, match="gen_prefix"):
        lm.loglikelihood([request(chat + "The answer", " a"), request(chat + "The answer", " b")])
    with pytest.raises(SettingsError, match="cannot choose"):
        as_lm(ScriptedModel(abilities=frozenset({"generate"})), multiple_choice="choose")
    with pytest.raises(SettingsError, match="'score' or 'choose'"):
        as_lm(Shortest(), multiple_choice="both")  # type: ignore[arg-type]
    silent = as_lm(ScriptedModel(reply=lambda d: None))
    with pytest.warns(UserWarning, match="1 requests got no reply"):
        assert silent.generate_until([request("a", {})]) == [""]


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(SettingsError, match=r"evenhand\[lm-eval\]"):
        as_lm(Shortest())


def test_a_chat_task_with_generation_runs_through_the_harness(tmp_path: Path) -> None:
    model = ScriptedModel(reply=lambda d: d.messages[-1].content.split()[-1] + "\nand more")
    task = toy_task(
        tmp_path,
        output_type="generate_until",
        doc_to_target="barks?",
        generation_kwargs={"until": ["\n"], "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    del task["doc_to_choice"]
    found = evaluated(as_lm(model), task, apply_chat_template=True, system_instruction="Be brief.")
    assert model.dialogues[0].messages == (Message("system", "Be brief."), Message("user", "Which animal barks?"))
    assert found["results"]["toy"]["exact_match,none"] == pytest.approx(1 / 3)


def test_log_likelihoods_are_those_of_the_harnesss_own_model() -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    ours = tiny_model(chat=False)
    theirs = HFLM(pretrained=ours.weights.module, tokenizer=ours.weights.tokenizer, add_bos_token=True)
    texts = [("Who was there?", " dog"), ("Once upon a time ", "there was a cat"), ("", "a little dog")]
    asked = [Instance("loglikelihood", {}, t, i, ("toy", 0, 1)) for i, t in enumerate(texts)]
    expected = [value for value, _ in theirs.loglikelihood(asked, disable_tqdm=True)]
    assert [value for value, _ in as_lm(ours).loglikelihood(asked)] == pytest.approx(expected, abs=1e-4)


# ------------------------------------------------------------------------------------------- writing results

RECORD = Record(
    model="org/m",
    method="none",
    benchmark="bbq(source=demo)",
    metric="bias",
    value=0.5,
    low=0.4,
    high=0.8,
    standard_error=0.11,
    n=10,
    clusters=4,
    direction="zero",
)


def report() -> Report:
    records = [
        RECORD,
        replace(RECORD, metric="accuracy", value=0.25, standard_error=math.nan, direction="higher", n=20),
        replace(RECORD, group="Age", value=-0.5),
        replace(RECORD, group="SES", value=math.nan),
        replace(RECORD, method="self_debias(variant='x')", value=0.1),
        replace(RECORD, benchmark="ifeval", metric="", value=math.nan, status="not applicable", note="needs generate"),
        replace(RECORD, model="other", benchmark="ifeval", metric="", value=math.nan, status="failed", note="broke"),
    ]
    manifest = {
        "seed": 3,
        "limit": None,
        "started": "2026-01-02T03:04:05+00:00",
        "git": {"commit": "abc123", "clean": True},
        "models": {
            "org/m": {"parameters": 7, "dtype": "float32", "fingerprint": "f", "prompt_format": "chat template"}
        },
        "benchmarks": {"bbq(source=demo)": {"asked": 30, "settings": {"source": "demo", "shots": 5}}},
    }
    return Report(records, manifest)


def test_results_are_written_as_the_harness_writes_them(tmp_path: Path) -> None:
    from lm_eval import utils
    from lm_eval.result_schema import EvalResults

    files = write_results(report(), tmp_path)
    assert [f.parent.name for f in files] == ["org__m", "org__m+self_debias(variant='x')"], "other has no numbers"
    assert utils.get_results_filenames([str(f) for f in files]) == [str(f) for f in files]
    content = json.loads(files[0].read_text(), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    task = "bbq_source_demo"
    entry = content["results"][task]
    assert entry["bias,none"] == 0.5 and entry["bias_stderr,none"] == pytest.approx(0.11)
    assert entry["accuracy_stderr,none"] == "N/A" and entry["sample_len"] == 20
    assert content["results"][f"{task}_Age"]["bias,none"] == -0.5 and f"{task}_SES" not in content["results"]
    assert content["group_subtasks"] == {task: [f"{task}_Age"]} and content["groups"] == {task: entry}
    assert content["higher_is_better"][task] == {"bias": None, "accuracy": True}
    assert content["n-shot"][task] == 5 and content["n-samples"][task] == {"original": 30, "effective": 30}
    assert content["configs"][task]["metadata"]["settings"] == {"source": "demo", "shots": 5}
    assert content["config"]["model_args"] == {"model": "org/m", "method": "none"}
    assert content["config"]["model_num_parameters"] == 7 and content["config"]["random_seed"] == 3
    assert content["git_hash"] == "abc123" and content["date"] == 1767323045.0
    assert content["not_scored"] == {"ifeval": "not applicable: needs generate"}
    known = set(EvalResults.__annotations__) | {"evenhand_version", "stderr", "not_scored"}
    assert set(content) <= known, "nothing that the harness does not know, but what is named here"
    table = utils.make_table(content)
    assert "bbq(source=demo)" in table and "- Age" in table and "0.1100" in table
    assert utils.make_table(content, "groups").count("bias") == 1


def test_records_alone_can_be_written_and_nothing_is_replaced(tmp_path: Path) -> None:
    first = write_results([RECORD], tmp_path)
    second = write_results([RECORD], tmp_path)
    assert len(set(first + second)) == 2 and all(f.is_file() for f in first + second)
    assert json.loads(first[0].read_text())["n-samples"]["bbq_source_demo"] == {"original": 10, "effective": 10}


def test_nothing_to_write_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no number"):
        write_results([replace(RECORD, metric="", status="failed")], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_results([RECORD], tmp_path / "file")
