"""Every reader against damaged files: the right content, or a UserError; nothing else, no hang.

RVF_FUZZ=1000 tries a thousand damages a reader instead of a few.
"""

import io
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.artifacts import folds, oof, recipes, runs
from src.artifacts.files import write_json
from src.compute import device
from src.config import parse_model
from src.data.items.dataset_yaml import read_dataset_yaml
from src.data.items.files import Archive, read_bytes
from src.data.items.listing import list_files
from src.data.items.tables import read_table
from src.data.layouts.load import load_dataset
from src.data.pixels.images import Canvas, decode_image, make_canvases
from src.errors import UnreadableImageError, UserError
from src.inference import exported
from src.inference.stored import ItemsToPredict, Part
from src.inference.unfinished import Partial
from src.models import checkpoint
from src.models.classifier import build_classifier
from src.strict_yaml import read_mapping
from src.tensor_files import read_tensors
from src.training import resume
from tests.hostile.conftest import MODEL, picture
from tests.test_contracts import FOLDS, RECIPE, VIEWS

TRIES = int(os.environ.get("RVF_FUZZ", "20"))
FUZZ = settings(
    max_examples=TRIES,
    deadline=None,
    derandomize="RVF_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
Reader = Callable[[Path], object]


@st.composite
def damage(draw: Any) -> Callable[[bytes], bytes]:
    """Flip bytes, cut, repeat, drop, swap lines or columns, or replace all by noise."""
    kind = draw(st.sampled_from(["flip", "flip", "flip", "cut", "drop", "twice", "lines", "columns",
                                 "insert", "noise"]))  # fmt: skip
    where = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=4))
    values = draw(st.binary(min_size=1, max_size=12))

    def apply(data: bytes) -> bytes:
        first, second = sorted(int(share * len(data)) for share in where[:2])
        if kind == "flip":
            changed = bytearray(data)
            for share, value in zip(where, values, strict=False):
                changed[int(share * len(data))] ^= value or 255
            return bytes(changed)
        if kind in ("cut", "drop", "twice", "insert"):
            return {
                "cut": data[:first],
                "drop": data[:first] + data[second:],
                "twice": data[:second] + data[first:second] + data[second:],
                "insert": data[:first] + values + data[first:],
            }[kind]
        if kind == "noise":
            return values
        lines = data.split(b"\n")
        if kind == "lines":
            at = int(where[0] * len(lines))
            return b"\n".join([*lines[:at], *lines[at : at + 1], *lines[at:]])
        return b"\n".join(b",".join(reversed(line.split(b","))) for line in lines)

    return apply


def write_folds(path: Path) -> None:
    path.unlink(missing_ok=True)
    folds.write_folds(path, FOLDS)


def read_state(path: Path) -> object:
    return {k: v for k, v in read_tensors(path, sealed=True).items() if k != "model"}


def write_state(path: Path) -> None:
    checkpoint.save_state(path, {"epoch": 3, "model": {"w": torch.arange(9.0)}, "history": [1.5]})


def write_checkpoint(path: Path) -> None:
    config = parse_model({"backbone": {"name": "compact_net", "pretrained": "none",
                                       "kwargs": {"widths": [4, 4, 8]}},
                          "input": {"image_size": 8}}, "here")  # fmt: skip
    model, _ = build_classifier(config)
    checkpoint.save_checkpoint(path, model, config.as_dict(), ["full"])


def read_checkpoint(path: Path) -> object:
    model, views = checkpoint.load_checkpoint(path, torch.device("cpu"))
    with torch.inference_mode():
        size = model.spec.image_size
        if size > 512:
            return None
        logit = model({"pixels": torch.zeros(1, size, size, 3, dtype=torch.uint8)})["logit"]
    assert logit.shape == (1,)
    return views


def write_record(path: Path) -> None:
    values: dict[str, Any] = dict.fromkeys(runs.KEYS, 1)
    values |= {"start": {"source": "random", "sha256": ""}, "config": {}, "metrics": {}}
    values |= {"history": [], "checkpoint_sha256": "ab", "selection": "last"}
    values |= {"oof_sha256": "cd", "views_sha256": "ef", "data_sha256": "d"}
    values |= {
        "config_sha256": "c",
        "folds_sha256": "f",
        "pseudo": None,
        "teachers": None,
        "stop_after": None,
        "paces": None,
    }
    values["merged_from"] = None
    runs.write_record(path, {"schema": 1, **values})


