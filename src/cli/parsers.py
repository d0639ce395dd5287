"""The flags of every command, and how it is called: light, for work is loaded when it begins."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from src.cli import file_parsers, scale_parsers  # noqa: F401 - enter their commands
from src.cli.common import GOES_ON, run_command
from src.cli.flags import (
    COMMANDS,
    Parser,
    add_cache,
    add_compute,
    add_data,
    add_device,
    add_fold,
    add_hours,
    add_minutes,
    add_start,
    add_training,
    command,
    read_ranks,
)
from src.compute import ranks
from src.compute.starter import ALL

AUGMENTS = ("crop_zoom", "light", "classic")  # that variants are drawn from
DEFAULT_RECIPE = "tuned"
HELD_OUT = "held-out fold (default: each in turn); `all` trains on every row"
HOMES = {
    "bundle": "export",
    "models": "models.listing",
    "card": "models.card",
    "variants": "models.variants",
    "submit_log": "report",
    "attention": "report",
    **{name: f"files.{name}" for name in ("look", "serve", "watch")},
    **{name: f"scale.{name}" for name in ("launch", "shards")},
}  # modules of another name than the command's
# What is said on Ctrl-C of commands that have no end of their own, and nothing to go on from.
ENDS = {
    "serve": "stopped: no page is served any more",
    "watch": "stopped: nothing is watched any more",
}
SCRIPTS = {"train": "train_folds.py", "tune": "tune.py", "predict": "predict_ensemble.py"}


def make_parser(name: str) -> Parser:
    """Return the parser of a command."""
    about, add_flags = COMMANDS[name]
    parser = Parser(about, SCRIPTS.get(name, f"python -m src {name.replace('_', '-')}"))
    add_flags(parser)
    return parser


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a command: its flags are read before its module is loaded; returns the exit code."""

    def work(words: Sequence[str] | None) -> None:
        with ranks.member() if name == "train" else nullcontext():
            arguments = make_parser(name).parse_args(words)
            arguments.words = sys.argv[1:] if words is None else list(words)
            getattr(import_module(f"src.cli.{HOMES.get(name, name)}"), f"run_{name}")(arguments)

    return run_command(work, argv, ENDS.get(name, GOES_ON))


@command("""Train a model with stratified group K-fold.

  python train_folds.py --model effnet_b0 --fold 0     one fold
  python train_folds.py --model effnet_b0              all folds; finished ones are skipped
  python train_folds.py --model timm:resnet18          any timm backbone, default settings
  python train_folds.py --model effnet_b0 --seeds 3    three members: seeds 42, 43 and 44
  python train_folds.py --model effnet_b0 --minutes 20 all folds in that time: each makes the whole
                                                       schedule in as many epochs as fit
  python train_folds.py --model effnet_b0 --fold all   one model on every row, nothing held out,
                                                       for predict_ensemble.py --refit
  python train_folds.py --model effnet_b0 --ddp        each fold on all cards of this machine; on
                                                       several machines by torchrun --nnodes 2 ...

Interrupted (Ctrl-C, SIGTERM) or out of time (--max-hours), the same command goes on from the batch
where it stopped; killed, after the last state that was saved.""")
def _train(parser: Parser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="a config, or timm:NAME")
    add_fold(parser, HELD_OUT)
    add_training(parser)
    text = "train N members that differ in their seed: NAME, NAME_s<seed+1>, ..."
    add("--seeds", type=int, default=1, metavar="N", help=text)
    text = "share each fold among N cards (default: all of this machine): docs/many_cards.md"
    add("--ddp", nargs="?", type=read_ranks, const=ALL, metavar="N", help=text)


@command("""Look at a data set and time this machine: what to train in the minutes there are.

  python -m src plan --minutes 20                  the one data set in input/
  python -m src plan --minutes 120 --data dfdc     that one
  python -m src plan --minutes 20 --weights FILE   with models that start from a file
  python -m src plan --minutes 20 --models effnet_lite0 timm:resnet18   of these alone

A sample of the items is opened and a few real steps are made; nothing is trained, nothing written.
What is proposed, and why: docs/plan.md.""")
def _plan(parser: Parser) -> None:
    add_minutes(parser, "for training, tuning and predicting together", required=True)
    add_data(parser)
    add = parser.add_argument
    add("--models", nargs="+", metavar="NAME", help="choose among these, the best first")
    text = "for models that start from a file or the hub; for any that is named alone"
    add("--weights", type=Path, metavar="FILE", help=text)
    add_device(parser)


