"""The audit on data sets whose leak is known, or that have none."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src import paths
from src.cli.printing.audit import describe, remedy_quality, verdict
from src.data.audit.fields import FIELDS, NONE
from src.data.audit.metadata import Audit, audit_dataset, audit_part, write_audit
from src.data.audit.trees import fit_tree, make_columns, make_splits, rule_of_field, rules_of_tree
from src.data.layouts.load import load_dataset
from src.data.pixels.images import Canvas, make_canvases
from src.data.pixels.reencode import to_jpeg

BY_NAME = {field.name: field for field in FIELDS}
N = 60  # items a class


def pixels(seed: int, side: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def jpeg(seed: int, quality: int = 90, side: int = 24) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, side)).save(buffer, "jpeg", quality=quality)
    return buffer.getvalue()


def items(draw: Callable[[int, int], bytes], name: str = "{:04d}.jpg") -> dict[str, bytes]:
    """Return `N` files a class; their names are shuffled numbers without meaning."""
    order = np.random.default_rng(0).permutation(2 * N)
    return {
        f"train/{('real', 'fake')[k % 2]}/{name.format(order[k])}": draw(k, k % 2)
        for k in range(2 * N)
    }


def audited(make_dataset: Callable[..., Path], files: dict[str, bytes], **more: object) -> Audit:
    make_dataset(files, **more)
    return audit_dataset(load_dataset("toy"))


def test_nothing_is_found_where_nothing_differs(make_dataset: Callable[..., Path]) -> None:
    audit = audited(make_dataset, items(lambda k, _: jpeg(k)))
    (part,) = audit.parts
    assert (part.items, part.fakes, part.groups, part.unjudged) == (2 * N, N, 2 * N, "")
    assert not part.found
    assert part.tells == []
    assert verdict(audit)[0].startswith("verdict: nothing found")
    assert not any("fake where" in line for line in describe(audit))


def test_the_table_that_gives_labels_away_is_named(make_dataset: Callable[..., Path]) -> None:
    audit = audited(make_dataset, items(lambda k, fake: jpeg(k, 75 if fake else 76 + k % 15)))
    (part,) = audit.parts
    assert part.auc > 0.95
    assert part.interval[0] > 0.9
    tell = next(tell for tell in part.tells if tell.field.name == "JPEG quality")
    assert (tell.rule, tell.inside, tell.outside) == ("JPEG quality < 76", 1.0, 0.0)
    assert any("input.reencode" in line for line in verdict(audit))
    assert "JPEG" in verdict(audit)[0] or "bytes" in verdict(audit)[0]


def test_a_size_between_two_others_is_named(make_dataset: Callable[..., Path]) -> None:
    sides = {0: (20, 28), 1: (24, 24)}
    audit = audited(make_dataset, items(lambda k, fake: jpeg(k, side=sides[fake][k // 2 % 2])))
    rules = {tell.field.name: tell.rule for tell in audit.parts[0].tells}
    assert rules["width"] == "width = 24"
    assert rules["height"] == "height = 24"
    assert audit.parts[0].auc > 0.95
    lines = "\n".join(describe(audit))
    assert "width = 24 (100% fake there, 0% elsewhere)" in lines
    assert "resize and crop at random" in lines


def test_a_name_that_tells_is_named_and_folders_are_not(make_dataset: Callable[..., Path]) -> None:
    rng = np.random.default_rng(1)
    order = rng.permutation(2 * N)
    files = {
        f"train/{('real', 'fake')[k % 2]}/{('cam', 'gen')[k % 2]}_{order[k]:04d}.jpg": jpeg(k)
        for k in range(2 * N)
    }
    part = audited(make_dataset, files).parts[0]
    rules = {tell.field.name: tell.rule for tell in part.tells}
    assert rules == {"name prefix": "name prefix is gen", "name pattern": "name pattern is gen_#"}
    assert len(part.rules) == 1
    assert part.rules[0] in {
        "name prefix is not cam", "name prefix is gen", "name pattern is not cam_#",
        "name pattern is gen_#",
    }  # fmt: skip


def test_files_in_a_zip_are_read_alike(make_dataset: Callable[..., Path]) -> None:
    files = items(lambda k, fake: jpeg(k, 75 if fake else 90))
    folder = audited(make_dataset, files).table
    make_dataset({}, zips={"all.zip": files}, name="zipped")
    zipped = audit_dataset(load_dataset("zipped")).table
    pd.testing.assert_frame_equal(folder, zipped)


def test_what_cannot_be_read_is_counted(make_dataset: Callable[..., Path]) -> None:
    files = items(lambda k, _: jpeg(k)) | {"train/fake/x.jpg": b"nothing"}
    audit = audited(make_dataset, files)
    assert (audit.unreadable, audit.total, len(audit.table)) == (1, 2 * N + 1, 2 * N)
    assert any(line.startswith("left aside: 1") for line in describe(audit))
    path = paths.audit_csv("toy")
    write_audit(path, audit)
    written = pd.read_csv(path)
    assert list(written.columns) == ["item_id", "label", *BY_NAME, "prob"]
    assert written["item_id"].is_monotonic_increasing


def table_of(width: np.ndarray) -> pd.DataFrame:
    """Return fields of which only the width varies."""
    blank = {f.name: "" if f.words else NONE for f in FIELDS}
    return pd.DataFrame([blank | {"width": float(w)} for w in width])


def test_a_width_that_only_names_the_group_tells_nothing() -> None:
    """Forty groups of ten: each has a width of its own, and a label by chance."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(40), 10)
    label = rng.permutation(np.repeat([0, 1], 20))[group]
    table = table_of(100 + 7 * rng.permutation(40)[group])
    grouped = audit_part("all", table, label, group)
    naive = audit_part("all", table, label, np.arange(400))
    assert naive.auc > 0.65  # what a split by item would claim
    assert naive.found
    assert not grouped.found
    assert grouped.groups == 40