def read_record(path: Path) -> object:
    found = runs.read_record(path)
    want = {"config_sha256": "c", "data_sha256": "d", "folds_sha256": "f", "pseudo": None,
            "teachers": None, "stop_after": None, "paces": None,
            "start": {"source": "random", "sha256": ""}}  # fmt: skip
    resume.check_identity(found, want, path)
    return found


def read_recipe(path: Path) -> object:
    from src.ensemble.vote import apply_recipe

    found = recipes.read_recipe(path)
    logits = {m.model: pd.Series([0.5, -0.5], index=["x", "y"]) for m in found.members}
    votes = apply_recipe(found, logits, 0.5)
    assert votes["pred"].isin([0, 1]).all()
    return None


def read_oof(path: Path) -> object:
    found = oof.read_oof(path, FOLDS, 0)
    assert set(found["item_id"]) == set(FOLDS.loc[FOLDS["fold"] == 0, "item_id"])
    assert np.isfinite(found["logit"]).all()
    return None


def read_csv(path: Path) -> object:
    listing = list_files(path.parent)
    return [read_table(path.parent, entry) for entry in listing.tables] and None


def read_model(path: Path) -> object:
    parse_model(read_mapping(path), str(path))
    return None


def partial(path: Path) -> tuple[Partial, np.ndarray, np.ndarray, np.ndarray]:
    parts, items = [Part("m", 0, Path("c"), "abc", Path("v"))], ItemsToPredict(path, [], [], "x")
    kept = Partial(parts, items, [["full", "full+flip"]], lambda: [{"items": "x"}])
    kept.files = [path]
    return kept, np.full((40, 2), np.nan), np.zeros(40, bool), np.zeros(40, bool)


def write_partial(path: Path) -> None:
    kept, table, *flags = partial(path)
    kept.begin(table, *flags)
    table[:] = np.arange(80.0).reshape(40, 2)
    kept.done = 30
    kept.save()


def read_partial(path: Path) -> object:
    kept, table, *flags = partial(path)
    done = kept.begin(table, *flags)
    np.testing.assert_array_equal(table[:done], np.arange(80.0).reshape(40, 2)[:done])
    assert np.isnan(table[done:]).all()
    assert not np.any(flags)
    return None


def read_answers(path: Path) -> object:
    known = device.read_known(path)
    assert all(isinstance(k, str) and v in ("fp32", "bf16") for k, v in known.items())
    return None


def write_exported(path: Path) -> None:
    weights = path.parent.parent / "fold_0.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_checkpoint(weights)
    path.with_suffix(".onnx").write_bytes(b"")
    found = {"schema": 1, "checkpoint_sha256": "ab", "engine": "onnx", "precision": "fp32"}
    write_json(path, {**found, "views": ["full"], "files": {}}, seal=True)


def read_exported(path: Path) -> object:
    class Stub:
        def __init__(self, *_: object) -> None: ...

    weights = path.parent.parent / "fold_0.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exported.ENGINE_OF, "onnx", Stub)  # type: ignore[arg-type]
        cpu = torch.device("cpu")
        return exported.load_exported(weights, "ab", "onnx", "auto", cpu, "m fold 0")[1]


def write_text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


DATASET = "labels: {real: [good, 'fine'], fake: [bad]}\nn_folds: 3\nignore: ['masks/*']\n"
# reader -> (file, how a good one is written, how it is read)
READERS: dict[str, tuple[str, Callable[[Path], object], Reader]] = {
    "fold file": ("f.csv", write_folds, folds.read_folds),
    "OOF": ("o.csv", lambda p: oof.write_oof(
        p, FOLDS[FOLDS["fold"] == 0].assign(logit=[0.25, -1.5])), read_oof),
    "views": ("v.parquet", lambda p: oof.write_views(p, VIEWS, {"a": "b"}),
              lambda p: oof.read_views(p)[0].to_csv()),
    "recipe": ("r.json", lambda p: recipes.write_recipe(p, recipes.Recipe(
        **{**vars(RECIPE), "stages": [{"name": "voting", "params": {"rule": "soft"}},
                                      {"name": "threshold", "params": {"value": 0.5}}]})),
               read_recipe),
    "run record": ("fold_0.json", write_record, read_record),
    "config": ("m.yaml", write_text(MODEL), read_model),
    "dataset.yaml": ("dataset.yaml", write_text(DATASET),
                     lambda p: read_dataset_yaml(p.parent)),
    "checkpoint": ("c.safetensors", write_checkpoint, read_checkpoint),
    "foreign weights": ("w.pth", write_state, read_tensors),
    "state": ("s.pt", write_state, read_state),
    "partial": ("p.npz", write_partial, read_partial),
    "precision": ("precision.json", write_text('{"ab": "bf16", "cd": "fp32"}'), read_answers),
    "export record": ("export/fold_0.onnx.fp32.json", write_exported, read_exported),
    "table": ("train.csv", write_text('id,label\na,0\n"b,c",1\n'), read_csv),
}  # fmt: skip
EQUAL = {"views", "state", "export record"}  # what is read is what was written


