"""Every path as a function of names; nothing else builds a path to an artefact.

`RVF_ROOT` moves all artefacts (and `input/`) to another folder, for example where the clone is
read-only; the shipped `configs/` are always found beside the code.
"""

import os
import re
from pathlib import Path

from src.errors import UserError

REPO = Path(__file__).resolve().parent.parent
DEMO = "demo"
ALL = "all"  # in place of a fold: trained on every row, nothing held out
_STEPS = ("", ".", "..")
_MOVES = re.compile(r"[/\x00-\x1f\x7f-\x9f\u2028\u2029]")
FoldName = int | str  # a fold of the fold file, or ALL
TIMM_PREFIX = "timm:"


def root() -> Path:
    """Return the folder that holds the artefacts: `RVF_ROOT`, or the clone itself."""
    return Path(os.environ["RVF_ROOT"]).resolve() if os.environ.get("RVF_ROOT") else REPO


def is_plain(name: object) -> bool:
    """Tell whether a name is that of one file or folder: no path, nothing that moves a cursor."""
    return isinstance(name, str) and name not in _STEPS and _MOVES.search(name) is None


def check_plain(name: object, what: str) -> None:
    """Raise a UserError where `what` is named by a path in place of a name."""
    if not is_plain(name):
        raise UserError(f"{what} {str(name)[:80]!r}: want a plain name, no path")


def _below(home: Path, *names: str) -> Path:
    """Return a path below a folder; every name is one step down, for names come from files, too."""
    for name in names:
        check_plain(name, "name")
    return home.joinpath(*names)


def check_root() -> None:
    """Raise a UserError where `RVF_ROOT` is something else than a folder, or than nothing yet."""
    for place in (root(), *root().parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"RVF_ROOT={root()}: {place} is a file; want a folder")


def bundle_contents() -> Path:
    """Return the list of contents that makes a bundle of the folder that the code lies in."""
    return REPO / "bundle.json"


def packed_packages() -> Path:
    """Return the folder of a bundle that holds packages to import; put it before `sys.path`."""
    return bundle_contents().parent / "packages"


def packed_detector(sha256: str, name: str) -> Path:
    """Return where a bundle holds a face detector's file."""
    return bundle_contents().parent / "detectors" / sha256 / Path(name).name


def readable(path: Path) -> Path:
    """Return where an artefact is read: below `root()`, else in the bundle the code came in.

    A bundle may lie where nothing can be written; then `RVF_ROOT` takes what is made, and what the
    bundle brought is found beside its code. A plain clone has no `bundle.json`: there this is
    `path` itself.
    """
    if path.exists() or not bundle_contents().is_file() or not path.is_relative_to(root()):
        return path
    brought = REPO / path.relative_to(root())
    return brought if brought.exists() else path


def config_dirs(kind: str) -> list[Path]:
    """Return the folders searched for configs of a kind (`models`, `merges`), the user's first."""
    return list(dict.fromkeys([root() / "configs" / kind, REPO / "configs" / kind]))


def cache_dir() -> Path:
    """Return the folder of everything that can be deleted and is made again when needed."""
    return root() / ".cache"


def input_dir(input_root: Path | None = None) -> Path:
    """Return the folder that holds one folder per data set."""
    return input_root if input_root is not None else root() / "input"


def dataset_dir(dataset: str, input_root: Path | None = None) -> Path:
    """Return the folder of a data set; the demo's lives in the cache."""
    return cache_dir() / DEMO if dataset == DEMO else _below(input_dir(input_root), dataset)


def dataset_yaml(dataset: str) -> Path:
    """Return what may stand for a data set's own `dataset.yaml`, where its folder is read-only."""
    return _below(root(), "input", f"{dataset}.yaml")


def demo_truth_csv() -> Path:
    """Return the file with the labels of the demo's test items (`item_id,label`)."""
    return cache_dir() / "demo_truth.csv"


def manifest_cache(dataset: str) -> Path:
    """Return the cached scan of a data set: sizes, hashes, what could not be read."""
    return _below(cache_dir(), "manifest", f"{dataset}.parquet")


def pixel_cache(dataset: str) -> Path:
    """Return the folder of a data set's decoded pixels."""
    return _below(cache_dir(), "pixels", dataset)


def face_cache(dataset: str, detector: str) -> Path:
    """Return the folder of the faces that a detector found in a data set's items."""
    return _below(cache_dir(), "faces", dataset, detector)


def faces_png(dataset: str) -> Path:
    """Return the contact sheet of faces found and cut out."""
    return _below(root(), "reports", dataset, "faces.png")


def feature_cache(dataset: str, key: str) -> Path:
    """Return the features of a data set's items by one frozen net."""
    return _below(cache_dir(), "features", dataset, f"{key}.npy")


def study_lock(key: str) -> Path:
    """Return the lock file under which the storage of a study is opened."""
    return _below(cache_dir(), "studies", f"{key}.lock")


def merge_parts() -> Path:
    """Return the folder of what merges are made from and is not kept: starts, resized weights."""
    return cache_dir() / "merges"


