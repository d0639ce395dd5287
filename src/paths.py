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


def model_slug(model: str) -> str:
    """Return the folder name of a model; `timm:NAME` becomes `timm--NAME`."""
    return model.replace(TIMM_PREFIX, "timm--", 1) if model.startswith(TIMM_PREFIX) else model


def model_from_slug(slug: str) -> str:
    """Return the model that a folder name stands for (inverse of `model_slug`)."""
    return TIMM_PREFIX + slug.removeprefix("timm--") if slug.startswith("timm--") else slug


class Artefact:
    """A path below `root()`: called with its names in their order, `oof_csv(dataset, ...)`.

    A `{model}` is written as its slug. Raises a UserError for a name that is a path itself, and a
    TypeError for too few names or too many.
    """

    def __init__(self, template: str) -> None:
        self.steps = template.split("/")
        self.names = re.findall(r"{(\w+)}", template)

    def __call__(self, *names: FoldName) -> Path:
        """Return the path of these names."""
        if len(names) != len(self.names):
            raise TypeError(f"{'/'.join(self.steps)} wants {self.names}, got {names}")
        values = dict(zip(self.names, names, strict=True))
        if "model" in values:
            values["model"] = model_slug(str(values["model"]))
        return _below(root(), *(step.format(**values) for step in self.steps))


# the scan of a data set: sizes, hashes, what could not be read
manifest_cache = Artefact(".cache/manifest/{dataset}.parquet")
# the items of a data set, as one command reads it (`key`); the columns lie beside it
kept_manifest = Artefact(".cache/manifest/{dataset}.kept/{key}.json")
# the directory of a large zip, in columns (`src.data.items.zip_directory`)
zip_directory = Artefact(".cache/zips/{key}.arrow")
pixel_cache = Artefact(".cache/pixels/{dataset}")  # its decoded pixels
# the faces that a detector found in its items
face_cache = Artefact(".cache/faces/{dataset}/{detector}")
# landmarks of the faces that its canvases show
landmarks = Artefact(".cache/landmarks/{dataset}")
# features of its items by one frozen net
feature_cache = Artefact(".cache/features/{dataset}/{key}.npy")
# augmented views of its items by the first blocks of a net
prefix_views = Artefact(".cache/views/{dataset}/{key}")
# blocks of shards that lie elsewhere; what is known of shards that are being written
shard_blocks = Artefact(".cache/shards/{key}")
shards_begun = Artefact(".cache/shards_begun/{key}")
study_lock = Artefact(".cache/studies/{key}.lock")  # the storage of a study is opened under it
# what merges are made from and is not kept: starts, resized weights
merge_parts = Artefact(".cache/merges")
# what an unfinished pass over test items has
partial_views = Artefact(".cache/predict/{key}.npz")
precision_cache = Artefact(".cache/precision.json")  # answers of the CPU precision probe
figures_cache = Artefact(".cache/figures.json")  # weights and work of users' own models
fingerprint_cache = Artefact(".cache/fingerprints.json")  # SHA-256 of artefacts
compile_cache = Artefact(".cache/compile")  # what torch.compile makes, a folder a process
# labels of the demo's test items (`item_id,label`)
demo_truth_csv = Artefact(".cache/demo_truth.csv")
folds_lock = Artefact(".cache/{dataset}.folds.lock")  # folds are made under it
# predictions from elsewhere come under it
extra_lock = Artefact(".cache/extra/{dataset}/{scheme}/{model}.lock")

folds_dir = Artefact("folds/{dataset}")
folds_csv = Artefact("folds/{dataset}/{scheme}.csv")
# items that a fold file leaves out, and why
excluded_csv = Artefact("folds/{dataset}/{scheme}.excluded.csv")
# of a scheme `clusters`: which item is in which, and where their centres lie
clusters_csv = Artefact("folds/{dataset}/{scheme}.clusters.csv")
cluster_centres = Artefact("folds/{dataset}/{scheme}.clusters.safetensors")
label_names_json = Artefact("folds/{dataset}/labels.json")  # what a data set calls its classes
# stands for its own `dataset.yaml`, where its folder is read-only
dataset_yaml = Artefact("input/{dataset}.yaml")

