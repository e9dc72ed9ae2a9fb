"""Answers in the run folder: columns that need no parsing, and the same answers when they are read back."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evenhand
from evenhand import Choice, Model
from evenhand.core import registry
from evenhand.core.answer_table import COLUMNS, AnswerFacts, usages
from evenhand.core.run_folder import RunFolder
from evenhand.errors import RunError
from evenhand.evaluation.b_score import BScoreAnswer, Shot
from evenhand.evaluation.bbq import BBQ
from evenhand.evaluation.option_order import OrderAnswer
from evenhand.experiment.answer_facts import answer_facts
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Message, Reply, Score, Usage
from evenhand.report import Report
from evenhand.testing import ScriptedModel

EARLIER = Path(__file__).parents[1] / "fixtures" / "before_2026_11" / "run"
QUIET: dict[str, Any] = {"show_progress": False, "replicates": 200}
SPECS = [f"{name}(source=demo)" for name in registry.BUILT_IN["benchmarks"]]
SHORT = {
    "b_score(source=demo)": "b_score(source=demo,n_single=2,n_turns=2,runs=1,max_new_tokens=8)",
    "ifeval(source=demo)": "ifeval(source=demo,max_new_tokens=8)",
}
"""With fewer and shorter replies; the kinds of answers are the same."""


@pytest.fixture(scope="module")
def demo() -> Model:
    return evenhand.load("demo")


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    made = RunFolder(tmp_path / "run")
    with made.locked():
        yield made


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "answers")


# --------------------------------------------------------------------------------------------------- the way back


@pytest.mark.parametrize("spec", [*SPECS, "mmlu(source=demo,reading=score)", "option_order(source=demo,of=gpqa)"])
def test_a_benchmark_s_answers_come_back_exactly(folder: RunFolder, demo: Model, spec: str) -> None:
    benchmark = registry.build_benchmark(SHORT.get(spec, spec))
    items = list(benchmark.load())[:3]
    model = evenhand.load("demo-mlm") if benchmark.name == "disco" else demo
    answers = benchmark.ask(model, items)
    ids = [item.id for item in items]
    usage = {
        "model": "demo",
        "method": "none",
        "benchmark": spec,
        "items": 3,
        "calls": 3,
        "prompt_tokens": 9,
        "new_tokens": 0,
        "seconds": 6.0,
        "seconds_saved": 0.0,
    }
    folder.write_answers("key", answers, ids, usage, answer_facts(benchmark, items, answers, usage))
    found = folder.read_answers("key", ids, benchmark.answer_type)
    assert found == list(answers) and repr(found) == repr(list(answers)), "to the last digit"
    frame = table(folder.path)
    assert list(frame) == list(COLUMNS) and list(frame.item) == ids
    assert set(frame.status) <= {"answered", "unparsed"} and set(frame.seconds) == {2.0}
    assert (set(frame.model), set(frame.method), set(frame.benchmark)) == ({"demo"}, {"none"}, {spec})
    assert frame.cluster.notna().all()


@dataclass(frozen=True)
class Judged:
    """A plugin's own kind of answer, with answers of every kind inside."""

    choices: tuple[Choice, ...]
    reply: Reply
    scores: tuple[Score, ...]
    status: str = "mine"
    decision: str = "both"
    usage: Usage = field(default_factory=lambda: Usage(7, 8, 9))


def test_answers_inside_answers_come_back_exactly(folder: RunFolder) -> None:
    inner = Choice(1, (0.1, 0.9), reply="b", before=(Message("user", "?"),), usage=Usage(1, 2, 3))
    answers = [
        Judged((inner, Choice(None, status="unparsed")), Reply("x", Usage(1), False), (Score(-1 / 3, 4),)),
        Judged((), Reply(None, note="lost"), (Score(-2.5, 0, "too long"), Score(0.0, 1))),
    ]
    folder.write_answers("key", answers, ["a", "b"], {})
    found = folder.read_answers("key", ["a", "b"], Judged)
    assert found == answers and found is not None and isinstance(found[0].scores[0], Score)


ODD = (
    Choice(None, status="unparsed", reply="half a pair: \ud83d", note="\udc00"),
    Choice(0, probabilities=(1, 0), mass=1, cut=True),
    Choice(1, probabilities=(), mass=-0.0, reply="\x00\u2028"),
    Choice(2, probabilities=(1e-320, 0.1 + 0.2, 1 - 1e-16), usage=Usage(2**62, 0, 1)),
    Choice(2**70),
)