@command("""Find the weights and the threshold of an ensemble on out-of-fold predictions.

needs:   oof/<data>/<scheme>/<model>/fold_<k>.csv, written by train_folds.py
writes:  recipes/<data>/<recipe>.json, read by predict_ensemble.py

Every candidate, from the plain mean at 0.5 upwards, is scored on items it was not tuned on; one
replaces the simpler one only if it gains more than one standard error there.""")
def _tune(parser: Parser) -> None:
    add = parser.add_argument
    add_data(parser)
    add("--models", nargs="+", metavar="NAME", help="members (default: all that have predictions)")
    text = (
        "what the competition scores by: macro_f1, f1, accuracy, balanced_accuracy, auc, ap, "
        "log_loss, brier, tpr@fpr=1%%, hter, eer, mcc (default: `metric:` in dataset.yaml)"
    )
    add("--metric", metavar="NAME", help=text)
    add("--voting", metavar="NAME", help="soft, hard, rank, logit or stack (default: what wins)")
    add("--strategies", nargs="+", metavar="NAME", help="try only these (default: see --list)")
    text = (
        "platt, temperature or isotonic: calibrate every member first, in place of every "
        "strategy in which their scale counts"
    )
    add("--calibrate", metavar="NAME", help=text)
    add("--list", action="store_true", help="list the strategies and stop")
    text = (
        "predictions from elsewhere as a member, joined by id; or a YAML that lists several: "
        "NAME: {oof: OOF.csv, test: TEST.csv}; may be repeated"
    )
    add("--extra", action="append", default=[], metavar="NAME=OOF.csv,TEST.csv", help=text)
    add("--trials", type=int, metavar="N", help="trials of one search (default: the strategy's)")
    add("--timeout", type=float, metavar="SECONDS", help="of one search")
    text = (
        "keep the searches there: sqlite:///x.db, postgresql://..., or a journal file; the "
        "same command goes on, several at once share the trials"
    )
    add("--study", default="", metavar="URL", help=text)
    text = (
        "a YAML of the competition's rules, in place of `rules` in dataset.yaml; `none` for no "
        "rules"
    )
    add("--rules", metavar="FILE", help=text)
    text = (
        "robustness (held-out items as python -m src robustness delivers them), another fold "
        "scheme (clusters, lodo ...): choose on these and on the items as they are together"
    )
    add("--under", nargs="+", default=[], metavar="WHAT", help=text)
    add("--also", nargs="+", default=[], metavar="WHAT", help="the same, only to be scored on")
    text = "of the items as they are among the rows that --under chooses on (default: 0.5)"
    add("--clean-share", type=float, metavar="SHARE", help=text)
    text = "levels of robustness (default: all that the members have)"
    add("--levels", nargs="+", metavar="LEVEL", help=text)
    text = "let the winner try a threshold per domain: only where the test items carry theirs"
    add("--by-domain", action="store_true", help=text)
    add("--plots", action="store_true", help="Optuna's plots, into reports/")
    add("--seed", type=int, default=42, metavar="N", help="default: 42")
    add("--recipe", default=DEFAULT_RECIPE, metavar="NAME", help="name to write it under: tuned")


@command("""Vote with a tuned recipe and write submissions/<data set>/<recipe>.csv.

  python predict_ensemble.py                      the recipe that tune.py wrote
  python predict_ensemble.py --recipe hard        another one: no model runs a second time
  python predict_ensemble.py --refit              each member by the one model that was trained on
                          every row (train_folds.py --fold all), not by its folds' mean
  python predict_ensemble.py --vote a.csv b.csv c.csv --output voted.csv
                          the majority of submission files; of probabilities the mean
  python predict_ensemble.py --checkpoint FILE --input-dir DIR --output out.csv
                          any folder of images and videos (or one file), without recipe or data set
  python predict_ensemble.py --recipe NAME --input-dir DIR --output out.csv --deliveries 4
                          ... by a recipe: real, fake or unsure, with the reason
  python predict_ensemble.py --checkpoint detector.pth --model NAME --input-dir DIR --output out.csv
                          a detector from elsewhere; --fake-index 0|1 where the file does not say
                          which class is fake""")