def partial_views(checkpoint_sha256: str) -> Path:
    """Return what an unfinished pass over the test items has predicted with a checkpoint."""
    return _below(cache_dir(), "predict", f"{checkpoint_sha256}.npz")


def precision_cache() -> Path:
    """Return the remembered answers of the CPU precision probe."""
    return cache_dir() / "precision.json"


def fingerprint_cache() -> Path:
    """Return the remembered SHA-256 of artefacts."""
    return cache_dir() / "fingerprints.json"


def compile_cache() -> Path:
    """Return the folder of what torch.compile makes, a folder a process."""
    return cache_dir() / "compile"


def model_slug(model: str) -> str:
    """Return the folder name of a model; `timm:NAME` becomes `timm--NAME`."""
    return model.replace(TIMM_PREFIX, "timm--", 1) if model.startswith(TIMM_PREFIX) else model


def model_from_slug(slug: str) -> str:
    """Return the model that a folder name stands for (inverse of `model_slug`)."""
    return TIMM_PREFIX + slug.removeprefix("timm--") if slug.startswith("timm--") else slug


def folds_dir(dataset: str) -> Path:
    """Return the folder of a data set's fold files."""
    return _below(root(), "folds", dataset)


def folds_csv(dataset: str, scheme: str) -> Path:
    """Return a fold file."""
    return _below(folds_dir(dataset), f"{scheme}.csv")


def label_names_json(dataset: str) -> Path:
    """Return what a data set calls its classes."""
    return folds_dir(dataset) / "labels.json"


def folds_lock(dataset: str) -> Path:
    """Return the lock file under which a data set's folds are made."""
    return _below(cache_dir(), f"{dataset}.folds.lock")


def excluded_csv(dataset: str, scheme: str) -> Path:
    """Return the list of items a fold file leaves out, with the reason."""
    return _below(folds_dir(dataset), f"{scheme}.excluded.csv")


def checkpoints_home() -> Path:
    """Return the folder that holds one folder of checkpoints per data set."""
    return root() / "checkpoints"


def run_scheme_dir(dataset: str, scheme: str) -> Path:
    """Return the folder that holds one folder of checkpoints per model."""
    return _below(root(), "checkpoints", dataset, scheme)


def run_dir(dataset: str, scheme: str, model: str) -> Path:
    """Return the folder of a model's checkpoints."""
    return _below(run_scheme_dir(dataset, scheme), model_slug(model))


def checkpoint(dataset: str, scheme: str, model: str, fold: FoldName) -> Path:
    """Return the weights file of a run."""
    return _below(run_dir(dataset, scheme, model), f"fold_{fold}.safetensors")


def stage_checkpoint(dataset: str, scheme: str, model: str, fold: FoldName, stage: int) -> Path:
    """Return the weights file that a stage of a run left behind, of those before the last."""
    return _below(run_dir(dataset, scheme, model), f"fold_{fold}.stage_{stage}.safetensors")


def run_record(dataset: str, scheme: str, model: str, fold: FoldName) -> Path:
    """Return the record of a run; it exists only once the run is finished."""
    return _below(run_dir(dataset, scheme, model), f"fold_{fold}.json")


def run_state(dataset: str, scheme: str, model: str, fold: FoldName) -> Path:
    """Return the resume state of an unfinished run."""
    return _below(run_dir(dataset, scheme, model), f"fold_{fold}.state.pt")


def run_lock(dataset: str, scheme: str, model: str, fold: FoldName) -> Path:
    """Return the lock file of a run."""
    return _below(run_dir(dataset, scheme, model), f"fold_{fold}.lock")


def tensorboard_dir(dataset: str, scheme: str, model: str, fold: FoldName) -> Path:
    """Return the folder of a run's TensorBoard event files."""
    return _below(run_dir(dataset, scheme, model), "tensorboard", f"fold_{fold}")


def exported(checkpoint: Path, engine: str, precision: str) -> Path:
    """Return the file that an engine runs instead of a checkpoint; its JSON lies beside it."""
    suffix = {"onnx": "onnx", "openvino": "xml"}[engine]
    return checkpoint.parent / "export" / f"{checkpoint.stem}.{engine}.{precision}.{suffix}"


def oof_home() -> Path:
    """Return the folder that holds one folder of out-of-fold predictions per data set."""
    return root() / "oof"


def oof_scheme_dir(dataset: str, scheme: str) -> Path:
    """Return the folder that holds one folder of out-of-fold predictions per model."""
    return _below(oof_home(), dataset, scheme)


def oof_dir(dataset: str, scheme: str, model: str) -> Path:
    """Return the folder of a model's predictions."""
    return _below(oof_scheme_dir(dataset, scheme), model_slug(model))


def oof_csv(dataset: str, scheme: str, model: str, fold: FoldName) -> Path:
    """Return a model's out-of-fold predictions of one fold, one row an item."""
    return _below(oof_dir(dataset, scheme, model), f"fold_{fold}.csv")