@pytest.mark.parametrize("answers", [ODD, [Reply("\ud83d", finished=False), Reply(None, note="\udc00"), Reply("")]])
def test_what_no_column_can_hold_comes_back_all_the_same(folder: RunFolder, answers: Sequence[Any]) -> None:
    ids = [str(n) for n, _ in enumerate(answers)]
    folder.write_answers("key", answers, ids, {})
    assert repr(folder.read_answers("key", ids, type(answers[0]))) == repr(list(answers)), "an int stays an int"
    replies = list(table(folder.path).reply)
    assert replies[0] in ("half a pair: \\ud83d", "\\ud83d"), "readable by every tool"


def test_not_a_number_is_kept_beside_what_is_not_there(folder: RunFolder) -> None:
    answers = [Choice(0, (float("nan"), 1.0), mass=float("nan")), Choice(0)]
    folder.write_answers("key", answers, ["a", "b"], {})
    assert repr(folder.read_answers("key", ["a", "b"], Choice)) == repr(answers)


def test_files_of_earlier_versions_are_read(folder: RunFolder) -> None:
    manifest = json.loads((EARLIER / "manifest.json").read_text())
    for usage in manifest["usage"]:
        rows = pq.read_table(EARLIER / "answers" / f"{usage['answers']}.parquet").to_pylist()
        ids = [row["item"] for row in rows]
        answers = RunFolder(EARLIER).read_answers(usage["answers"], ids, Choice)
        assert answers is not None and len(answers) == 12
        for row, answer in zip(rows, answers, strict=True):
            plain = json.loads(json.dumps(asdict(answer)))
            assert json.loads(row["answer"]).items() <= plain.items() and plain["cut"] is False
    about = RunFolder(EARLIER).read_about(manifest["usage"][0]["answers"])
    assert about["items"] == 12


def test_a_run_that_was_begun_with_the_earlier_files_resumes(tmp_path: Path) -> None:
    """The answers, rewritten as one column of JSON, are taken as they are."""
    first = compare("demo", "none", "bbq(source=demo)", limit=12, out=tmp_path, **QUIET)
    (file,) = (tmp_path / "answers").iterdir()
    now = pq.read_table(file)
    stored = RunFolder(tmp_path).stored(file.stem)
    old = {"item": list(stored), "answer": [json.dumps(answer) for answer in stored.values()]}
    rewritten = now.select([]).from_pydict(old).replace_schema_metadata({b"evenhand": now.schema.metadata[b"evenhand"]})
    pq.write_table(rewritten, file)
    again = compare("demo", "none", "bbq(source=demo)", limit=12, out=tmp_path, **QUIET)
    assert [u["asked_anew"] for u in again.manifest["usage"]] == [0]
    assert repr(again.records) == repr(first.records)


# -------------------------------------------------------------------------------------------------- damaged files


def flipped(whole: bytes, where: int) -> bytes:
    return whole[:where] + bytes([whole[where] ^ 1 << where % 8]) + whole[where + 1 :]


def test_a_damaged_file_is_never_read_wrongly(folder: RunFolder) -> None:
    """One bit in every eleventh byte, and a cut in many places: the answers are right, or it says what is wrong."""
    ids, about = [str(n) for n in range(6)], {"model": "demo", "seconds": 3.5}
    answers = [Choice(n % 3, (n / 7, 1 - n / 7), reply=f"({n})", mass=n / 9, usage=Usage(1, n, 2)) for n in range(6)]
    folder.write_answers("key", answers, ids, about)
    file = folder.path / "answers" / "key.parquet"
    whole = file.read_bytes()
    found = 0
    for broken in (
        *(flipped(whole, n) for n in range(0, len(whole), 11)),
        *(whole[:n] for n in range(0, len(whole), 97)),
    ):
        file.write_bytes(broken)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            read = folder.read_answers("key", ids, Choice)
        if read is not None:  # statistics and page indices decide nothing here
            assert repr(read) == repr(answers) and folder.read_about("key") == about and not told
            continue
        found += 1
        (warning,) = told
        assert f"{file} is damaged: " in str(warning.message) and "asked anew" in str(warning.message)
        with pytest.raises(RunError, match="is damaged"):
            folder.stored("key")
    assert found > len(whole) / 11 / 2


@pytest.mark.parametrize("row", ["{", "[1]", '{"decision": 1, "usage": 7}', '{"before": [[]]}'])
def test_a_damaged_file_of_an_earlier_version_is_told(folder: RunFolder, row: str) -> None:
    file = folder.path / "answers" / "key.parquet"
    pq.write_table(pa.table({"item": ["a"], "answer": [row]}), file)
    with pytest.warns(UserWarning, match=r"key\.parquet is damaged"):
        assert folder.read_answers("key", ["a"], Choice) is None


