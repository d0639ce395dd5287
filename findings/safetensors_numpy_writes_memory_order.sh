#!/bin/sh
# Guess: safetensors.numpy.save stores the values of an array, whatever its order in memory, or
# refuses an array that is not C-contiguous, as safetensors.torch.save_file does.
#
# Behaviour: an array that is not C-contiguous is written as its memory lies, under its own shape,
# and comes back with other values or its values in other places, without a word. Such arrays come
# unasked: a transposed one, every second column of one, and
# scikit-learn's PCA(svd_solver="covariance_eigh").components_. Seen: the lines that this prints.
#
# Versions: safetensors 0.8.0, numpy 2.2.6, scikit-learn 1.7.2.
#
# Why it matters here: whatever is kept beside weights (axes, centres, class means, a linear probe
# fitted by scikit-learn) is numpy. A scrambled head still gives scores, only worse ones.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    safetensors==0.8.0 numpy==2.2.6 scikit-learn==1.7.2
"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
from safetensors.numpy import load, save
from sklearn.decomposition import PCA

values = np.arange(6.0).reshape(2, 3)
axes = PCA(3, svd_solver="covariance_eigh").fit(
    np.random.default_rng(0).standard_normal((50, 8))
).components_
cases = {
    "C order": values,
    "Fortran order": np.asfortranarray(values),
    "transposed": values.T,
    "every second column": np.arange(12.0).reshape(2, 6)[:, ::2],
    "components_ of a PCA": axes,
}
same = {}
for name, array in cases.items():
    back = load(save({"a": array}))["a"]
    same[name] = back.shape == array.shape and bool(np.array_equal(back, array))
    print(f"{name}: C-contiguous {array.flags.c_contiguous}, comes back equal {same[name]}")
    if name == "Fortran order":
        print(f"  {array.tolist()} -> {back.tolist()}")
wanted = {
    "C order": True,
    "Fortran order": False,
    "transposed": False,
    "every second column": False,
    "components_ of a PCA": False,
}
if same != wanted:
    sys.exit("not what was seen with these versions")
PY