checkpoints_home = Artefact("checkpoints")
run_scheme_dir = Artefact("checkpoints/{dataset}/{scheme}")
run_dir = Artefact("checkpoints/{dataset}/{scheme}/{model}")
checkpoint = Artefact("checkpoints/{dataset}/{scheme}/{model}/fold_{fold}.safetensors")
# of stages before the last
stage_checkpoint = Artefact(
    "checkpoints/{dataset}/{scheme}/{model}/fold_{fold}.stage_{stage}.safetensors"
)
# only once a run is finished
run_record = Artefact("checkpoints/{dataset}/{scheme}/{model}/fold_{fold}.json")
# of an unfinished run
run_state = Artefact("checkpoints/{dataset}/{scheme}/{model}/fold_{fold}.state.pt")
# what was said while it was trained
run_log = Artefact("checkpoints/{dataset}/{scheme}/{model}/fold_{fold}.log")
run_lock = Artefact("checkpoints/{dataset}/{scheme}/{model}/fold_{fold}.lock")
tensorboard_dir = Artefact("checkpoints/{dataset}/{scheme}/{model}/tensorboard/fold_{fold}")

# what a launched job printed, how it began and ended; what shows other machines our files
launch_dir = Artefact("launches/{dataset}")
launch_log = Artefact("launches/{dataset}/{task}.log")
launch_state = Artefact("launches/{dataset}/{task}.json")
launch_token = Artefact("launches/{dataset}/.token")

oof_home = Artefact("oof")
oof_scheme_dir = Artefact("oof/{dataset}/{scheme}")
oof_dir = Artefact("oof/{dataset}/{scheme}/{model}")
# out-of-fold predictions, a row an item
oof_csv = Artefact("oof/{dataset}/{scheme}/{model}/fold_{fold}.csv")
# the same, a row an item and view
oof_views = Artefact("oof/{dataset}/{scheme}/{model}/fold_{fold}.views.parquet")
# of the test items
test_views = Artefact("oof/{dataset}/{scheme}/{model}/test_fold_{fold}.views.parquet")
# logits of what a merge chose on either half of a fold
cross_fitted_csv = Artefact("oof/{dataset}/{scheme}/{model}/cross_fitted_fold_{fold}.csv")
# marks a member from elsewhere
extra_record = Artefact("oof/{dataset}/{scheme}/{model}/extra.json")
# its test predictions, a row an item
extra_test_csv = Artefact("oof/{dataset}/{scheme}/{model}/extra_test.csv")

recipe_dir = Artefact("recipes/{dataset}")
recipe_json = Artefact("recipes/{dataset}/{recipe}.json")
submission_csv = Artefact("submissions/{dataset}/{recipe}.csv")
submission_log_csv = Artefact("submissions/log.csv")  # the book: cross-fitted against public scores
submission_log_png = Artefact("submissions/log.png")
bundle_zip = Artefact("bundles/{dataset}/{recipe}.zip")  # predicts with a recipe elsewhere

report_html = Artefact("reports/{dataset}/index.html")  # the page of a data set
faces_png = Artefact("reports/{dataset}/faces.png")  # faces found and cut out
# what a model's net sees of training items
preview_png = Artefact("reports/{dataset}/preview_{model}.png")
# items of each cluster of a scheme
clusters_png = Artefact("reports/{dataset}/{scheme}/clusters.png")
# how much an item looks like a test item
adversarial_csv = Artefact("reports/{dataset}/adversarial.csv")
# what files' headers say, and how an audit judged them
audit_csv = Artefact("reports/{dataset}/audit.csv")
study_plots_dir = Artefact("reports/{dataset}/tune/{recipe}")
report_dir = Artefact("reports/{dataset}/{scheme}/{model}")  # pictures and `index.html`
# where its net looks; a CSV of the same stem says how far another's agrees
attention_png = Artefact("reports/{dataset}/{scheme}/{model}/attention_fold_{fold}.png")
# how well it says which pixels were manipulated; and how that looks
localisation_csv = Artefact("reports/{dataset}/{scheme}/{model}/localisation.csv")
localisation_png = Artefact("reports/{dataset}/{scheme}/{model}/localisation.png")
comparison_csv = Artefact("reports/{dataset}/{scheme}/comparisons/{name}.csv")
comparison_png = Artefact("reports/{dataset}/{scheme}/comparisons/{name}.png")
# what models cost, the scores of some data set beside
cost_csv = Artefact("reports/{dataset}/{scheme}/cost.csv")
unscored_cost_csv = Artefact("reports/cost.csv")
# plots and tables that compare merges
merge_report_dir = Artefact("reports/{dataset}/{scheme}/merges")