def test_few_groups_are_not_judged(make_dataset: Callable[..., Path]) -> None:
    audit = audited(make_dataset, {
        f"train/{side}/{k}.jpg": jpeg(k, side=24 + 8 * (side == "fake"))
        for side in ("real", "fake") for k in range(4)
    })  # fmt: skip
    (part,) = audit.parts
    assert part.unjudged.startswith("8 groups, at least 10")
    lines = describe(audit)
    assert any(line.split() == ["width", "24", "32"] for line in lines)
    assert lines[-1].startswith("verdict: none")
    group = np.repeat(np.arange(12), 5)
    one = audit_part("all", table_of(group), (group == 0).astype(np.int64), group)
    assert one.unjudged.startswith("11 groups with reals, 1 with fakes")


def test_each_domain_and_kind_is_judged_by_itself(make_dataset: Callable[..., Path]) -> None:
    files = {
        f"{domain}/{side}/{k:03d}.jpg": jpeg(
            hash_of(domain, side, k), side=20 + 4 * ((side == "fake") == (domain == "a"))
        )
        for domain in ("a", "b") for side in ("real", "fake") for k in range(30)
    }  # fmt: skip
    audit = audited(make_dataset, files)
    by_name = {part.name: part for part in audit.parts}
    rules = {n: {t.field.name: t.rule for t in p.tells} for n, p in by_name.items()}
    assert rules["domain a"]["width"] == "width >= 24"
    assert rules["domain b"]["width"] == "width < 24"
    assert "width" not in rules["all items"]


def hash_of(domain: str, side: str, k: int) -> int:
    return k + 100 * (side == "fake") + 1000 * (domain == "b")


