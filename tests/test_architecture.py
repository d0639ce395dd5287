"""docs/architecture.md names every file of src/, in the row of its folder."""

import re

from tests.conftest import REPO

SRC = REPO / "src"


def rows() -> dict[str, set[str]]:
    text = (REPO / "docs" / "architecture.md").read_text()
    found = re.findall(r"^\| `([\w/]+/)` \| (.*) \|$", text, re.MULTILINE)
    return {folder: set(re.findall(r"`(\w+)`", files)) for folder, files in found}


def test_every_file_stands_in_the_row_of_its_folder():
    table = rows()
    lost = []
    for path in sorted(SRC.rglob("*.py")):
        folder = path.parent.relative_to(SRC).as_posix()
        row = table.get("src/" if folder == "." else f"{folder}/", set())
        if not path.stem.startswith("__") and path.stem not in row:
            lost.append(path.relative_to(REPO).as_posix())
    assert lost == []


def test_no_row_names_a_file_that_is_gone():
    gone = [folder for folder in rows() if not (SRC if folder == "src/" else SRC / folder).is_dir()]
    assert gone == []


def test_documents_name_no_place_that_is_not_there():
    """Paths from the top, and those below `src/` that begin with one of its rooms."""
    rooms = "|".join(path.name for path in SRC.iterdir() if path.is_dir())
    pattern = rf"`((?:src|tests|docs|benchmarks|findings|{rooms})/[\w./-]+)`"
    lost = []
    for document in (REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))):
        for name in re.findall(pattern, document.read_text()):
            places = (REPO / name, SRC / name, SRC / f"{name}.py")
            if not any(place.exists() for place in places):
                lost.append((document.name, name))
    assert lost == []


def test_a_class_name_means_one_thing():
    homes: dict[str, list[str]] = {}
    for path in sorted(SRC.rglob("*.py")):
        for name in re.findall(r"^class _?(\w+)", path.read_text(), re.MULTILINE):
            homes.setdefault(name, []).append(path.relative_to(SRC).as_posix())
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}
