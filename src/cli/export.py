"""`python -m src export MODEL`: checkpoints as files for ONNX Runtime or OpenVINO."""

from collections.abc import Sequence
from typing import Any

from src import paths
from src.cli.common import (
    Parser,
    add_data_arguments,
    choose_dataset,
    existing_scheme,
    run_command,
    show_log,
)
from src.errors import UserError

DESCRIPTION = """Export the checkpoints of a model, and hold each file against eager torch.

  python -m src export effnet_b0                                    ONNX, fp32
  python -m src export effnet_b0 --engine openvino --precision bf16
  python -m src export effnet_b0 --engine openvino --precision int8 --fold 0

Then: python predict_ensemble.py --engine openvino [--precision bf16]. Each file is checked on items
that its checkpoint never saw: AUC, macro-F1 at 0.5, the largest difference of a logit."""
CALIBRATION = 128  # training items from which int8 takes its ranges


def make_parser() -> Parser:
    """Return the parser of `python -m src export`."""
    parser = Parser(DESCRIPTION, prog="python -m src export")
    parser.add_argument("model", metavar="MODEL", help="a model with finished folds")
    parser.add_argument("--fold", metavar="K", help="one fold, or all; default: every finished one")
    parser.add_argument("--engine", default="onnx", choices=["onnx", "openvino"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "int8"])
    parser.add_argument(
        "--items", type=int, default=512, metavar="N", help="held-out items of the check"
    )
    parser.add_argument("--overwrite", action="store_true", help="export again")
    add_data_arguments(parser)
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    if arguments.items < 2:
        raise UserError(f"--items {arguments.items}: want at least 2")
    dataset_name = choose_dataset(arguments.data, arguments.input_root)
    scheme = existing_scheme(dataset_name, arguments.scheme)
    if scheme is None:
        raise UserError(f"{dataset_name} has no folds yet, so nothing is trained: train_folds.py")
    folds = _finished(dataset_name, scheme, arguments.model, arguments.fold)
    show_log()
    from src.inference.export import check_order

    check_order(arguments.engine, arguments.precision)
    _export(dataset_name, scheme, folds, arguments)


def _finished(dataset: str, scheme: str, model: str, wanted: str | None) -> list[paths.FoldName]:
    """Return the folds to export; raises where they are not trained."""
    home = paths.run_dir(dataset, scheme, model)
    names = sorted(path.stem.removeprefix("fold_") for path in home.glob("fold_*.safetensors"))
    found = [name for name in names if name == paths.ALL or name.isdigit()]  # no stage's
    train = f"python train_folds.py --model {model} --data {dataset}"
    if not found:
        raise UserError(f"{model} has no checkpoint for {dataset}/{scheme}: {train}")
    if wanted is not None and wanted not in found:
        raise UserError(
            f"fold {wanted} of {model} has no checkpoint (there are: {', '.join(found)}): {train} "
            f"--fold {wanted}"
        )
    chosen = found if wanted is None else [wanted]
    return [fold if fold == paths.ALL else int(fold) for fold in chosen]


def _export(
    dataset_name: str,
    scheme: str,
    folds: list[paths.FoldName],
    arguments: Any,  # noqa: ANN401
) -> None:
    from src.artifacts.files import sha256_file
    from src.artifacts.folds import read_folds
    from src.artifacts.runs import check_checkpoint, read_run
    from src.data.layouts.load import load_dataset
    from src.inference.export import Order, export_checkpoint, is_exported, read_items
    from src.training.job import job_table

    dataset = load_dataset(dataset_name, arguments.input_root)
    folds_csv = paths.folds_csv(dataset_name, scheme)
    table, folds_sha256 = job_table(dataset.train, read_folds(folds_csv)), sha256_file(folds_csv)
    model = arguments.model
    for fold in folds:
        names = (dataset_name, scheme, model, fold)
        record = read_run(*names)
        if record["folds_sha256"] != folds_sha256:
            raise UserError(
                f"{folds_csv} has changed since fold {fold} of {model} was trained, so nothing "
                "says which rows it never saw: put the file back, or train again (--overwrite)"
            )
        order = Order(
            check_checkpoint(record), record["checkpoint_sha256"], arguments.engine,
            arguments.precision,
        )  # fmt: skip
        if is_exported(order) and not arguments.overwrite:
            print(f"{model} fold {fold}: exported already, skipped (--overwrite exports it again)")
            continue
        seen = (table["fold"] != fold).to_numpy()
        unseen = ~seen if fold != paths.ALL else seen  # a refit saw everything
        held, pixels = read_items(order, dataset.root, table, unseen, arguments.items)
        _, calibration = read_items(order, dataset.root, table, seen, CALIBRATION)
        check = export_checkpoint(order, pixels, table["label"].to_numpy()[held], calibration)
        _report(f"{model} fold {fold}", order, check, fold)


def _report(what: str, order: Any, check: dict[str, float], fold: paths.FoldName) -> None:  # noqa: ANN401
    items = "training items (a refit holds none out)" if fold == paths.ALL else "held-out items"
    print(f"{what}: {order.engine} {order.precision} -> {order.path}")
    print(
        f"  on {check['items']} {items}: AUC {check['auc']:.4f} (eager {check['auc_eager']:.4f}), "
        f"macro-F1 at 0.5 {check['macro_f1']:.4f} (eager {check['macro_f1_eager']:.4f}: "
        f"{check['macro_f1'] - check['macro_f1_eager']:+.4f}), logits differ by at most "
        f"{check['max_logit_difference']:.2g} (their standard deviation: "
        f"{check['logit_spread']:.2g})"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src export`; returns the exit code."""
    return run_command(_run, argv)
