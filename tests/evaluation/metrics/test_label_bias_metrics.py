"""Label metrics by hand: unequal classes, constant and perfect answers, nothing right, nothing there."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evenhand.errors import SettingsError
from evenhand.evaluation.metrics.label_bias import LabelColumns, accuracy, bias_score, counts, macro_f1, recall_std, rsd
from evenhand.interfaces import Array


def scores(gold: list[int], predicted: list[int | None], classes: int) -> dict[str, float]:
    c = counts(gold, predicted, classes)
    return {
        "accuracy": float(accuracy(c.gold, c.hits)),
        "rstd": float(recall_std(c.gold, c.hits)),
        "rsd": float(rsd(c.gold, c.hits)),
        "f1": float(macro_f1(c.gold, c.hits, c.predicted)),
    }


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_perfect_and_constant_answers_on_balanced_classes(classes: int) -> None:
    gold = [c for c in range(classes) for _ in range(4)]
    perfect = scores(gold, list(gold), classes)
    assert perfect == {"accuracy": 1.0, "rstd": 0.0, "rsd": 0.0, "f1": 1.0}
    constant = scores(gold, [1] * len(gold), classes)
    assert constant["rsd"] == pytest.approx(math.sqrt(classes - 1))
    assert constant["rstd"] == pytest.approx(math.sqrt(classes - 1) / classes)
    # one class has precision 1/K and recall 1, the others nothing
    assert constant["f1"] == pytest.approx(2 / (classes + 1) / classes)


def test_nine_to_one() -> None:
    gold = [0] * 90 + [1] * 10
    majority, minority = scores(gold, [0] * 100, 2), scores(gold, [1] * 100, 2)
    assert majority["rsd"] == pytest.approx(0.5 / 0.9)
    assert minority["rsd"] == pytest.approx(0.5 / 0.1)
    assert (majority["rstd"], minority["rstd"]) == (0.5, 0.5)


def test_unequal_recalls_by_hand() -> None:
    # recalls 3/4, 1/2 and 0 of 4, 2 and 1 items; one item of class 0 unparsed, which is wrong
    gold = [0, 0, 0, 0, 1, 1, 2]
    predicted = [0, 0, 0, None, 1, 0, 1]
    got = scores(gold, predicted, 3)
    assert got["accuracy"] == pytest.approx(4 / 7)
    deviation = float(np.std([3 / 4, 1 / 2, 0]))
    assert got["rstd"] == pytest.approx(deviation)
    assert got["rsd"] == pytest.approx(deviation / (4 / 7))
    # F1: 2*3/(4+4), 2*1/(2+2), 0
    assert got["f1"] == pytest.approx((6 / 8 + 2 / 4 + 0) / 3)


def test_classes_without_items_do_not_count() -> None:
    got = scores([0, 0, 2], [0, 3, 2], 4)
    assert got["rstd"] == pytest.approx(0.25), "recalls 1/2 and 1"
    assert got["rsd"] == pytest.approx(0.25 / (2 / 3))
    assert got["f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_nothing_right_has_no_rsd_and_nothing_there_has_nothing() -> None:
    wrong = scores([0, 1, 1], [1, 0, None], 2)
    assert math.isnan(wrong["rsd"]) and wrong["rstd"] == wrong["f1"] == wrong["accuracy"] == 0.0
    assert all(math.isnan(v) for v in scores([], [], 3).values())


def table(gold: list[int], probabilities: list[list[float]], classes: int) -> tuple[Array, Array]:
    mass, rows = np.zeros((classes, classes)), np.zeros(classes)
    for g, p in zip(gold, probabilities, strict=True):
        mass[g] += p
        rows[g] += 1
    return mass, rows


def test_bias_score_of_known_predictions() -> None:
    gold = [0] * 6 + [1] * 3 + [2]
    one_hot = np.eye(3)
    assert bias_score(*table(gold, [[1 / 3] * 3] * 10, 3)) == pytest.approx(0)
    assert bias_score(*table(gold, [[0, 1, 0]] * 10, 3)) == pytest.approx(1 - 1 / 3)
    assert bias_score(*table(gold, [list(one_hot[g]) for g in gold], 3)) == pytest.approx(0), "imbalance is no bias"
    present = [g for g in gold if g < 2]
    assert bias_score(*table(present, [list(one_hot[g]) for g in present], 3)) == pytest.approx(1 - 2 / 3)
    # class means (.8, .2) of two items and (.5, .5) of one: balanced (.65, .35)
    assert bias_score(*table([0, 0, 1], [[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]], 2)) == pytest.approx(0.15)
    assert np.isnan(bias_score(np.zeros((2, 2)), np.zeros(2)))


def test_columns_give_the_same_from_sums_over_leading_dimensions() -> None:
    columns = LabelColumns(3)
    gold, predicted = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, None, 1, 0, 1]
    rows = np.array([columns.row(g, p) for g, p in zip(gold, predicted, strict=True)])
    sums = np.stack([rows.sum(axis=0), 2 * rows.sum(axis=0), np.zeros(columns.width)])
    got = columns.metrics(sums)
    want = scores(gold, predicted, 3)
    for name, key in (("rsd", "rsd"), ("rstd", "rstd"), ("macro_f1", "f1")):
        assert got[name].value[:2] == pytest.approx([want[key]] * 2)
        assert np.isnan(got[name].value[2])
        assert got[name].n.tolist() == [7, 14, 0]
    assert [float(got[f"position_{i}"].value[0]) for i in (1, 2, 3)] == pytest.approx([4 / 6, 2 / 6, 0])
    assert got["position_1"].n.tolist() == [6, 12, 0]
    assert set(got) == {m.name for m in columns.info}


def test_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    gold = rng.choice(5, 200, p=[0.5, 0.2, 0.2, 0.1, 0.0]).tolist()
    predicted = rng.integers(0, 5, 200).tolist()
    got = scores(gold, predicted, 5)
    assert got["f1"] == pytest.approx(metrics.f1_score(gold, predicted, average="macro", labels=[0, 1, 2, 3]))
    recalls = metrics.recall_score(gold, predicted, average=None, labels=[0, 1, 2, 3])
    assert got["rstd"] == pytest.approx(np.std(recalls))


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(SettingsError, match="2 labels but 1 predictions"):
        counts([0, 1], [0], 2)
