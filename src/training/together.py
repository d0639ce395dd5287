"""That ranks of one run do the same: code, config, folds and items alike, and one disk for all."""

import hashlib
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.atomic import disk_errors
from src.artifacts.files import sha256_file
from src.compute import device, ranks
from src.errors import UserError
from src.training.job import Job, config_sha256

ALIKE = {
    "code": "the code (src/)",
    "config": "the model's config",
    "folds": "the fold file",
    "items": "the data set's items",
    "pseudo": "the pseudo-labels",
}


def check_batch(job: Job) -> None:
    """Raise a UserError where a batch has fewer items than there are ranks."""
    size, count = job.config.optim.batch_size, ranks.count()
    if count > size:
        raise UserError(
            f"{count} ranks and optim.batch_size {size}: each rank trains on a part of every "
            f"batch, and some would have none. Start at most {size} (--ddp {size}, or "
            "--nproc_per_node), or train a variant of larger batches: --set optim.batch_size="
            f"{count} --as NAME"
        )


def check_alike(job: Job) -> None:
    """Check that all ranks are about to train the same, each on a chip of its own.

    Raises:
        UserError: one has other code, or another config, fold file or items, or two have one card;
            names its host.
    """
    if ranks.count() == 1:
        return
    taken: dict[str, str] = {}
    for host, card in ranks.gathered((ranks.host(), device.card_id(job.options.chip))):
        if card and taken.setdefault(card, host) != host:
            raise UserError(
                f"{host} and {taken[card]} have one card: each rank needs its own; start as many "
                "ranks as there are cards, and let the scheduler give one to each"
            )
    config, folds = config_sha256(job.config), job.folds_sha256
    own = {"code": _code_sha256(), "config": config, "folds": folds, "items": job.data_sha256}
    own["pseudo"] = str(job.pseudo)
    every = ranks.gathered((ranks.host(), own))
    wanted = every[0][1]
    for host, found in every[1:]:
        differs = [words for key, words in ALIKE.items() if found[key] != wanted[key]]
        if differs:
            raise UserError(
                f"{host} and {every[0][0]} differ in {', '.join(differs)}: all ranks of a run must "
                "have the same, so bring the machines to one state (git pull, the same data), then "
                "type the same command"
            )


def check_shared(home: Path) -> None:
    """Check that all ranks see one folder of artefacts.

    Raises:
        UserError: one does not see what the leading one writes there.
    """
    if ranks.count() == 1:
        return

    def leave() -> str:
        with disk_errors(home):
            home.mkdir(parents=True, exist_ok=True)
            mark = home / f".ranks_{uuid.uuid4().hex[:12]}.tmp"
            mark.touch()
        return mark.name

    mark = ranks.led(leave)
    with suppress(OSError):
        list(home.iterdir())  # a network disk looks again
    every = ranks.gathered((ranks.host(), (home / mark).exists()))
    if ranks.leads():
        (home / mark).unlink(missing_ok=True)
    blind = [host for host, sees in every if not sees]
    if blind:
        raise UserError(
            f"{', '.join(blind)}: {home} is not the folder that {every[0][0]} writes to. Ranks of "
            "one run need one folder of artefacts on all machines: put it on a shared disk and let "
            "RVF_ROOT say where, or train on one machine"
        )


@cache
def _code_sha256() -> str:
    """Return the fingerprint of all Python files of `src`."""
    digest = hashlib.sha256()
    for path in sorted((paths.REPO / "src").rglob("*.py")):
        digest.update(f"{path.relative_to(paths.REPO)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def not_finite(job: Job, epoch: int, seen: list[tuple[Any, Any]]) -> UserError:
    """Return the error of a loss or gradient that is not finite, naming items, of all ranks'.

    `seen` are the loss, () and the rows, int64 (n,), of each batch of the step.
    """
    own = [(float(loss), rows.tolist()) for loss, rows in seen]
    every = [one for each in ranks.gathered(own) for one in each]
    broken = [(loss, rows) for loss, rows in every if not abs(loss) < float("inf")]
    what = f"loss is {broken[0][0]}" if broken else "gradient is nan"
    rows = [row for _, some in broken or every for row in some]
    ids = job.table["item_id"].iloc[rows].tolist()
    return UserError(
        f"epoch {epoch}: the {what}; stopped before the step. Items of the batch: "
        f"{', '.join(ids)}. Start again with --overwrite --precision fp32, or train a calmer "
        "variant under its own name: --set optim.lr=... --as NAME"
    )