def _predict(parser: Parser) -> None:
    add = parser.add_argument
    add_data(parser, scheme=False)
    add("--recipe", metavar="NAME", help="default: tuned, or the only one")
    add("--refit", action="store_true", help="members' fold_all checkpoints -> <recipe>_refit.csv")
    add("--overwrite", action="store_true", help="predict the test items again")
    add_compute(parser, "int8")
    text = "what runs the models; others than eager want python -m src export"
    add("--engine", choices=["eager", "onnx", "openvino"], help=text)
    add_hours(parser, "refuse early if the predictions would take longer")
    text = "with a limit of hours: rather vote without the members of the lowest weight"
    add("--fit-in-time", action="store_true", help=text)
    text = "share of fakes among the test items, for threshold or probs: em or bbse estimate it"
    add("--prior", metavar="SHARE", help=text)
    text = "see each item as N levels deliver it too (1 to 8), and say which verdicts flip"
    add("--deliveries", type=int, metavar="N", help=text)
    text = "what the answers are (default: what the metric scores and the sample asks for)"
    add("--output-kind", choices=["label", "prob", "rank"], help=text)
    files = parser.add_argument_group("submission files alone")
    text = "majority of these CSVs (of probabilities: mean), or of a YAML's list"
    files.add_argument("--vote", nargs="+", metavar="FILE", help=text)
    files.add_argument("--vote-weights", nargs="+", type=float, metavar="W", help="one a file")
    folder = parser.add_argument_group("any folder")
    text = "fold_K.safetensors; several: mean"
    folder.add_argument("--checkpoint", type=Path, nargs="+", metavar="FILE", help=text)
    text = "net of checkpoints from elsewhere: a config, or timm:NAME"
    folder.add_argument("--model", metavar="NAME", help=text)
    text = "with --model: the class that is fake; of one output, 1 where positive is fake"
    folder.add_argument("--fake-index", type=int, choices=[0, 1], help=text)
    text = "images and videos, searched recursively; or one file"
    folder.add_argument("--input-dir", type=Path, metavar="DIR", help=text)
    folder.add_argument("--output", type=Path, metavar="CSV", help="where to write the answers")
    text = "with --recipe: share of sure verdicts that may be wrong (default 0.05; 0: no band)"
    folder.add_argument("--risk", type=float, metavar="R", help=text)
    folder.add_argument("--prob", action="store_true", help="write P(fake) as a column too")
    folder.add_argument("--threshold", type=float, default=0.5, help="on P(fake); default 0.5")


@command(
    "`python -m src demo`: the whole job on the embedded data set, through the three commands."
)
def _demo(parser: Parser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="train again what is finished")


@command("""Say what was understood of a data set: labels, groups, sizes, copies, bad files.

  python -m src data                 the one data set in input/
  python -m src data --data cifake   that one
  python -m src data --adversarial   can a small model tell train items from test items? If it
                                     can, a cross-validated score may not hold on the test items
  python -m src data --audit         do files alone (size, JPEG tables, codec, name ...) tell the
                                     label? By which fields, and what helps
  python -m src data --data B --from A   how many items of B are copies of A's or of its videos, so
                                     that no model trained on A is scored on them
  python -m src data --preview effnet_b0   a picture of what that model's net sees of some training
                                           items: the canvas, the evaluation view, augmented draws

Every image and clip is decoded once; the answer is remembered in .cache/manifest/.""")
def _data(parser: Parser) -> None:
    add = parser.add_argument
    add_data(parser)
    add("--adversarial", action="store_true", help="compare train with test instead of reporting")
    add("--audit", action="store_true", help="do files alone, never decoded, tell the label?")
    add("--from", dest="source", metavar="A", help="what would a model trained on A have seen?")
    add("--preview", metavar="MODEL", help="draw training items as a model's net sees them")
    text = "list and read the folder anew: of a very large one, files that were written over in "
    text += "place without a change of their folder are found so alone"
    add("--rescan", action="store_true", help=text)


