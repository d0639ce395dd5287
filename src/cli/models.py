"""`python -m src models`: what `--model` takes, with sizes and licences."""

from collections.abc import Sequence

from src import config
from src.cli.common import Parser, run_command


def _run(argv: Sequence[str] | None) -> None:
    Parser("List the models of configs/models/.", prog="python -m src models").parse_args(argv)
    from src.models.classifier import build_classifier, count_parameters

    print(f"{'model':<20} {'weights':>9} {'px':>4}  {'start':<6} licence of weights; about")
    for name in config.model_names():
        settings = config.read_model(name)
        model, _ = build_classifier(settings)
        print(
            f"{name:<20} {count_parameters(model) / 1e6:>7.2f} M {model.spec.image_size:>4}  "
            f"{settings.backbone.pretrained:<6} {settings.licence}; {settings.about}"
        )
    print("any timm backbone: --model timm:NAME (default settings, its own size and normalisation)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src models`; returns the exit code."""
    return run_command(_run, argv)
