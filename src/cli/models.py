"""`python -m src models`: what `--model` takes, with sizes and licences."""

from collections.abc import Sequence

from src import config
from src.cli.common import Parser, run_command

HEAD = (
    f"{'model':<20} {'weights':>9} {'GMACs':>7} {'px':>4}  {'mean':<14} {'std':<14} {'start':<5} "
    f"{'strategy':<17} licence of weights; about"
)


def _run(argv: Sequence[str] | None) -> None:
    Parser("List the models of configs/models/.", prog="python -m src models").parse_args(argv)
    from src.models.classifier import measure

    print(HEAD)
    for name in config.model_names():
        settings = config.read_model(name)
        size = measure(settings)
        mean, std = ("/".join(f"{v:.2f}".lstrip("0") for v in t) for t in (size.mean, size.std))
        if settings.backbone.pretrained == "file" and settings.input.mean is None:
            mean = std = "of the file"
        print(
            f"{name:<20} {size.parameters / 1e6:>7.2f} M {size.macs / 1e9:>7.2f} "
            f"{size.image_size:>4}  {mean:<14} {std:<14} {settings.backbone.pretrained:<5} "
            f"{settings.strategy:<17} {settings.licence}; {settings.about}"
        )
    print("GMACs: multiplications of one image; start: where the weights come from")
    print("any timm backbone: --model timm:NAME (default settings, its own size and normalisation)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src models`; returns the exit code."""
    return run_command(_run, argv)