@command("""Make the fold file of a data set, or show the one that exists.

  python -m src folds                        5 folds, seed 42
  python -m src folds --n-folds 10 --seed 7  written as sgkf10_s7.csv
  python -m src folds --scheme lodo          a fold a domain: leave one domain out
  python -m src folds --scheme clusters      whole clusters of what the items look like are held
                                             out: clusters20_s42 (20 of them, 5 folds, seed 42)
  python -m src folds --no-scan              opens no file: sgkf5_s42_unscanned.csv
  python -m src folds --shift                which scheme's held-out items differ most from the rest

Copies and given groups never straddle a fold. A fold file is never overwritten.""")
def _folds(parser: Parser) -> None:
    add = parser.add_argument
    add_data(parser)
    add("--n-folds", type=int, metavar="K", help="number of folds (default 5)")
    add("--seed", type=int, metavar="S", help="of the split (default 42)")
    text = (
        "open no file: only given groups are kept together, copies are not looked for, and "
        "an unreadable item is found only in training"
    )
    add("--no-scan", action="store_true", help=text)
    add("--preview", action="store_true", help="of `clusters`: draw some items of each")
    text = "compare the schemes that are there or could be; makes none"
    add("--shift", action="store_true", help=text)
    text = "of `clusters` and --shift: whose frozen backbone looks (default: effnet_lite0_probe)"
    add("--features", metavar="MODEL", help=text)
    add_start(parser, "of that backbone, instead of its config's")
    add_device(parser)
    add_cache(parser, "where decoded clips are kept, as in train_folds.py")


@command("""Find the faces in every image and clip of a data set.

  python -m src faces                        the one data set in input/
  python -m src faces --data dfdc --preview  and draw boxes and crops of some items
  python -m src faces --detector yunet --detector-file face_detection_yunet_2023mar.onnx

What is found is kept in .cache/faces/ and used by every model whose config says
`input: {crop: face}`; training and prediction look for what is missing by themselves. Interrupted,
the same command goes on where it stopped.""")
def _faces(parser: Parser) -> None:
    add = parser.add_argument
    add_data(parser, scheme=False)
    add("--detector", default="blazeface", metavar="NAME", help="default: blazeface")
    add("--detector-file", metavar="FILE", help="its weights, for yunet")
    text = "of the crops drawn by --preview: side of the square over that of the box"
    add("--margin", type=float, default=1.3, metavar="M", help=text)
    add("--preview", action="store_true", help="draw boxes and crops of some items")


@command("List the models of configs/models/.")
def _models(_: Parser) -> None:
    pass


@command("""Say what models cost beside each other, measured in turns on this machine.

  python -m src card mobilenetv4_conv_small vit_tiny --against vit_small
  python -m src card mobilenetv2_100 --data dfdc --engine eager openvino --threads 1
  python -m src card checkpoints/dfdc/sgkf5_s42/effnet_b0/fold_0.safetensors
  python -m src card vit_tiny --budget "2 GMAC, 6 M, 25 MB"

Parameters, GMACs, images/s, latency of the first image and of later ones, file, peak memory; with
out-of-fold predictions on --data, scores with intervals and a picture. docs/card.md says how each
is measured.""")
def _card(parser: Parser) -> None:
    add = parser.add_argument
    text = "a config, timm:NAME, a trained model, a checkpoint or an exported file"
    add("models", nargs="+", metavar="MODEL", help=text)
    add("--against", metavar="TEACHER", help="print shares of this one's figures, and factors")
    text = "mark what fits: GMAC, MMAC, M, k (parameters), MB, KB (file), ms (warm), images/s"
    add("--budget", metavar="LIMITS", help=text)
    add("--batch", type=int, default=32, metavar="N", help="images a pass; default: 32")
    add("--threads", type=int, default=1, metavar="N", help="of the CPU; default: 1")
    add("--rounds", type=int, default=7, metavar="N", help="turns of each model; default: 7")
    text = "about how long a turn takes; default: 1"
    add("--seconds", type=float, default=1.0, metavar="S", help=text)
    engines = ["eager", "onnx", "openvino"]
    add("--engine", nargs="+", default=["eager"], choices=engines, help="default: eager")
    add("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16", "int8"])
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    text = "print parameters with CLIP's text tower too, as papers on FLIP count"
    add("--text-tower", action="store_true", help=text)
    add("--output", type=Path, metavar="CSV", help="default: reports/.../cost.csv")
    add_data(parser)


