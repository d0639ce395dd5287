"""YAML as people mean it: `1e-3` is a number, a key given twice is an error, nothing is run."""

import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer, ComposerError

from src.errors import UserError

# What int(), date(), a wrong tag and deep nesting raise passes through PyYAML.
_LET_THROUGH = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
# No config comes near these; a document of aliases to aliases grows without bounds.
MAX_BYTES = 2**22
MAX_NODES = 200_000
_MERGE = "tag:yaml.org,2002:merge"
_FLOAT = "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")


class _UniqueKeys(yaml.constructor.BaseConstructor):
    """Refuses a mapping with a key that stands twice; PyYAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            problem = None
            if not isinstance(key, Hashable):
                problem = f"{key!r} cannot be a key"
            elif key in seen:
                problem = f"key {key!r} stands twice"
            if problem is not None:
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Bounded(Composer):
    """Refuses a document that its aliases blow up, or that holds itself."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node


def _size(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Return how many nodes a document has with every alias written out."""
    if node in known:
        if not known[node]:
            raise ComposerError(None, None, "it holds itself", node.start_mark)
        return known[node]
    known[node] = 0
    total = 1
    if isinstance(node, yaml.CollectionNode):
        for part in node.value:
            for child in part if isinstance(part, tuple) else (part,):
                total += _size(child, known)
    if total > MAX_NODES:
        problem = f"its aliases stand for more than {MAX_NODES} values"
        raise ComposerError(None, None, problem, node.start_mark)
    known[node] = total
    return total


class _Loader(_Bounded, _UniqueKeys, yaml.SafeLoader):
    """Numbers, booleans and dates are what they look like."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if abs(number) >= 2**64:  # Python cannot even print those of more than 4,300 digits
            raise yaml.constructor.ConstructorError(None, None, "too large", node.start_mark)
        return number


class _TextLoader(_Bounded, _UniqueKeys, yaml.BaseLoader):
    """Every scalar stays text: `no`, `on` and `007` are words."""


class _Dumper(yaml.SafeDumper):
    """Puts quotes around what `_Loader` would not read back as a string."""


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))


def dump_yaml(content: dict[str, Any]) -> str:
    """Return YAML that `read_yaml` reads back as `content`."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def parse_yaml(text: str, where: str, *, as_text: bool = False) -> Any:  # noqa: ANN401
    """Parse YAML.

    Args:
        text: the document.
        where: named in messages.
        as_text: leave every scalar a string.

    Raises:
        UserError: not YAML, a key twice, or aliases that stand for more than `MAX_NODES` values.
    """
    try:
        return yaml.load(text, _TextLoader if as_text else _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {error}") from None
    except _LET_THROUGH as error:
        raise UserError(f"{where}: not valid YAML: {type(error).__name__}: {error}") from error


def read_yaml(path: Path, *, as_text: bool = False) -> Any:  # noqa: ANN401 - any document
    """Read a YAML file.

    Raises:
        UserError: missing, not readable, not YAML, a key twice.
    """
    return parse_yaml(read_text(path), str(path), as_text=as_text)


def read_text(path: Path) -> str:
    """Return the text of a config; raises UserError where it is missing or not readable."""
    try:
        found = path.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise UserError(f"{path}: is a pipe or a device, which is not read; want a file")
        if found.st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES} bytes, which no config is")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable ({error})") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; raises UserError for anything else."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: want a mapping of keys to values, found {type(content).__name__}")
    return content
