"""What a pickle of weights may hold beside tensors: harmless values, made by nothing but us.

torch's reader for weights makes no object that it was not told of. Told here are the constructors
of values that training scripts keep beside the weights (a metric, a path, a date, a counter). None
of them runs code of the file: numpy's own constructors, which trust sizes that a file states, are
stood in for by functions that check them.
"""

import argparse
import datetime
import decimal
import pathlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

_PLAIN = re.compile(r"[<>|=]?([biufc]\d{1,2}|[SU]\d{1,4}|\?)")


class _Dtype:
    """What a pickle says of an array's elements: a number, a truth or text, else refused."""

    def __init__(self, name: object, *_: object) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else name
        if not isinstance(text, str) or not _PLAIN.fullmatch(text):
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({text!r})")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("GLOBAL numpy.dtype(of several fields)")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"a byte order of {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array whose bytes are checked against its shape before they become elements."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:  # type: ignore[override]
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Dtype) or type(data) is not bytes:
            raise pickle.UnpicklingError("GLOBAL numpy.ndarray(of objects)")
        if len(data) != prod(shape) * kind.dtype.itemsize:
            raise ValueError(f"an array of {len(data)} bytes cannot have the shape {shape}")
        super().__setstate__((1, shape, kind.dtype, fortran, data))


def _array(*_: object) -> np.ndarray:
    return np.ndarray.__new__(_Array, (0,))


def _scalar(kind: _Dtype, data: bytes) -> np.generic:
    if not isinstance(kind, _Dtype) or type(data) is not bytes:
        raise pickle.UnpicklingError("GLOBAL numpy.scalar(of an object)")
    return np.frombuffer(data, kind.dtype, 1)[0]


_MADE_BY: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    # Without what fills it (`builtins` below, never called) and without a limit; items follow.
    "collections.defaultdict": lambda *_: {},
    "collections.deque": lambda *_: [],
    "argparse.Namespace": argparse.Namespace,
    "types.SimpleNamespace": SimpleNamespace,
    "decimal.Decimal": decimal.Decimal,
    "fractions.Fraction": Fraction,
    "builtins.bytes": bytes,
    "builtins.frozenset": frozenset,
    **dict.fromkeys(
        (f"builtins.{kind}" for kind in ("list", "dict", "int", "float", "str", "bool")),
        lambda *_: [],
    ),
    **{f"datetime.{kind.__name__}": kind
       for kind in (datetime.date, datetime.datetime, datetime.time, datetime.timedelta,
                    datetime.timezone)},
    # A path is made without a look at the disk, also one of another system.
    **{f"{module}.{kind}Path": pathlib.PureWindowsPath if "Windows" in kind
       else pathlib.PurePosixPath
       for module in ("pathlib", "pathlib._local")
       for kind in ("", "Posix", "Windows", "PurePosix", "PureWindows", "Pure")},
    **{f"numpy.{core}.multiarray.{name}": make
       for core in ("core", "_core")
       for name, make in (("scalar", _scalar), ("_reconstruct", _array))},
    # Dicts with attributes, in which settings are kept.
    **dict.fromkeys(
        ("easydict.EasyDict", "addict.addict.Dict", "yacs.config.CfgNode",
         "pytorch_lightning.utilities.parsing.AttributeDict",
         "lightning_fabric.utilities.data.AttributeDict",
         "lightning.fabric.utilities.data.AttributeDict"),
        OrderedDict,
    ),
}  # fmt: skip

# As `torch.serialization.safe_globals` takes them.
HARMLESS: list[Any] = [(make, name) for name, make in _MADE_BY.items()]