@command("""Merge the weights of trained models into members like any other.

  python -m src merge my_soup                     configs/merges/my_soup.yaml, every finished fold
  python -m src merge a.yaml b.yaml --fold 0      two merges, one table
  python -m src merge my_soup --holdout OTHER     ... scored on another data set as well
  python -m src merge files.yaml --output x.safetensors    files of weights, nothing scored

Fold k of every model is merged into fold k, so that the merge has out-of-fold predictions by
models that never saw the items. docs/soups.md says what a file of merges holds.""")
def _merge(parser: Parser) -> None:
    add = parser.add_argument
    add("merges", nargs="+", metavar="MERGE", help="a name, or a .yaml file")
    add_fold(parser, "default: every fold that all models have finished; `all` merges their refits")
    add_data(parser)
    add_device(parser)
    add_cache(parser, "where decoded pixels are kept, as in train_folds.py")
    add("--overwrite", action="store_true", help="merge finished folds again")
    add("--weights", type=Path, metavar="FILE", help="what `base_model: start` was fine-tuned from")
    add("--no-check", action="store_true", help="do not walk between the models beforehand")
    add("--no-bn", action="store_true", help="keep BatchNorm's statistics as they were merged")
    add("--holdout", metavar="NAME", help="a labelled data set nobody trained on")
    add("--push", metavar="USER/NAME", help="upload the merge to a (private) repository of the Hub")
    add("--output", type=Path, metavar="FILE", help="merge files of weights into this one")


@command("""Train N variants of a model that differ in seed, learning rate and augmentation.

  python -m src variants mobilenetv2_100 --n 4 --fold 0 --weights FILE

MODEL_v0 is the model itself under a name of its own; the others draw theirs (equal draws on every
machine). All start from the same weights, head included, which is what lets them be merged:
docs/soups.md. The same command goes on where it stopped, and skips what is finished.""")
def _variants(parser: Parser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="a config, or timm:NAME")
    add("--n", type=int, default=4, metavar="N", help="variants; default: 4")
    text = "learning rates are drawn from 1/F to F times the model's; default: 3"
    add("--lr-factor", type=float, default=3.0, metavar="F", help=text)
    text = f"presets to draw from; default: the model's own and {', '.join(AUGMENTS)}"
    add("--augments", nargs="+", metavar="NAME", default=None, help=text)
    add_fold(parser, HELD_OUT)
    add_training(parser)


@command("""Draw learning curves, confusion, reliability, ROC, the most wrong items.

  python -m src report                  every model with a finished run, every recipe
  python -m src report effnet_b0        that one

Writes reports/<data set>/index.html, and a page of each model and recipe that it links.""")
def _report(parser: Parser) -> None:
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="default: all with a run")
    add("--maps", action="store_true", help="draw where nets look; some 100 passes an item")
    add_data(parser)


