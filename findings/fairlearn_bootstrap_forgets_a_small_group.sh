#!/usr/bin/env bash
# Fairlearn's interval for the largest difference comes from resamples in which the group with the difference is absent.
#
# Versions: fairlearn 0.15.0, scikit-learn 1.9.1, numpy 2.4.6 (CPU).
#
# One would guess: MetricFrame(n_boot=...) resamples within the groups, or gives
# NaN, or a warning, where a resample has no row of a group. A group that is too
# small to tell anything shows in an interval of its own that is wide.
#
# Behaviour: the rows are resampled without regard to the groups. A resample
# that misses a group has a difference, a ratio and a minimum over the groups
# that are left; such resamples are counted like the others. A group of 2
# rows is absent from 13.5 % of them, which is more than the 2.5 % of a tail, so
# the lower bound of the difference is that of the large groups, whatever the
# small group does. With 4 rows (1.8 %) the bound jumps to the other side. The
# small group's own interval is computed from the resamples that have it,
# and has the width 0 here. There is no warning, and no count of the resamples.
#
# Seen (groups a and b: 200 rows, 80 % right; group c: all wrong; accuracy, 500 resamples):
#   c with 2 rows: difference 0.8 [0.01, 0.86], c alone 0 [0, 0], smallest accuracy 0 [0, 0.81]
#   c with 4 rows: difference 0.8 [0.77, 0.86], c alone 0 [0, 0], smallest accuracy 0 [0, 0.00]
#   c with 2 rows, resampled within the groups by hand: difference 0.8 [0.77, 0.86]
#   share of resamples without c, by calculation, 2 rows: 0.13

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        fairlearn==0.15.0 scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1 pandas==3.1.1
fi

"$python" -W ignore - <<'PY'
import warnings

import fairlearn
import numpy as np
import sklearn
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score

print("fairlearn", fairlearn.__version__, "scikit-learn", sklearn.__version__, "numpy", np.__version__)
LARGE, RIGHT, RESAMPLES = 200, 160, 500
TAILS = [0.025, 0.975]


def data(small):
    group = np.array(["a"] * LARGE + ["b"] * LARGE + ["c"] * small)
    guess = np.array(([1] * RIGHT + [0] * (LARGE - RIGHT)) * 2 + [0] * small)
    return group, guess


def frame(small):
    group, guess = data(small)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = MetricFrame(
            metrics=accuracy_score,
            y_true=np.ones_like(guess),
            y_pred=guess,
            sensitive_features=group,
            n_boot=RESAMPLES,
            ci_quantiles=TAILS,
            random_state=0,
        )
        made.difference_ci()
    if any(issubclass(w.category, UserWarning | RuntimeWarning) for w in caught):
        raise SystemExit("changed: there is a warning now")
    return made


def within(small):
    """The same interval, with the rows of each group resampled among themselves."""
    rng = np.random.default_rng(0)
    right = [np.repeat([1, 0], [RIGHT, LARGE - RIGHT])] * 2 + [np.zeros(small)]
    means = [[rng.choice(rows, len(rows)).mean() for rows in right] for _ in range(RESAMPLES)]
    return np.quantile(np.ptp(means, axis=1), TAILS)


def expect(what, seen, figures, slack=0.02):
    """Every number lies within slack of its figure."""
    if not np.allclose(seen, figures, atol=slack, rtol=0):
        raise SystemExit(f"changed: {what} was {figures}, is now {seen}")


for small, difference, smallest in [(2, (0.010, 0.863), (0.0, 0.809)), (4, (0.766, 0.865), (0.0, 0.0))]:
    made = frame(small)
    span, least = made.difference_ci(), made.group_min_ci()
    own = [bound["c"] for bound in made.by_group_ci]
    print(
        f"c with {small} rows: difference {made.difference():.1f} [{span[0]:.2f}, {span[1]:.2f}], "
        f"c alone {made.by_group['c']:g} [{own[0]:g}, {own[1]:g}], "
        f"smallest accuracy {made.group_min():g} [{least[0]:g}, {least[1]:.2f}]"
    )
    expect("difference", made.difference(), 0.8)
    expect("interval of the difference", span, difference)
    expect("interval of c", own, (0.0, 0.0))
    expect("interval of the smallest accuracy", least, smallest)

span = within(2)
print(f"c with 2 rows, resampled within the groups by hand: difference 0.8 [{span[0]:.2f}, {span[1]:.2f}]")
expect("interval by hand", span, (0.77, 0.86))
print(f"share of resamples without c, by calculation, 2 rows: {(1 - 2 / (2 * LARGE + 2)) ** (2 * LARGE + 2):.2f}")
PY
