"""Merge methods: one registered pure function each; every module of this folder is read.

`METHODS.get("ties")(models, base, weight=[1, 1], density=0.5)`; docs/merging.md lists them.
"""

from src.merging.methods.base import METHODS, Method, Parameter, Tensors
from src.registry import import_all

__all__ = ["METHODS", "Method", "Parameter", "Tensors"]

import_all(__name__)
