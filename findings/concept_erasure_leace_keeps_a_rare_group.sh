#!/usr/bin/env bash
# LEACE erases a group of 1 %, and leaves one of 0.5 % exactly as it was.
#
# Versions: concept-erasure 0.2.4, torch 2.13.0 (CPU).
#
# One would guess: after LeaceEraser.fit(x, z) the means of the groups are equal
# on x, whatever the share of a group, and the numbers that stand for the labels
# do not matter, since a linear probe does not care about them.
#
# Behaviour: the fit drops every singular value of the whitened covariance of x
# and z that is at most svd_tol = 0.01. That value is not a correlation: it grows
# with the spread of z, which is sqrt(p (1 - p)) for a group with the share p
# coded as 0 and 1. A shift of one standard deviation passes with p = 0.01 and
# is dropped with p = 0.005; then the eraser is exactly the identity, without an
# error or a warning. Labels coded as 0 and 10 are erased. In a one-hot coding the
# large groups are made equal and the rare one keeps its distance. A smaller
# svd_tol erases all of them.
#
# Seen (20000 rows, 8 features, the first one shifted by 1 in the group):
#   share 0.05: mean gap 0.991224 before, 0 after
#   share 0.02: mean gap 0.965632 before, 0 after
#   share 0.01: mean gap 1.06528 before, 0 after
#   share 0.005: mean gap 1.04102 before, 1.04102 after
#   share 0.005: AUC of the group 0.773 before, 0.773 after
#   share 0.005, coded 0 and 10: mean gap 1.04102 before, 0 after
#   share 0.005, svd_tol=1e-6: mean gap 1.04102 before, 0 after
#   one-hot 0.4975, 0.4975, 0.005: large groups 0.963 before, 0.00015 after; rare group 1.08 before, 1.08 after

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        torch==2.13.0 concept-erasure==0.2.4 numpy==2.4.6
fi

"$python" -W ignore - <<'PY'
import warnings
from importlib.metadata import version

import torch
from concept_erasure import LeaceEraser

print("concept-erasure", version("concept-erasure"), "torch", torch.__version__)
torch.set_num_threads(1)
ROWS = 20000


def features(seed=0):
    return torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap(x, member, others):
    """Largest difference, over the features, between the mean of a group and that of the others."""
    return (x[member].mean(0) - x[others].mean(0)).abs().max().item()


def auc(x, member):
    """Probability that the first feature is larger in the group."""
    rank = x[:, 0].argsort().argsort().double() + 1
    n = member.sum().item()
    return ((rank[member].sum() - n * (n + 1) / 2) / (n * (ROWS - n))).item()


def fit(x, z, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        eraser = LeaceEraser.fit(x, z, **options)
    if caught:
        raise SystemExit("changed: the fit warns now")
    return eraser


def erased(what, before, seen, wanted):
    print(f"{what}: mean gap {before:.6g} before, {0 if seen < 1e-9 else seen:.6g} after")
    if (seen < 1e-9) != wanted:
        raise SystemExit(f"changed: {what}")


for share, wanted in [(0.05, True), (0.02, True), (0.01, True), (0.005, False)]:
    member = torch.arange(ROWS) < round(share * ROWS)
    x = features()
    x[member, 0] += 1
    eraser = fit(x, member.double())
    erased(f"share {share}", gap(x, member, ~member), gap(eraser(x), member, ~member), wanted)

if not torch.equal(eraser.P, torch.eye(8, dtype=torch.float64)) or not torch.equal(eraser(x), x):
    raise SystemExit("changed: the eraser of the rare group is not exactly the identity")
before, after = auc(x, member), auc(eraser(x), member)
print(f"share 0.005: AUC of the group {before:.3f} before, {after:.3f} after")
if before != after or before < 0.7:
    raise SystemExit("changed: the AUC")
before = gap(x, member, ~member)
erased("share 0.005, coded 0 and 10", before, gap(fit(x, 10 * member.double())(x), member, ~member), True)
erased("share 0.005, svd_tol=1e-6", before, gap(fit(x, member.double(), svd_tol=1e-6)(x), member, ~member), True)

group = torch.arange(ROWS) % 2
group[member] = 2
first, second, rare = (group == i for i in range(3))
x = features(1)
x[second, 1] += 1
x[rare, 0] += 1
out = fit(x, torch.nn.functional.one_hot(group).double())(x)


def rare_gap(x):
    return abs((x[rare, 0].mean() - x[~rare, 0].mean()).item())


print(
    f"one-hot 0.4975, 0.4975, 0.005: large groups {gap(x, first, second):.3g} before, "
    f"{gap(out, first, second):.2g} after; rare group {rare_gap(x):.3g} before, {rare_gap(out):.3g} after"
)
if gap(out, first, second) > 0.01 or rare_gap(out) < 0.9 * rare_gap(x):
    raise SystemExit("changed: the one-hot coding")
PY
