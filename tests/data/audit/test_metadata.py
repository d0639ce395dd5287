"""The audit on data sets whose leak is known, or that have none."""

import hashlib
import io
import struct

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from src import paths
from src.cli.audit import describe, remedy_quality, verdict
from src.data.audit import trees
from src.data.audit.fields import FIELDS, NONE, fields_of
from src.data.audit.metadata import audit_dataset, audit_part, write_audit
from src.data.audit.trees import fit_tree, make_columns, make_splits, rule_of_field, rules_of_tree
from src.data.layouts.load import load_dataset
from src.data.pixels.images import Canvas, make_canvases, to_jpeg

BY_NAME = {field.name: field for field in FIELDS}
BLANK = {field.name: "" if field.words else NONE for field in FIELDS}
N = 40  # items a class
PLAIN = Canvas(32, "squash", "bicubic")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(trees, "ROUNDS", 100)


def picture(seed, side=None):
    """Return a picture; without a side one whose size, and so its bytes, tell nothing."""
    rng = np.random.default_rng(seed)
    size = rng.integers(16, 48, 2).tolist() if side is None else (side, side)
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC))


def stored(image, kind="jpeg", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed, quality=90, side=24):
    return stored(picture(seed, side), quality=quality)


def items(draw, name=lambda k, _: f"{k:04d}.jpg"):
    """Return `N` files a class; their names are shuffled numbers without meaning."""
    order = np.random.default_rng(0).permutation(2 * N)
    return {
        f"train/{('real', 'fake')[k % 2]}/{name(int(order[k]), k % 2)}": draw(k, k % 2)
        for k in range(2 * N)
    }


@pytest.fixture
def audited(make_dataset):
    def audit(files, **more):
        make_dataset(files, **more)
        return audit_dataset(load_dataset(more.get("name", "toy")))

    return audit


def rules_of(part):
    return {tell.field.name: tell.rule for tell in part.tells}


def test_nothing_is_found_where_nothing_differs(audited):
    audit = audited(items(lambda k, _: jpeg(k)))
    (part,) = audit.parts
    assert (part.items, part.fakes, part.groups, part.unjudged) == (2 * N, N, 2 * N, "")
    assert not part.found
    assert part.tells == ()
    assert verdict(audit)[0].startswith("verdict: nothing found")
    assert not any("fake where" in line for line in describe(audit))


def test_the_table_that_gives_labels_away_is_named(audited):
    audit = audited(items(lambda k, fake: jpeg(k, 75 if fake else 76 + k % 15)))
    (part,) = audit.parts
    assert part.auc > 0.95
    assert part.interval[0] > 0.9
    tell = next(tell for tell in part.tells if tell.field.name == "JPEG quality")
    assert (tell.rule, tell.inside, tell.outside) == ("JPEG quality < 76", 1.0, 0.0)
    assert any("input.reencode" in line for line in verdict(audit))
    assert "JPEG" in verdict(audit)[0] or "bytes" in verdict(audit)[0]