def cache_dir() -> Path:
    """Return the folder of everything that can be deleted and is made again when needed."""
    return root() / ".cache"


def shard_cache() -> Path:
    """Return the folder of all blocks of shards that lie elsewhere."""
    return cache_dir() / "shards"


def input_dir(input_root: Path | None = None) -> Path:
    """Return the folder that holds one folder per data set."""
    return input_root if input_root is not None else root() / "input"


def dataset_dir(dataset: str, input_root: Path | None = None) -> Path:
    """Return the folder of a data set; the demo's lives in the cache."""
    return cache_dir() / DEMO if dataset == DEMO else _below(input_dir(input_root), dataset)


def config_dirs(kind: str) -> list[Path]:
    """Return the folders searched for configs of a kind (`models`, `merges`), the user's first."""
    return list(dict.fromkeys([root() / "configs" / kind, REPO / "configs" / kind]))


def recipe_dirs(dataset: str) -> list[Path]:
    """Return the folders searched for recipes, the user's first, then those of a bundle."""
    return [recipe_dir(dataset), *(home / dataset for home in recipe_homes()[1:])]


def recipe_homes() -> list[Path]:
    """Return the folders above those: a folder a data set is in each."""
    brought = [REPO / "recipes"] if bundle_contents().is_file() else []
    return list(dict.fromkeys([root() / "recipes", *brought]))


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


def exported(checkpoint: Path, engine: str, precision: str) -> Path:
    """Return the file that an engine runs instead of a checkpoint; its JSON lies beside it."""
    suffix = {"onnx": "onnx", "openvino": "xml"}[engine]
    return checkpoint.parent / "export" / f"{checkpoint.stem}.{engine}.{precision}.{suffix}"


def cross_views(
    dataset: str, scheme: str, model: str, fold: FoldName, other: str, split: str = "train"
) -> Path:
    """Return a fold model's predictions of the labelled items of another data set."""
    stem = f"fold_{fold}" if split == "train" else f"{split}_fold_{fold}"
    return _below(oof_dir(dataset, scheme, model), "cross", other, f"{stem}.views.parquet")


def robustness_csv(dataset: str, scheme: str, name: str, *, is_recipe: bool = False) -> Path:
    """Return the scores of a model, or a recipe, at many levels; a PNG of that stem is beside."""
    return _scored_dir(dataset, scheme, name, is_recipe=is_recipe) / "robustness.csv"


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
    home = _scored_dir(dataset, scheme, name, is_recipe=is_recipe)
    part = "" if split == "train" else f"_{split}"
    return _below(home, "scorecard.csv" if other is None else f"scorecard_on_{other}{part}.csv")


def _scored_dir(dataset: str, scheme: str, name: str, *, is_recipe: bool) -> Path:
    if is_recipe:
        return _below(root(), "reports", dataset, scheme, "recipes", name)
    return report_dir(dataset, scheme, name)


def delivered(views: Path, seed: int) -> Path:
    """Return where the same items' predictions as levels deliver them lie, all levels in one."""
    return views.with_name(f"delivered_{seed}_{views.name}")


def delivered_views(dataset: str, scheme: str, model: str, seed: int, fold: FoldName) -> Path:
    """Return where those of out-of-fold items lie."""
    return delivered(oof_views(dataset, scheme, model, fold), seed)