def oof_views(dataset: str, scheme: str, model: str, fold: FoldName) -> Path:
    """Return the same predictions, one row an item and view."""
    return _below(oof_dir(dataset, scheme, model), f"fold_{fold}.views.parquet")


def test_views(dataset: str, scheme: str, model: str, fold: FoldName) -> Path:
    """Return a fold model's predictions of the test items, one row an item and view."""
    return _below(oof_dir(dataset, scheme, model), f"test_fold_{fold}.views.parquet")


def cross_views(
    dataset: str, scheme: str, model: str, fold: FoldName, other: str, split: str = "train"
) -> Path:
    """Return a fold model's predictions of the labelled items of another data set."""
    stem = f"fold_{fold}" if split == "train" else f"{split}_fold_{fold}"
    return _below(oof_dir(dataset, scheme, model), "cross", other, f"{stem}.views.parquet")


def cross_fitted_csv(dataset: str, scheme: str, model: str, fold: FoldName) -> Path:
    """Return the logits of what a merge chose on either half of a fold's held-out items."""
    return _below(oof_dir(dataset, scheme, model), f"cross_fitted_fold_{fold}.csv")


def recipe_dir(dataset: str) -> Path:
    """Return the folder of a data set's recipes."""
    return _below(root(), "recipes", dataset)


def recipe_dirs(dataset: str) -> list[Path]:
    """Return the folders searched for recipes, the user's first, then those of a bundle."""
    brought = [REPO / "recipes" / dataset] if bundle_contents().is_file() else []
    return list(dict.fromkeys([recipe_dir(dataset), *brought]))


def recipe_json(dataset: str, recipe: str) -> Path:
    """Return a recipe."""
    return _below(recipe_dir(dataset), f"{recipe}.json")


def adversarial_csv(dataset: str) -> Path:
    """Return the probs of adversarial validation: how much an item looks like a test item."""
    return _below(root(), "reports", dataset, "adversarial.csv")


def audit_csv(dataset: str) -> Path:
    """Return what the headers of the train items say, and how a metadata audit judged them."""
    return _below(root(), "reports", dataset, "audit.csv")


def bundle_zip(dataset: str, recipe: str) -> Path:
    """Return the archive that predicts with a recipe elsewhere."""
    return _below(root(), "bundles", dataset, f"{recipe}.zip")


def submission_csv(dataset: str, recipe: str) -> Path:
    """Return a submission."""
    return _below(root(), "submissions", dataset, f"{recipe}.csv")


def extra_record(dataset: str, scheme: str, model: str) -> Path:
    """Return the record of predictions that came from elsewhere; its presence marks the member."""
    return oof_dir(dataset, scheme, model) / "extra.json"


def extra_lock(dataset: str, scheme: str, model: str) -> Path:
    """Return the lock file under which predictions from elsewhere are imported and tuned on."""
    return _below(cache_dir(), "extra", dataset, scheme, f"{model_slug(model)}.lock")


def extra_test_csv(dataset: str, scheme: str, model: str) -> Path:
    """Return the test predictions of such a member, one row an item."""
    return oof_dir(dataset, scheme, model) / "extra_test.csv"


def preview_png(dataset: str, model: str) -> Path:
    """Return the contact sheet of what a model's net sees of training items."""
    return _below(root(), "reports", dataset, f"preview_{model_slug(model)}.png")


def report_dir(dataset: str, scheme: str, model: str) -> Path:
    """Return the folder of a model's report: pictures, and `index.html`."""
    return _below(root(), "reports", dataset, scheme, model_slug(model))


def scorecard_csv(
    dataset: str,
    scheme: str,
    name: str,
    other: str | None = None,
    *,
    split: str = "train",
    is_recipe: bool = False,
) -> Path:
    """Return the metrics of a model, or a recipe, on its own data set or on another."""
    home = report_dir(dataset, scheme, name)
    if is_recipe:
        home = _below(root(), "reports", dataset, scheme, "recipes", name)
    part = "" if split == "train" else f"_{split}"
    return _below(home, "scorecard.csv" if other is None else f"scorecard_on_{other}{part}.csv")


def comparison_csv(dataset: str, scheme: str, name: str) -> Path:
    """Return the scores of a comparison's rows, in-domain and out-of-domain."""
    return _below(root(), "reports", dataset, scheme, "comparisons", f"{name}.csv")


def comparison_png(dataset: str, scheme: str, name: str) -> Path:
    """Return the plot of these scores."""
    return comparison_csv(dataset, scheme, name).with_suffix(".png")


def merge_report_dir(dataset: str, scheme: str) -> Path:
    """Return the folder of the plots and tables that compare merges."""
    return _below(root(), "reports", dataset, scheme, "merges")


def study_plots_dir(dataset: str, recipe: str) -> Path:
    """Return the folder of the plots of a recipe's searches."""
    return _below(root(), "reports", dataset, "tune", recipe)


def submission_log_csv() -> Path:
    """Return the book of submissions: cross-fitted against public scores."""
    return root() / "submissions" / "log.csv"


def submission_log_png() -> Path:
    """Return its plot."""
    return submission_log_csv().with_suffix(".png")
