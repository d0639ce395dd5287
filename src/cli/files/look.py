"""`python -m src look FILE...`: the evidence of single files, for people and for programs."""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.artifacts.atomic import atomic_path
from src.artifacts.files import write_text
from src.artifacts.outputs import check_output
from src.cli.common import recipe_path, recipe_to_look, show_log, taken
from src.compute.request import Compute
from src.data.items.listing import list_files
from src.errors import UserError
from src.evidence.evidence import FileEvidence
from src.evidence.looker import Looker, Looking
from src.evidence.page import evidence_page
from src.evidence.text import evidence_text
from src.pages.environment import words

MARK = '<meta name="generator" content="rvf look">'  # of a page


def run_look(arguments: Namespace) -> None:
    """Do what the flags ask for: a file that cannot be looked at costs the others nothing."""
    show_log()
    words(arguments.language)  # before any work
    files = list(_files(arguments.files))
    for path, suffix in ((arguments.html, ".html"), (arguments.json, ".json")):
        if path is not None:
            check_output(path, suffix, _is_ours)
    looker = make_looker(arguments, taken(Looking, arguments))
    found: list[FileEvidence] = []
    refused: list[str] = []
    for number, path in enumerate(files):
        try:
            one = looker.look(path)
        except UserError as error:
            refused.append(str(error))
            print(f"error: {error}\n")
            continue
        found.append(one)
        print(evidence_text(one))
        if number + 1 < len(files):
            print()
    if arguments.json is not None:
        _write_json(arguments.json, found)
        print(f"JSON: {arguments.json}")
    if arguments.html is not None and found:
        write_text(arguments.html, evidence_page(found, arguments.language))
        print(f"page: {arguments.html}")
    if refused and not found:
        raise UserError(f"none of {len(files)} files could be looked at; the first: {refused[0]}")


def make_looker(arguments: Namespace, asked: Looking) -> Looker:
    """Return what looks by the recipe that the flags name."""
    dataset, name = recipe_to_look(arguments)
    return Looker(name, recipe_path(dataset, name), taken(Compute, arguments), asked)


def _is_ours(path: Path) -> bool:
    """Tell whether a file is what this command wrote: a page by its mark, JSON by its keys."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if path.suffix.lower() == ".html":
        return MARK in text
    try:
        found = json.loads(text)
        return isinstance(found, list) and all(one["schema"] and one["verdict"] for one in found)
    except (ValueError, TypeError, LookupError, RecursionError):
        return False


def _files(given: Sequence[Path]) -> Iterator[Path]:
    """Yield files, of folders the pictures and clips below them, sorted."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        media = sorted(entry.path for entry in list_files(path).media)
        inside = [name for name in media if ".zip/" in name]
        if inside:
            raise UserError(f"{path}/{inside[0]}: lies in a zip; unpack it to look at its files")
        if not media:
            raise UserError(f"{path}: holds no pictures and no clips that are read")
        yield from (path / name for name in media)


def _write_json(path: Path, found: Sequence[FileEvidence]) -> None:
    text = json.dumps([one.record() for one in found], indent=1, ensure_ascii=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
