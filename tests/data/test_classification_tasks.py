"""The paper's choice of classification tasks by made tasks, and fetching a folder of a repository by git."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from evenhand.data import super_natural_instructions as superni
from evenhand.data.classification_tasks import EXCLUDED, About, candidate, counted
from evenhand.data.io import download, locate
from evenhand.errors import DataError
from evenhand.evaluation.label_bias import LabelBias

TABLE = """## Tasks List

Name | Summary | Category | Domain | Input Language | Output Language
--- | --- | --- | --- | --- | ---
`task1_mood_classification`\t| Say the mood.\t| Misc.\t| Web\t| English\t| English
`task2_mood`\t| Classify the mood.\t| Misc.\t| Web\t| English\t| English
`task3_mood`\t| Say it.\t| Mood Detection\t| Web\t| English\t| English
`task4_mood`\t| Write a poem.\t| Poems\t| Web\t| English\t| English
`task5_mood_classification`\t| Say the mood.\t| Misc.\t| Web\t| French\t| English
`task089_swap_words_verification`\t| Detect it.\t| Misc.\t| Web\t| English\t| English
`task6_x_incorrect_answer_generation`\t| Say it.\t| Misc.\t| Web\t| English\t| English
`task7_many_classification`\t| Say it.\t| Misc.\t| Web\t| English\t| English
`task8_few_classification`\t| Say it.\t| Misc.\t| Web\t| English\t| English
`task9_two_classification`\t| Say it.\t| Misc.\t| Web\t| English\t| English
"""


def task(folder: Path, name: str, outputs: list[list[str]]) -> None:
    instances = [{"input": f"input {n}", "output": output} for n, output in enumerate(outputs)]
    content = {"Categories": ["Misc."], "Definition": ["Say it."], "Positive Examples": [], "Instances": instances}
    content |= {"Input_language": ["English"], "Output_language": ["English"]}
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "README.md").write_text(TABLE)
    two = [["good"], ["bad"]] * 198
    names = [line.split("`")[1] for line in TABLE.splitlines() if line.startswith("`")]
    for name in [*names, "task10_unlisted_classification"]:
        task(folder, name, two)
    task(folder, "task7_many_classification", [[f"label {n % 50}"] for n in range(396)])
    task(folder, "task8_few_classification", two[:395])
    task(folder, "task9_two_classification", [["good", "fine"], ["bad", "poor"]] * 198)
    return tmp_path


def test_the_table_of_kept_and_dropped_has_a_reason_for_each(tasks: Path) -> None:
    loaded = superni.load(str(tasks), paper=True)
    assert [t.name for t in loaded.tasks] == ["task1_mood_classification", "task2_mood", "task3_mood"]
    table = {row["task"]: row for row in loaded.facts["choice"]}
    assert len(table) == 11
    assert table["task2_mood"] == {"task": "task2_mood", "kept": True, "reason": "", "instances": 396, "labels": 2}
    assert {name: row["reason"] for name, row in table.items() if not row["kept"]} == {
        "task4_mood": "not called a classification, a detection or an answer generation",
        "task5_mood_classification": "not English both ways: French to English",
        "task089_swap_words_verification": "left out by name",
        "task6_x_incorrect_answer_generation": "wrong answers are asked for",
        "task7_many_classification": "50 different labels; fewer than 50 are needed",
        "task8_few_classification": "395 instances; 396 are needed",
        "task9_two_classification": "2.00 outputs on average; fewer than 2 are needed",
        "task10_unlisted_classification": "not in the table of all tasks",
    }
    assert "the rule keeps 3 of 11 tasks; the paper has 279" in loaded.facts["notes"]
    assert len(superni.load(str(tasks)).tasks) > 3, "without the rule"


def test_the_benchmark_takes_the_rule_and_reports_the_table(tasks: Path) -> None:
    found = LabelBias.build(source=str(tasks), choice="paper", contexts=1)
    assert {i.cluster for i in found.load()} == {"task1_mood_classification", "task2_mood", "task3_mood"}
    assert sum(row["kept"] for row in found.facts()["choice"]) == 3
    assert "choice" not in LabelBias.build(source="demo").facts()
    with pytest.raises(DataError, match="no table of all tasks"):
        LabelBias.build(source="demo", choice="paper").load()


def test_the_rules_at_their_bounds() -> None:
    assert counted([["a"], ["b"]] * 198) == "" and counted([["a"]] * 395).startswith("395 instances")
    assert counted([[f"label {n % 49}"] for n in range(396)]) == ""
    assert counted([["a", "b"], ["a"]] * 198) == "", "1.5 outputs on average"
    assert len(EXCLUDED) == 9
    named = About("task1_Classification", "Say it.", "CLASSIFICATION of moods", "English", "English")
    assert candidate(named) == "" and candidate(named._replace(category="")), "names are compared as written"


# ------------------------------------------------------------------------------------------- fetched by git


def git(folder: Path, *arguments: str) -> str:
    named = ("-c", "user.name=A", "-c", "user.email=a@example.org", *arguments)
    return subprocess.run(["git", *named], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks/task1_x.json").write_text("{}\n")
    (folder / "large.bin").write_text("not wanted")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    return folder


def data_set(url: Path, commit: str) -> locate.Dataset:
    return superni.DATASET._replace(clone=locate.Clone(url.as_uri(), commit, "tasks"))


def test_git_fetches_one_folder_at_its_commit_once(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    (repository / "tasks/task1_x.json").write_text("changed later\n")
    git(repository, "commit", "--quiet", "-am", "two")
    folder = download.fetch(data_set(repository, first), tmp_path / "data")
    assert (folder / "tasks/task1_x.json").read_text() == "{}\n"
    assert [p.name for p in folder.iterdir()] == ["tasks"], "nothing else of it, and no repository"
    (folder / "tasks/task1_x.json").write_text("mine")
    download.fetch(data_set(repository, first), tmp_path / "data")
    assert (folder / "tasks/task1_x.json").read_text() == "mine", "what is there is left alone"


def test_a_commit_that_is_not_there_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot fetch 0000.*Put the files into a folder"):
        download.fetch(data_set(repository, "0" * 39 + "1"), tmp_path / "data")
    assert not list((tmp_path / "data/super_natural_instructions").iterdir())


def test_the_published_tasks_can_be_fetched() -> None:
    assert locate.fetchable(superni.DATASET)
    assert superni.DATASET.clone is not None and len(superni.DATASET.clone.commit) == 40
    assert "evenhand data fetch super_natural_instructions" in locate.how_to_get(superni.DATASET)