def test_the_remedy_takes_the_tell_away(make_dataset: Callable[..., Path]) -> None:
    """Reals are PNG, fakes JPEG; as a net is given them nothing but the pixels is left."""

    def content(k: int, fake: int) -> bytes:
        grey = np.repeat(pixels(k, 48)[:, :, :1], 3, axis=2)
        return to_jpeg(grey, 97) if fake else cv2.imencode(".png", grey)[1].tobytes()

    files = items(content)
    before = audited(make_dataset, files)
    assert {"format", "JPEG quality"} <= {tell.field.name for tell in before.parts[0].tells}
    assert before.parts[0].auc == 1
    plain = Canvas(32, "squash", "bicubic")
    alike = {
        name: to_jpeg(make_canvases(data, [plain._replace(reencode=60)])[0][0], 60)
        for name, data in files.items()
    }
    make_dataset(alike, name="alike")
    after = audit_dataset(load_dataset("alike"))
    assert not after.parts[0].found
    assert after.table["format"].nunique() == after.table["JPEG tables"].nunique() == 1


def test_the_remedy_names_the_quality_of_the_worst_files() -> None:
    table = table_of(np.arange(100)).assign(**{"JPEG quality": [52.0] * 10 + [95.0] * 90})
    assert remedy_quality(table) == 52
    assert remedy_quality(table.assign(**{"JPEG quality": NONE})) == 75
    assert remedy_quality(table.assign(**{"JPEG chroma quality": 40.0})) == 40
    assert remedy_quality(table.assign(**{"JPEG quality": 99.0})) == 90


@pytest.mark.parametrize(
    ("name", "real", "fake", "rule"),
    [
        ("bytes", [3600, 4000], [3000, 3511], "bytes < 3,600"),
        ("bytes", [3000], [4000, 50000], "bytes >= 4,000"),
        ("aspect", [0.5, 2.0], [1.25, 1.5], "1.25 <= aspect < 2"),
        ("JPEG quality", [80, 90], [NONE], "it is no JPEG"),
        ("JPEG quality", [NONE], [80, 90], "JPEG quality >= 80"),
        ("JPEG quality", [95], [NONE, 80], "(JPEG quality < 95 or it is no JPEG)"),
        ("EXIF", [1], [0], "no EXIF"),
        ("audio", [0], [1], "audio"),
        ("software", ["Canon"], ["", "GIMP"], "software is (empty) or GIMP"),
    ],
)
def test_rules_are_put_into_words(name: str, real: list, fake: list, rule: str) -> None:
    values = [*real * 20, *fake * 20]
    label = np.repeat([0, 1], [20 * len(real), 20 * len(fake)])
    words, chosen = rule_of_field(pd.DataFrame({name: values}), BY_NAME[name], label)
    assert words == rule
    assert np.array_equal(chosen, label == 1)


def test_a_tree_in_words_says_what_the_tree_does() -> None:
    rng = np.random.default_rng(5)
    table = table_of(rng.integers(10, 60, 400))
    table["format"] = rng.choice(["png", "jpeg"], 400)
    is_png = table["format"].to_numpy(str) == "png"
    label = ((table["width"].to_numpy() >= 30) & is_png).astype(np.int64)
    matrix, columns = make_columns(table, [BY_NAME["width"], BY_NAME["format"]])
    assert [column.value for column in columns] == [None, *table["format"].value_counts().index]
    (rule,) = rules_of_tree(fit_tree(matrix, label, 3), columns, matrix)
    parts = set(rule.split(" and "))
    assert "width >= 30" in parts
    assert parts - {"width >= 30"} <= {"format is png", "format is not jpeg"}
    assert len(parts) == 2


def test_no_group_stands_on_both_sides_of_a_split() -> None:
    rng = np.random.default_rng(6)
    group = rng.integers(0, 30, 300)
    label = rng.integers(0, 2, 30)[group]
    splits = make_splits(label, group, 0)
    assert len(splits) == 5
    assert sorted(np.concatenate([held for _, held in splits])) == list(range(300))
    assert all(not set(group[seen]) & set(group[held]) for seen, held in splits)


@pytest.mark.real
def test_sizes_tell_replayed_faces(shared_data: Path, artefact_root: Path) -> None:
    (artefact_root / "input").mkdir()
    (artefact_root / "input" / "liveness").symlink_to(shared_data / "liveness")
    audit = audit_dataset(load_dataset("liveness"))
    assert len(audit.table) == 377
    part = next(part for part in audit.parts if "replay_b" in part.name)
    assert part.found
    assert part.tells[0].field.name == "width"
