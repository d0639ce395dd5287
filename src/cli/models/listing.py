"""`python -m src models`: what `--model` takes, without loading torch."""

from argparse import Namespace

from src import config
from src.models.figures import figures_of

HEAD = (
    f"{'model':<20} {'weights':>9} {'GMACs':>7} {'px':>4}  {'mean':<14} {'std':<14} {'start':<7} "
    f"{'strategy':<17} licence of weights; about"
)


def run_models(_: Namespace) -> None:
    """List the models with sizes and licences."""
    models = {name: config.read_model(name) for name in config.model_names()}
    figures = figures_of(models)
    print(HEAD)
    for name, settings in models.items():
        found = figures[name]
        mean, std = ("/".join(f"{v:.2f}".lstrip("0") for v in t) for t in (found.mean, found.std))
        if settings.backbone.pretrained == "file" and settings.input.mean is None:
            mean = std = "of the file"
        print(
            f"{name:<20} {found.parameters / 1e6:>7.2f} M {found.macs / 1e9:>7.2f} "
            f"{found.image_size:>4}  {mean:<14} {std:<14} {settings.backbone.pretrained:<7} "
            f"{settings.strategy:<17} {settings.licence}; {settings.about}"
        )
    print("GMACs: multiplications of one image; start: where the weights come from")
    print("any timm backbone: --model timm:NAME (default settings, its own size and normalisation)")
