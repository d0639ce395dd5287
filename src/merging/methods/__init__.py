"""Merge methods: one registered pure function on a stack of same-shaped tensors each.

`METHODS.get("ties")(models, base, weight=[1, 1], density=0.5)`; docs/merging.md lists them.
"""

from src.merging.methods import averages, deltas, selective, spheres
from src.merging.methods.base import METHODS, Method, Parameter, Tensors

__all__ = [
    "METHODS", "Method", "Parameter", "Tensors", "averages", "deltas", "selective", "spheres",
]  # fmt: skip