@command("""Draw where a vision transformer looks in held-out items, layer by layer.

  python -m src attention vit_tiny                       some surest wrong and surest right items
  python -m src attention tflip_attention --against tflip_teacher   beside its teacher, and how far
                          their maps agree (cosine), a number a layer
  python -m src attention vit_tiny --items real/a.png --layers 1 6 12 --rollout

Writes attention_fold_K.png (and .csv with --against) to reports/<data set>/<scheme>/<model>/.
What a map is: docs/reports.md.""")
def _attention(parser: Parser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model with a finished fold")
    add("--against", metavar="TEACHER", help="another one, of the same fold, to draw beside it")
    add(
        "--items", nargs="+", metavar="ID", help="held-out items (default: 3 surest wrong, 3 right)"
    )
    add("--fold", type=int, metavar="K", help="default: the first finished one")
    add("--layers", type=int, nargs="+", metavar="L", help="of the model, from 1 (default: all)")
    text = "attention to the input through all layers up to each (Abnar & Zuidema 2020)"
    add("--rollout", action="store_true", help=text)
    add("--output", type=Path, metavar="PNG", help="write the picture there")
    add_data(parser)


@command("""Score out-of-fold predictions by every metric of the field, with 95 % intervals.

  python -m src evaluate --model effnet_b0                   or: --recipe tuned
  python -m src evaluate --model effnet_b0 --by domain       a column a domain
  python -m src evaluate --recipe tuned --versus effnet_b0   ... and which of two is better
  python -m src evaluate --model effnet_b0 --data B --from A
                          checkpoints and threshold of A on the labelled items of B (its test
                          items where their labels are there), beside A's own scores
  python -m src evaluate --model effnet_b0 --split test      on A's own test items, if labelled
  python -m src evaluate --model forensics_adapter_b16 --by mask   where it says pixels were changed

Writes reports/<data set>/<scheme>/<model>/scorecard.csv.""")
def _evaluate(parser: Parser) -> None:
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar="NAME", help="a model with out-of-fold predictions")
    what.add_argument("--recipe", metavar="NAME", help="a recipe that tune.py wrote")
    add("--folds", type=int, nargs="+", metavar="K", help="default: every finished one")
    text = (
        "score each alone too; a manipulation is the domain of fakes, against reals; mask: pixels"
    )
    add("--by", choices=["domain", "manipulation", "kind", "mask"], help=text)
    text = "with --by mask: blends of held-out reals are the truth, where there are masks too"
    add("--blends", action="store_true", help=text)
    add("--only", nargs="+", metavar="VALUE", help="of --by, these alone")
    text = "another model or recipe: which is better on the same out-of-fold rows?"
    add("--versus", metavar="NAME", help=text)
    add("--from", dest="source", metavar="A", help="predict --data with what was trained on A")
    text = "labelled items of --data to predict; default: test, where it is labelled"
    add("--split", choices=["train", "test"], help=text)
    add_data(parser)
    add_compute(parser)


@command("""Score held-out items as messengers and sites deliver them, at the clean threshold.

  python -m src robustness --model effnet_b0        clean; JPEG 90 70 50 30; blur 0.5 1 2; resize
                          to 0.5, 0.25 and back; noise 0.02 0.05 0.1; jitter 20 %; crop 80 %; and
                          retouched reals
  python -m src robustness --recipe tuned           all its members in one decode of each item
  python -m src robustness --model effnet_b0 --levels card gend chain3 long1024-jpeg50
  python -m src robustness --list                   what there is

AUC, the metric, false alarms on reals and flipped verdicts at each level, with 95 % intervals by
group; a table, a CSV and a picture. What was predicted is kept: tune.py --under robustness chooses
a recipe on it. docs/robustness.md says what each level does.""")
def _robustness(parser: Parser) -> None:
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    text = "models with out-of-fold predictions, a card each"
    what.add_argument("--model", nargs="+", metavar="NAME", help=text)
    what.add_argument("--recipe", metavar="NAME", help="a recipe that tune.py wrote")
    what.add_argument("--list", action="store_true", help="say what levels there are")
    text = "levels and sets of them; default: whole card retouch"
    add("--levels", nargs="+", default=["whole", "card", "retouch"], metavar="LEVEL", help=text)
    text = "of what levels draw; default: 42"
    add("--seed", type=int, default=42, metavar="N", help=text)
    add_data(parser)
    add_compute(parser)


@command("""Score bare CSVs of any tool against the truth, and against each other.

  python -m src score truth.csv a.csv               every metric, with 95 % intervals
  python -m src score truth.csv a.csv b.csv c.csv   and each of the others against a: DeLong's test
                          of the AUC, the paired bootstrap by group of the rest
  python -m src score truth.csv a.csv b.csv --metric tpr@fpr=1%   a and b by that
  python -m src score truth.csv a.csv --columns id=image label=gt group=video score=p1 --fake 0

truth.csv: an id and a label, perhaps a group (what belongs together: a video) and a domain.
The others: an id and a prob (of fake), logit, score or label, in any order; joined by id.""")
def _score(parser: Parser) -> None:
    add = parser.add_argument
    add("truth", type=Path, metavar="TRUTH", help="a CSV of an id and a label")
    add("files", type=Path, nargs="+", metavar="FILE", help="CSVs of an id and a score or a label")
    text = "what is better is said by this (default: macro_f1; auc where there are no decisions)"
    add("--metric", metavar="NAME", help=text)
    text = "fake from there on: of P(fake), or of scores that are none (default: 0.5, of P(fake))"
    add("--threshold", type=float, metavar="T", help=text)
    add("--fake", metavar="WORD", help="which of the two labels is fake, where that is not clear")
    text = "of which class higher scores are, where no column's name says so (default: fake)"
    add("--higher", choices=["fake", "real"], default="fake", help=text)
    text = "which column is the id, label, group, domain, prob, logit or score, where unclear"
    add("--columns", nargs="+", default=[], metavar="KEY=NAME", help=text)
    add("--common", action="store_true", help="score the items that are in all files")
    add("--output", type=Path, metavar="CSV", help="write the table there too")


