"""The one door for YAML: read as people mean it, held against a model, refused in plain words.

`1e-3` is a number, `no` is a word, a key given twice is an error, nothing is run.
"""

import difflib
import inspect
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs, ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scanner import Scanner, ScannerError

from src.errors import UserError, unknown_name

Model = TypeVar("Model")
# What int(), date(), a wrong tag and deep nesting raise passes through ruamel.yaml.
_LET_THROUGH = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
# No config comes near these; a document of aliases to aliases grows without bounds.
MAX_BYTES = 2**22
MAX_NODES = 200_000
MOST_BRACKETS = 100  # open at once; ruamel.yaml's time grows with the square
MOST_DIGITS = 20  # Python cannot even print integers of more than 4,300
_MERGE = "tag:yaml.org,2002:merge"
_INT = "tag:yaml.org,2002:int"
_EXPONENT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
Int = Annotated[int, Strict()]  # neither "3" nor true is a number
Float = Annotated[float, Strict()]
Count = Annotated[Int, Field(ge=1)]
Positive = Annotated[Float, Field(gt=0)]
NotNegative = Annotated[Float, Field(ge=0)]
Chance = Annotated[Float, Field(ge=0, le=1)]
PLAIN = r"[A-Za-z0-9][A-Za-z0-9._-]*"
Plain = Annotated[str, Field(pattern=f"^{PLAIN}$")]  # the name of one file, in any system
Word = Annotated[str, Field(min_length=1)]
EachOnce = AfterValidator(lambda values: _each_once(values))
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)  # of every model of a YAML
# How pydantic's kinds of errors are worded; all others in its own words.
_WORDS = {
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:g}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must be a plain name of letters, digits, '.', '_' and '-'",
    "missing": "must hold more values",
    "too_short": "must hold {min_length} or more values",
}
_MAPPING = "a mapping of keys to values"
_KINDS = {
    "string": "text", "int": "a whole number", "float": "a number", "bool": "true or false",
    "list": "a list", "tuple": "a list", "dict": _MAPPING, "dataclass": _MAPPING,
}  # fmt: skip


def _each_once(values: Sequence[Any]) -> Sequence[Any]:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice")
    return values


@dataclass(frozen=True, config=STRICT)
class Keys:
    """What every model of a YAML descends from: an unknown key is told from the known ones."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, content: Any) -> Any:  # noqa: ANN401 - whatever a YAML holds
        known = list(cls.__dataclass_fields__)
        for key in content if isinstance(content, dict) else ():
            if key not in known:
                facts = {"key": str(key), "known": known}
                raise PydanticCustomError("unknown_key", "unknown key", facts)
        return content


def keywords_of(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return kind and default of each keyword of a function: what a YAML may set of it."""
    keywords = inspect.signature(function).parameters.values()
    return {k.name: (k.annotation, k.default) for k in keywords if k.kind is k.KEYWORD_ONLY}


def make_keys(
    name: str, keys: Mapping[str, tuple[Any, Any]], base: type = Keys, about: str = ""
) -> type:
    """Return a model of a YAML with the keys of `base` and these, each its kind and its default."""
    body: dict[str, Any] = {key: default for key, (_, default) in keys.items()}
    body |= {"__annotations__": {key: kind for key, (kind, _) in keys.items()}}
    body |= {"__module__": __name__, "__doc__": about or f"{name}, as a YAML has it."}
    return dataclass(frozen=True, config=STRICT)(type(name, (base,), body))


class _Shallow(Scanner):
    """Refuses brackets in brackets without end."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:  # noqa: ANN401, N803
        if len(self.flow_context) >= MOST_BRACKETS:
            problem = f"more than {MOST_BRACKETS} brackets are open"
            raise ScannerError(None, None, problem, self.reader.get_mark())
        super().fetch_flow_collection_start(TokenClass, to_push)


class _Bounded(Composer):
    """Refuses what aliases blow up, what holds itself, a key twice, and a number without end."""

    def compose_document(self) -> Node | None:
        node = super().compose_document()
        if node is not None:
            _size(node, {})
        return node


def _size(node: Node, known: dict[Node, int]) -> int:
    """Return how many nodes a document has with every alias written out."""
    if node in known:
        if not known[node]:
            raise ComposerError(None, None, "it holds itself", node.start_mark)
        return known[node]
    known[node] = 0
    total = 1
    if isinstance(node, MappingNode):
        _check_keys(node)
    if isinstance(node, CollectionNode):
        for part in node.value:
            for child in part if isinstance(part, tuple) else (part,):
                total += _size(child, known)
    elif node.tag == _INT and len(node.value) > MOST_DIGITS:
        raise ComposerError(None, None, "a number that is too large", node.start_mark)
    if total > MAX_NODES:
        problem = f"its aliases stand for more than {MAX_NODES} values"
        raise ComposerError(None, None, problem, node.start_mark)
    known[node] = total
    return total


def _check_keys(node: MappingNode) -> None:
    """Refuse a key that stands twice, also beside `<<`, where ruamel.yaml would keep the last."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            raise ComposerError(None, None, f"a {key.id} cannot be a key", key.start_mark)
        if (key.tag, key.value) in seen and key.tag != _MERGE:
            raise ComposerError(None, None, f"key {key.value!r} stands twice", key.start_mark)
        seen.add((key.tag, key.value))


# `.5e1` is a number, too.
VersionedResolver.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list(".+-"))