def test_altered_answers_are_told_though_the_file_is_sound(folder: RunFolder) -> None:
    folder.write_answers("key", [Choice(0), Choice(1)], ["a", "b"], {})
    file = folder.path / "answers" / "key.parquet"
    before = pq.read_table(file)
    place = before.column_names.index("decision")
    pq.write_table(before.set_column(place, before.schema.field(place), pa.array([1, 1])), file)
    with pytest.warns(UserWarning, match="its content is not what was written"):
        assert folder.read_answers("key", ["a", "b"], Choice) is None


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_run_with_a_damaged_file_tells_and_has_the_same_numbers(tmp_path: Path, cut: int) -> None:
    def run() -> Any:
        return compare("demo", "none", "bbq(source=demo)", limit=12, out=tmp_path, **QUIET)

    first = run()
    (file,) = (tmp_path / "answers").iterdir()
    whole = table(tmp_path)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(RunError, match=f"{file.name} is damaged: .*run the same command again"):
        first.transcripts(whole.item[0])
    with pytest.warns(UserWarning, match=f"{file.name} is damaged"):
        again = run()
    assert numbers(again) == numbers(first)
    assert table(tmp_path).equals(whole), "written anew"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers(run()) == numbers(first)


def numbers(report: Any) -> str:
    """All but times."""
    return repr([r for r in report.records if "seconds" not in r.metric])


# ---------------------------------------------------------------------------------------------- what the page shows


