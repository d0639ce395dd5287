#!/bin/sh
# Guess: MAPIE's risk control of a binary loss tests each threshold with the exact binomial
# probability of the errors that were counted.
#
# Behaviour: compute_hoeffding_bentkus_p_value(binary=True) takes ceil(n * r) errors of the risk r,
# which callers compute as 1 - precision. In floating point n * (1 - (n - k) / n) is often a hair
# above k, so that k errors are tested as k + 1: 6 of 666 as 7, p .044 for .020. Of all n from 50 to
# 999 and k from 0 to 19 nearly half are hit. Thresholds are then stricter than asked, never laxer.
# Seen: the lines that this prints.
#
# Versions: MAPIE 1.6.0, numpy 2.2.6, scipy 1.16.3.
#
# Why it matters here: with a few hundred held-out rows one error decides which verdicts are sure.
# Who compares bands against MAPIE finds his own too narrow, and may mend what is right.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    mapie==1.6.0 numpy==2.2.6 scipy==1.16.3
"$work/venv/bin/python" - <<'PY'
import inspect
import sys

import numpy as np
from mapie.risk_control import methods
from scipy.stats import binom

print("takes:", inspect.signature(methods.compute_hoeffding_bentkus_p_value))
as_seen = True
for n, k in ((666, 6), (100, 5), (59, 0)):
    risk = np.array([1 - (n - k) / n])
    got = float(np.ravel(methods.compute_hoeffding_bentkus_p_value(risk, n, 0.02, binary=True))[0])
    right, one_more = binom.cdf(k, n, 0.02), binom.cdf(k + 1, n, 0.02)
    print(f"{k} of {n} at .02: MAPIE {got:.4f}, binomial {right:.4f}, of {k + 1} {one_more:.4f}")
    if (n, k) == (666, 6):
        as_seen &= abs(got - one_more) < 1e-9 and abs(got - right) > 0.01
pairs = [(n, k) for n in range(50, 1000) for k in range(20)]
hit = np.mean([np.ceil(n * (1 - (n - k) / n)) > k for n, k in pairs])
print(f"ceil(n * (1 - (n - k) / n)) is over k for {hit:.0%} of {len(pairs)} pairs")
as_seen &= 0.35 < hit < 0.55
if not as_seen:
    sys.exit("not what was seen with these versions")
PY