@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_reads_right_or_is_a_users_error(tmp_path, kind):
    name, write, read = READERS[kind]
    path = tmp_path / name
    write(path)
    good, whole = path.read_bytes(), read(path)

    @FUZZ
    @given(damage())
    def check(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(good))
        try:
            found = read(path)
        except UserError:
            return
        if kind in EQUAL:
            assert found == whole

    check()


def make_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(3):
            archive.writestr(f"train/real/{index}.png", picture(index))
        archive.writestr("train/plain.jpg", b"abc" * 50, zipfile.ZIP_STORED)
    return file.getvalue()


def test_a_damaged_zip(tmp_path):
    good = make_zip()
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = {archive.read(name) for name in archive.namelist()}
    path = tmp_path / "train.zip"

    @FUZZ
    @given(damage())
    def check(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(good))
        try:
            entries = list_files(tmp_path).media
        except UserError:
            return
        for entry in entries:
            with suppress(UnreadableImageError):
                assert read_bytes(tmp_path, entry.path) in members

    check()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif", ".jp2"])
def test_a_damaged_picture(suffix):
    pixels = decode_image(picture(3, 40))
    good = cv2.imencode(suffix, pixels)[1].tobytes()
    canvases = [Canvas(16, "squash", "bicubic"), Canvas(8, "short_side", "bilinear")]

    @settings(FUZZ, max_examples=max(8, TRIES // 2))
    @given(damage())
    def check(change: Callable[[bytes], bytes]) -> None:
        data = change(good)
        try:
            found = decode_image(data)
        except UnreadableImageError:
            with pytest.raises(UnreadableImageError):
                make_canvases(data, canvases)
            return
        assert found.dtype == np.uint8
        assert found.ndim == 3
        shapes = [canvas.shape for canvas in make_canvases(data, canvases)[0]]
        assert shapes == [(16, 16, 3), (8, 8, 3)]

    check()


LAYOUT_TEXTS = {
    "train.csv": "filename,label,subject\na.png,REAL,s1\nb.png,FAKE,s2\nc.png,FAKE,s3\n",
    "train/metadata.json": '{"a.png": {"label": "REAL"}, "b.png": {"label": "FAKE"}, '
    '"c.png": {"label": "FAKE", "original": "a.png"}}',
    "sample_submission.csv": "id,label\nt.png,0\ns.png,0\n",
}


@pytest.mark.parametrize("name", LAYOUT_TEXTS)
def test_a_damaged_table_of_a_layout(make_dataset, name):
    files = ["train/a.png", "train/b.png", "train/c.png", "test/s.png", "test/t.png"]
    texts = {key: text for key, text in LAYOUT_TEXTS.items() if key != "train/metadata.json"}
    if name == "train/metadata.json":
        del texts["train.csv"]
        texts[name] = LAYOUT_TEXTS[name]
    root = make_dataset(files, texts)
    good = LAYOUT_TEXTS[name].encode()

    @FUZZ
    @given(damage())
    def check(change: Callable[[bytes], bytes]) -> None:
        (root / name).write_bytes(change(good))
        try:
            dataset = load_dataset("toy")
        except UserError:
            return
        assert dataset.items["item_id"].is_unique or len(dataset.items) == 5
        assert dataset.train["label"].isin([0, 1]).all()

    check()


@FUZZ
@given(st.binary(max_size=200))
def test_noise_is_no_zip_and_no_picture(data):
    with pytest.raises(UnreadableImageError):
        decode_image(data)
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"rvf_fuzz_{os.getpid()}.zip"
    path.write_bytes(data)
    try:
        with pytest.raises(OSError, match="not a readable zip"):
            Archive(str(path))
    finally:
        path.unlink()