def test_a_size_between_two_others_is_named(audited):
    sides = {0: (20, 28), 1: (24, 24)}
    audit = audited(items(lambda k, fake: jpeg(k, side=sides[fake][k // 2 % 2])))
    rules = rules_of(audit.parts[0])
    assert rules["width"] == "width = 24"
    assert rules["height"] == "height = 24"
    assert audit.parts[0].auc > 0.95
    lines = "\n".join(describe(audit))
    assert "width = 24 (100% fake there, 0% elsewhere)" in lines
    assert "resize and crop at random" in lines


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (lambda k, fake: f"{('cam', 'gen')[fake]}_{k:04d}.jpg", "name pattern is gen_#"),
        (lambda k, fake: f"{letters(k)}_{('cam', 'gan')[fake]}_{k:04d}.jpg",
         "name pattern is *_gan_#"),
        (lambda k, fake: f"{hashlib.md5(bytes([k])).hexdigest()}{('-a', '-b')[fake]}.jpg",
         "name pattern is #-b"),
        (lambda k, fake: f"{k:04d}{('.jpg', '.JPG')[fake]}", "extension is .JPG"),
    ],
)  # fmt: skip
def test_a_word_anywhere_in_a_name_is_found_and_folders_are_not(audited, name, rule):
    (part,) = audited(items(lambda k, _: stored(picture(k), quality=90), name)).parts
    assert part.auc > 0.95
    assert [tell.rule for tell in part.tells] == [rule]
    assert len(part.rules) == 1


def letters(seed):
    return "".join(np.random.default_rng(seed).choice(list("abcdefghij"), 8))


def test_files_in_a_zip_are_read_alike(audited):
    files = items(lambda k, fake: jpeg(k, 75 if fake else 90))
    folder = audited(files).table
    zipped = audited({}, zips={"all.zip": files}, name="zipped").table
    pd.testing.assert_frame_equal(folder, zipped)


def test_what_cannot_be_read_is_counted(audited):
    files = items(lambda k, _: jpeg(k)) | {"train/fake/x.jpg": b"nothing"}
    audit = audited(files)
    assert (audit.unreadable, audit.total, len(audit.table)) == (1, 2 * N + 1, 2 * N)
    assert any(line.startswith("left aside: 1") for line in describe(audit))
    path = paths.audit_csv("toy")
    write_audit(path, audit)
    written = pd.read_csv(path)
    assert list(written.columns) == ["item_id", "label", *BY_NAME, "prob"]
    assert written["item_id"].is_monotonic_increasing


def table_of(width):
    """Return fields of which only the width varies."""
    return pd.DataFrame([BLANK | {"width": float(w)} for w in width])


def test_a_width_that_only_names_the_group_tells_nothing():
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


def test_few_groups_are_not_judged(audited):
    audit = audited({
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


def test_each_domain_and_kind_is_judged_by_itself(audited):
    files = {
        f"{domain}/{side}/{k:03d}.jpg": jpeg(
            k + 100 * (side == "fake") + 1000 * (domain == "b"),
            side=20 + 4 * ((side == "fake") == (domain == "a")),
        )
        for domain in ("a", "b") for side in ("real", "fake") for k in range(30)
    }  # fmt: skip
    rules = {part.name: rules_of(part) for part in audited(files).parts}
    assert rules["domain a"]["width"] == "width >= 24"
    assert rules["domain b"]["width"] == "width < 24"
    assert "width" not in rules["all items"]


SRGB, LAB = (
    ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes() for name in ("sRGB", "LAB")
)


def png_with(name=b"tEXt", value=b""):
    found = PngImagePlugin.PngInfo()
    found.add(name, value)
    return {"kind": "png", "pnginfo": found}


def tables(luma, chroma):
    """Return libjpeg's luma table of one quality, its chroma table of another."""
    found = [Image.open(io.BytesIO(jpeg(0, quality))).quantization for quality in (luma, chroma)]
    return [found[0][0], found[1][1]]


TURNED, UPRIGHT = Image.Exif(), Image.Exif()
TURNED[0x0112], UPRIGHT[0x0112] = 6, 1
# what: options of a real, of a fake, the rule by which a fake is told
PLANTED = {
    "chroma table": ({"qtables": tables(90, 90)}, {"qtables": tables(90, 60)},
                     "JPEG chroma quality < 90"),
    "density": ({"dpi": (72, 72)}, {"dpi": (96, 96)}, "density is 96 x 96 an inch"),
    "unit": ({}, {"dpi": (1, 1)}, "density is 1 x 1 an inch"),
    "comment": ({}, {"comment": b"made by x"}, "notes is comment: made by x"),
    "its text": ({"comment": b"by y 7"}, {"comment": b"by x 9"}, "notes is comment: by x #"),
    "profile": ({"icc_profile": LAB}, {"icc_profile": SRGB}, "colour profile is sRGB built-in"),
    "parts": ({}, {"icc_profile": SRGB}, "parts of the file is APP0(JFIF) APP2(ICC_PROFILE)"),
    "EXIF": ({"exif": UPRIGHT}, {"exif": TURNED}, "EXIF orientation >= 6"),
    "EXIF tags": ({}, {"exif": UPRIGHT}, "EXIF tags is Orientation"),
    "PNG gamma": ({"kind": "png"}, png_with(b"gAMA", struct.pack(">I", 45455)),
                  "parts of the file is gamma"),
    "PNG text": (png_with(value=b"Author\0y"), png_with(value=b"Author\0x"), "notes is Author: x"),
    "TIFF": ({"kind": "tiff"}, {"kind": "tiff", "compression": "tiff_lzw"},
             "compression is tiff_lzw"),
}  # fmt: skip


def planted(k, options, quality=90):
    of_jpeg = {} if options.keys() & {"qtables", "kind"} else {"quality": quality}
    return stored(picture(k), **of_jpeg, **options)


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_difference_is_found_and_named(audited, what):
    *ways, rule = PLANTED[what]
    (part,) = audited(items(lambda k, fake: planted(k, ways[fake]))).parts
    assert part.auc > 0.95
    tell = next(tell for tell in part.tells if tell.rule == rule)
    assert (tell.inside, tell.outside) == (1.0, 0.0)


def test_words_that_every_item_has_for_itself_tell_nothing(audited):
    files = items(lambda k, _: stored(picture(k), comment=letters(k).encode()),
                  lambda k, _: f"{letters(k)}.jpg")  # fmt: skip
    audit = audited(files)
    assert audit.table["notes"].nunique() == audit.table["name pattern"].nunique() == 2 * N
    assert not audit.parts[0].found


def test_words_of_a_group_tell_nothing_of_another():
    """Thirty cameras of ten pictures, each with words and a label of its own."""
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(30), 10)
    label = rng.permutation(np.repeat([0, 1], 15))[group]
    own = [{"notes": f"n{g}", "name pattern": letters(g)} for g in group.tolist()]
    table = pd.DataFrame([BLANK | more for more in own])
    assert audit_part("all", table, label, np.arange(300)).found  # a split by item learns cameras
    assert not audit_part("all", table, label, group).found


def test_labels_by_chance_are_seldom_told(tmp_path):
    """Files that differ in everything, ten times: at most one false alarm."""
    rng = np.random.default_rng(1)
    ways = [way for *both, _ in PLANTED.values() for way in both]
    rows = []
    for k in range(200):
        data = planted(k, ways[rng.integers(len(ways))], int(rng.integers(60, 98)))
        name = f"{k}{rng.choice(['_a', '_b', ''])}.{rng.choice(['jpg', 'JPG'])}"
        (tmp_path / name).write_bytes(data)
        rows.append(fields_of(tmp_path, name, name, len(data)))
    pool = pd.DataFrame(rows)
    found = 0
    for _ in range(10):
        take, label = rng.permutation(200)[:120], rng.permutation(np.repeat([0, 1], 60))
        table = pool.iloc[take].reset_index(drop=True)
        found += audit_part("all", table, label, np.arange(120)).found
    assert found <= 1


def test_the_remedy_takes_the_format_away(audited):
    """Reals are PNG, fakes JPEG; as a net is given them nothing but the pixels is left."""

    def content(k, fake):
        grey = picture(k, 48).convert("L").convert("RGB")
        return to_jpeg(np.asarray(grey), 97) if fake else stored(grey, "png")

    files = items(content)
    (before,) = audited(files).parts
    assert {"format", "JPEG quality"} <= set(rules_of(before))
    assert before.auc == 1
    net = PLAIN._replace(reencode=60)
    seen = {name: to_jpeg(make_canvases(data, [net])[0][0], 60) for name, data in files.items()}
    after = audited(seen, name="alike")
    assert not after.parts[0].found
    assert after.table["format"].nunique() == after.table["JPEG tables"].nunique() == 1


def test_the_remedy_takes_tables_density_and_notes_away(audited):
    """Grey pictures, for what chroma tables did to colours stays in pixels."""
    real = {"qtables": tables(90, 90), "dpi": (72, 72)}
    fake = {"qtables": tables(90, 60), "dpi": (96, 96), "comment": b"x", "icc_profile": SRGB}
    files = items(lambda k, f: stored(picture(k).convert("L").convert("RGB"), **(real, fake)[f]))
    told = set(rules_of(audited(files).parts[0]))
    assert {"JPEG chroma quality", "density", "notes", "colour profile"} <= told
    seen = {name: to_jpeg(make_canvases(data, [PLAIN])[0][0], 60) for name, data in files.items()}
    after = audited(seen, name="alike")
    assert not after.parts[0].found
    for field in told - {"bytes", "bytes per pixel"}:
        assert len(after.table[field].unique()) == 1


def test_the_remedy_names_the_quality_of_the_worst_files():
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
        ("JPEG progressive", [1], [0], "no JPEG progressive"),
        ("JPEG progressive", [0], [1], "JPEG progressive"),
        ("software", ["Canon"], ["", "GIMP"], "software is (empty) or GIMP"),
    ],
)
def test_rules_are_put_into_words(name, real, fake, rule):
    values = [*real * 20, *fake * 20]
    label = np.repeat([0, 1], [20 * len(real), 20 * len(fake)])
    words, chosen = rule_of_field(pd.DataFrame({name: values}), BY_NAME[name], label)
    assert words == rule
    assert np.array_equal(chosen, label == 1)


def test_a_tree_in_words_says_what_the_tree_does():
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


def test_no_group_stands_on_both_sides_of_a_split():
    rng = np.random.default_rng(6)
    group = rng.integers(0, 30, 300)
    label = rng.integers(0, 2, 30)[group]
    splits = make_splits(label, group, 0)
    assert len(splits) == 5
    assert sorted(np.concatenate([held for _, held in splits])) == list(range(300))
    assert all(not set(group[seen]) & set(group[held]) for seen, held in splits)


@pytest.mark.real
def test_sizes_tell_replayed_faces(shared_data, artefact_root):
    (artefact_root / "input").mkdir()
    (artefact_root / "input" / "liveness").symlink_to(shared_data / "liveness")
    audit = audit_dataset(load_dataset("liveness"))
    assert len(audit.table) == 377
    part = next(part for part in audit.parts if "replay_b" in part.name)
    assert part.found
    assert part.tells[0].field.name == "width"