class _AsText(VersionedResolver):
    """Takes nothing for more than text."""

    versioned_resolver: Any = MappingProxyType({})  # type: ignore[assignment]


def _yaml(*, as_text: bool = False) -> YAML:
    yaml = YAML(typ="base" if as_text else "safe", pure=True)
    yaml.Scanner = _Shallow
    yaml.Composer, yaml.Resolver = _Bounded, _AsText if as_text else VersionedResolver
    yaml.default_flow_style, yaml.allow_unicode = False, True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def dump_yaml(content: dict[str, Any]) -> str:
    """Return YAML that `read_yaml` reads back as `content`."""
    text = StringIO()
    _yaml().dump(content, text)
    return text.getvalue()


def parse_documents(text: str, where: str, *, as_text: bool = False) -> list[Any]:
    """Parse YAML of any number of documents; empty ones are left out.

    Args:
        text: the documents.
        where: named in messages.
        as_text: leave every scalar a string, so that `007` and `2024-01-01` are words.

    Raises:
        UserError: not YAML, a key twice, or aliases that stand for more than `MAX_NODES` values.
    """
    try:
        found = _yaml(as_text=as_text).load_all(text)
        return [document for document in found if document not in (None, "")]
    except YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {error}") from None
    except _LET_THROUGH as error:
        raise UserError(f"{where}: not valid YAML: {type(error).__name__}: {error}") from error


def parse_yaml(text: str, where: str, *, as_text: bool = False) -> Any:  # noqa: ANN401
    """Parse YAML of one document, None where it is empty; see `parse_documents`."""
    documents = parse_documents(text, where, as_text=as_text)
    if len(documents) > 1:
        raise UserError(f"{where}: want a single document, found {len(documents)}")
    return documents[0] if documents else None


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
    return read_model(path, dict[str, Any])


def read_model(path: Path, kind: type[Model] | Any, want: str = "") -> Model:  # noqa: ANN401
    """Read a YAML file into a pydantic dataclass; UserError as of `read_yaml` and `checked`."""
    return checked(read_yaml(path), kind, str(path), want)


def checked(
    content: Any,  # noqa: ANN401
    kind: type[Model] | Any,  # noqa: ANN401
    where: str,
    want: str = "",
) -> Model:
    """Turn plain containers into a pydantic dataclass, or what else pydantic checks.

    Args:
        content: any document.
        kind: what it should be.
        where: named in messages.
        want: an example of what is right, for messages.

    Raises:
        UserError: one line for each key that is unknown or has a wrong value, naming `where`.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except UserError as error:  # of a validator that asked a registry
        raise UserError(f"{where}: {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False)
    for one in found:
        if one["type"] == "unknown_key":
            prefix = "".join(f"{part}." for part in _path(one, content))
            facts = one.get("ctx", {})
            raise unknown_name(f"key in {where}:", facts["key"], facts["known"], prefix=prefix)
    lines: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for one in found:
        lines.setdefault(_path(one, content), []).append(one)
    # Where a value may be of several kinds, the one that went deepest is what was meant.
    deepest = [
        _line(path, errors) for path, errors in lines.items()
        if not any(other[: len(path)] == path and other != path for other in lines)
    ]  # fmt: skip
    shape = any(  # a number that is none needs no example of the whole
        one["type"].endswith(("_type", "missing", "too_short"))
        and not one["type"].startswith(("int", "float", "bool"))
        for one in found
    )
    raise UserError(f"{where}: " + "; ".join(deepest + [f"want {want}"] * bool(want and shape)))


def _path(error: ErrorDetails, content: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return the keys that lead to a value; pydantic's names for kinds of values are left out."""
    path: list[str] = []
    for place, part in enumerate(error["loc"]):
        missing = error["type"] == "missing" and place == len(error["loc"]) - 1
        if isinstance(content, dict) and (part in content or missing):
            path.append(str(part))
            content = content.get(part)
        elif isinstance(content, list | tuple) and isinstance(part, int) and part < len(content):
            path.append(str(part + 1))
            content = content[part]
    return tuple(path)


def _line(path: tuple[str, ...], errors: list[ErrorDetails]) -> str:
    """Word what is wrong with one value; several errors are the kinds that it could be of."""
    place, value, facts = ".".join(path), errors[0]["input"], errors[0].get("ctx", {})
    if errors[0]["type"] == "value_error":
        line = f"{place}: {facts['error']}" if place else str(facts["error"])
        return line if isinstance(value, dict | ArgsKwargs) else f"{line} (found {value!r})"
    if errors[0]["type"] == "missing" and not isinstance(value, list | tuple):
        return f"{place} is missing"
    words = dict.fromkeys(_words(one) for one in errors)
    said = " or ".join(words).replace("or must be", "or")
    line = f"{place or 'it'} {said} (found {value!r})"
    known = re.findall("'(.*?)'", facts.get("expected", ""))
    near = difflib.get_close_matches(str(value), known, 1, cutoff=0.5)
    return line + "".join(f"; did you mean {name!r}?" for name in near)


def _words(error: ErrorDetails) -> str:
    kind, _, what = error["type"].partition("_")
    if what in ("type", "parsing", "from_float") and kind in _KINDS:
        return f"must be {_KINDS[kind]}"
    template = _WORDS.get(error["type"])
    return template.format(**error.get("ctx", {})) if template else error["msg"]