def documented(language: str) -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands of the page are run."""
    place = tmp_path_factory.mktemp("shown")
    compare("demo", "self_debias", "bbq(source=demo)", limit=60, out=place / "runs" / "demo", **QUIET)
    return place


def test_the_documented_pandas_filters(shown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shown)
    names: dict[str, Any] = {}
    for code in documented("python"):
        exec(code, names)
    frame = names["answers"]
    assert len(frame) == 120 and str(frame.dtypes["decision"]) == str(frame.dtypes["calls"]) == "Int64"
    assert list(names["means"].index.names) == ["method", "part"] and len(names["means"]) == 4
    report = Report.load(shown / "runs" / "demo")
    value = {(r.method, r.metric): r.value for r in report.records if r.group == "overall"}
    for (method, part), row in names["means"].iterrows():
        assert row.right == pytest.approx(value[method, f"accuracy_{part}"])
    parts = dict(frame[frame.method == "none"].set_index("item").part)
    for part in ("ambiguous", "disambiguated"):
        turned = [item for item in names["turned"] if parts[item] == part]
        assert len(turned) / 30 == pytest.approx(value["self_debias", f"became_wrong_{part}"])
    assert len(names["turned"]) > 0 and (names["sure"].chosen >= 1 / 3).all() and names["missing"].empty
    cost = names["cost"].loc["bbq(source=demo)"]
    assert cost.calls_ratio["self_debias"] == 2
    tokens = frame[frame.method == "self_debias"].prompt_tokens.mean()
    assert cost.prompt_tokens_per_item["self_debias"] == pytest.approx(tokens)


def test_the_documented_duckdb_query(shown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(shown)
    (query,) = documented("sql")
    rows = duckdb.sql(query).fetchall()
    assert [row[:3] for row in rows[:2]] == [("none", "ambiguous", 30), ("none", "disambiguated", 30)] and len(
        rows
    ) == 4


# ---------------------------------------------------------------------------------------------------- the columns


class Mixed(ScriptedModel):
    """Of every three questions it answers one, misses the format of one, and leaves one."""

    def choose(self, questions: Any) -> list[Choice]:
        kinds = (
            Choice(0, (0.5, 0.25, 0.25), mass=0.75, usage=Usage(1, 20, 0)),
            Choice(None, status="unparsed", reply="neither", note="no letter", cut=True, usage=Usage(1, 20, 5)),
            Choice(None, status="unanswered", note="the endpoint said 500", usage=Usage(1)),
        )
        return [kinds[n % 3] for n, _ in enumerate(questions)]


def test_columns_can_be_filtered_without_parsing(tmp_path: Path) -> None:
    report = compare(Mixed(), "none", "bbq(source=demo)", limit=30, out=tmp_path, **QUIET)
    frame = table(tmp_path)
    assert dict(frame.status.value_counts()) == {"answered": 10, "unparsed": 10, "unanswered": 10}
    assert set(frame[frame.status == "unanswered"].note) == {"the endpoint said 500"}
    assert set(frame[frame.status == "unparsed"].note) == {"no letter"}
    assert set(frame[frame.cut].reply) == {"neither"}
    assert set(frame[frame.decision == 0].mass) == {0.75}
    assert frame.probabilities[frame.status == "answered"].map(sum).eq(1).all()
    assert int(frame.new_tokens.sum()) == 50 and int(frame.calls.sum()) == 30
    assert set(frame[frame.status != "answered"].grade) == {"undecided"}
    assert frame.seconds.isna().all(), "too short to time, as in the table of costs"
    assert set(frame.part) == {"ambiguous", "disambiguated"}
    assert frame.groups.map(lambda groups: groups[0]).eq("overall").all()
    assert frame.rest.isna().all(), "all else is as usual"
    assert frame.note.notna().equals(frame.status != "answered")
    assert frame.reply.notna().equals(frame.status == "unparsed")
    for part, mine in frame.groupby("part"):
        (r,) = [r for r in report.records if (r.metric, r.group) == (f"unparsed_{part}", "overall")]
        assert r.n == len(mine) and r.value == pytest.approx(mine.decision.isna().mean())


def test_grades_and_clusters_are_the_benchmark_s(tmp_path: Path) -> None:
    compare("demo", "none", "bbq(source=demo)", limit=60, out=tmp_path, **QUIET)
    frame = table(tmp_path).set_index("item")
    items = {item.id: item for item in BBQ(source="demo").load() if item.id in frame.index}
    assert len(items) == len(frame) == 60
    for item, row in frame.iterrows():
        assert row.grade == ("right" if row.decision == items[item].label else "wrong")
        assert row.cluster == items[item].cluster


def test_an_answer_of_several_parts_has_the_status_of_its_worst() -> None:
    class Item:
        id, cluster = "a", "c"

    lost, unread = Choice(None, status="unanswered", note="gone"), Choice(None, status="unparsed", note="no letter")

    class Silent(BBQ):
        def grades(self, items: Any, answers: Any) -> Any:
            raise KeyError("broken")

    def fact(answer: Any) -> AnswerFacts:
        usage = {
            "model": "m",
            "method": "x",
            "benchmark": "b",
            "items": 1,
            "calls": 0,
            "prompt_tokens": 0,
            "new_tokens": 0,
            "seconds": 3.0,
            "seconds_saved": None,
        }
        (found,) = answer_facts(Silent(source="demo"), [Item()], [answer], usage)
        assert found.cluster == "c" and found.grade is found.groups is found.decision is found.seconds is None
        return found

    assert fact(OrderAnswer((Choice(0), unread, lost)))[3:5] == ("unanswered", "gone")
    assert fact(OrderAnswer((Choice(0), unread)))[3:5] == ("unparsed", "no letter")
    assert fact(OrderAnswer((Choice(0, usage=Usage(1, 2, 3)),)))[3:5] == ("answered", "")
    assert fact(Reply(None, note="why")).note == "why"
    assert fact(BScoreAnswer(((Shot(None, (0, 1)),),), ())).status == "unanswered"


def test_an_answer_s_cost_counts_whether_it_is_a_field_or_a_property() -> None:
    one, two = Choice(0, usage=Usage(1, 2, 3)), Choice(1, usage=Usage(10, 20, 30))
    assert usages([one, OrderAnswer((one, two)), Score(-1.0, 2)]) == [Usage(1, 2, 3), Usage(11, 22, 33), None]


def test_the_cost_of_answers_of_several_parts_is_in_the_manifest_and_they_are_asked_again(tmp_path: Path) -> None:
    spec = "option_order(source=demo,of=bbq)"
    report = compare(Mixed(), "none", spec, limit=12, out=tmp_path, **QUIET)
    (facts,) = report.manifest["usage"]
    frame = table(tmp_path)
    assert facts["calls"] == int(frame.calls.sum()) > 12 and (frame.status == "unanswered").any()
    asked: list[int] = []

    class Heard(Mixed):
        def choose(self, questions: Any) -> list[Choice]:
            asked.append(len(questions))
            return super().choose(questions)

    compare(Heard(), "none", spec, limit=12, out=tmp_path, **QUIET)
    assert sum(asked) > 0, "a missing answer is asked for again"


def test_where_nothing_may_be_written_a_cluster_is_named_after_its_first_item() -> None:
    class Item:
        def __init__(self, id: str, cluster: str) -> None:
            self.id, self.cluster = id, cluster

    class Hidden(BBQ):
        quotable: ClassVar[bool] = False

        def grades(self, items: Any, answers: Any) -> Any:
            return None

    items = [Item("a", "its text"), Item("b", "other"), Item("c", "its text")]
    found = answer_facts(
        Hidden(source="demo"),
        items,
        [Choice(0)] * 3,
        {
            "model": "m",
            "method": "x",
            "benchmark": "b",
            "items": 3,
            "calls": 0,
            "prompt_tokens": 0,
            "new_tokens": 0,
            "seconds": 1.0,
            "seconds_saved": 0.5,
        },
    )
    assert [f.cluster for f in found] == ["a", "b", "a"] and [f.seconds for f in found] == [0.5] * 3