@command("""Train many ways in one go, and hold them against each other.

  python -m src compare configs/comparisons/transfer.yaml --data A --out-of-domain B C
  python -m src compare transfer               by name; what is finished is not trained again

Every row of the file is trained as a variant of its own, scored out-of-fold on A (in-domain) and
by the same checkpoints and thresholds on B and C (out-of-domain). Writes a table and a plot to
reports/<data set>/<scheme>/comparisons/. docs/comparisons.md says what a file holds.""")
def _compare(parser: Parser) -> None:
    add = parser.add_argument
    add("comparison", metavar="FILE", help="a .yaml file, or its name")
    add("--folds", type=int, nargs="+", metavar="K", help="in place of the file's `folds`")
    add("--out-of-domain", nargs="+", metavar="NAME", help="in place of the file's `out_of_domain`")
    add("--weights", type=Path, metavar="FILE", help="in place of the file's `weights`")
    add_data(parser)
    add_compute(parser)
    add_hours(parser, "stop before this is over; the same command goes on from there")


@command("""Export the checkpoints of a model, and hold each file against eager torch.

  python -m src export effnet_b0                                    ONNX, fp32
  python -m src export effnet_b0 --engine openvino --precision bf16
  python -m src export effnet_b0 --engine openvino --precision int8 --fold 0

Then: python predict_ensemble.py --engine openvino [--precision bf16]. Each file is checked on items
that its checkpoint never saw: AUC, macro-F1 at 0.5, the largest difference of a logit.""")
def _export(parser: Parser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model with finished folds")
    add("--fold", metavar="K", help="one fold, or all; default: every finished one")
    add("--engine", default="onnx", choices=["onnx", "openvino"])
    add("--precision", default="fp32", choices=["fp32", "bf16", "int8"])
    add("--items", type=int, default=512, metavar="N", help="held-out items of the check")
    add("--overwrite", action="store_true", help="export again")
    add_data(parser)


@command("""Pack a recipe with all that it predicts with, for a machine without internet.

  python -m src bundle tuned --data my_competition      bundles/my_competition/tuned.zip

Code, configs, recipe, fold file, out-of-fold CSVs and the checkpoints that the recipe uses;
for members that crop faces, the detector and its weights too.
docs/kaggle.md says how it is used in a Kaggle notebook.""")
def _bundle(parser: Parser) -> None:
    add = parser.add_argument
    add("recipe", nargs="?", metavar="RECIPE", help="default: tuned, or the only")
    add("--data", metavar="NAME", help="data set, a folder of input/ (or: demo)")
    add("--output", type=Path, metavar="FILE.zip", help="where to write it")


@command("""Keep submissions/log.csv: what was handed in, what it promised, what it scored.

  python -m src submit-log                                   the book, and its plot
  python -m src submit-log --data D --recipe tuned           add a submission
  python -m src submit-log --data D --recipe tuned --public 0.9312    ... and its public score
  python -m src submit-log --data D --recipe tuned --upload COMPETITION -m "five folds"

Uploading goes through Kaggle's own client (pip install kaggle), set up with your token.""")
def _submit_log(parser: Parser) -> None:
    add = parser.add_argument
    add("--data", metavar="NAME", help="data set of the submission")
    add("--recipe", metavar="NAME", help="its recipe")
    add("--public", type=float, metavar="SCORE", help="public leaderboard score")
    add("--upload", metavar="COMPETITION", help="hand it in, then write it down")
    add("-m", "--message", default="", metavar="TEXT", help="a note")
