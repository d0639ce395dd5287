"""Several processes (ranks) on one fold: who they are, and what they tell each other.

The one place that knows torch.distributed. `torchrun` says in the environment which rank of how
many a process is; a process without that is alone, and everything here then does nothing, at no
cost. Loads torch when a group is joined, not before.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from src import progress
from src.compute.heartbeat import Heartbeat
from src.data.batches.share import Share
from src.errors import UserError

if TYPE_CHECKING:  # a command that is alone loads torch when it computes
    import torch
    from torch import Tensor, nn

SAID = "RVF_RANK_SAID"  # variable: the file in which a rank that ends leaves its exit code
# What is agreed on may wait for a rank that decodes for hours: whether it lives, `Heartbeat` tells.
PATIENCE = timedelta(days=30)
STEP = timedelta(minutes=30)  # what goes by tensors is of one step: who is so late hangs
JOINING = timedelta(minutes=10)  # until all ranks are there
# What torch says where another rank is gone. Of words alone a defect, or a network disk's trouble,
# would pass for one: see `_lost`.
LOST = (
    "closed by peer", "reset by peer", "broken pipe", "connection refused", "pair closure",
    "timed out", "timing out", "timeout", "remote process exit", "remote peer",
)  # fmt: skip
ENDED = (
    "another rank has ended without a word (killed? its machine lost?), so this one ends too; the "
    "same command, with as many ranks or with others, goes on from what was saved"
)
T = TypeVar("T")


@dataclass
class _Group:
    """The ranks of this run."""

    rank: int
    ranks: int
    store: Any  # of torch: what outlives a rank, for torchrun keeps it
    tensors: Any = None  # the group that tensors go by; None, until `use`, is the default's
    alone: bool = False  # what is done now is done by each for itself


_group: _Group | None = None


def asked() -> int:
    """Return how many ranks the environment speaks of; 1 in a process of its own."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def count() -> int:
    """Return how many ranks work together."""
    return 1 if _group is None or _group.alone else _group.ranks


def rank() -> int:
    """Return which of them this process is; 0 leads."""
    return 0 if _group is None or _group.alone else _group.rank


def leads() -> bool:
    """Tell whether this process writes the files and the log."""
    return rank() == 0


def local() -> int:
    """Return which rank of its machine this process is, and so which card is its own."""
    return int(os.environ.get("LOCAL_RANK", "0")) if count() > 1 else 0


def neighbours() -> int:
    """Return how many ranks share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(count()))) if count() > 1 else 1


def by_torchrun() -> bool:
    """Tell whether torchrun started this process, and not a scheduler."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def host() -> str:
    """Return what this rank is called in messages."""
    return f"rank {rank()} on {socket.gethostname()}"


@contextmanager
def member() -> Iterator[None]:
    """Work as one of the ranks of which the environment speaks; alone where it speaks of none.

    All but the leading rank write nothing to standard output and show no progress.
    """
    global _group
    if asked() == 1 or _group is not None:
        yield
        return
    # torch says in C++ that it looks for weights without a part, and found none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from torch import distributed

    number, ranks = int(os.environ["RANK"]), asked()
    if SAID in os.environ and sys.platform == "linux":  # else they would outlive who started them
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosts = number == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")

    def connected(*, keeps: bool) -> Any:  # noqa: ANN401 - torch's, without a public type
        store = distributed.TCPStore(  # type: ignore[attr-defined]
            address, port, ranks, keeps, JOINING, wait_for_workers=False
        )
        return distributed.PrefixStore(f"rvf/{attempt}", store)  # type: ignore[attr-defined]

    try:
        store, beats = connected(keeps=hosts), connected(keeps=False)
        store.set(f"here/{number}", "1")  # torch itself would wait as long as for a decision
        store.wait([f"here/{each}" for each in range(ranks)], JOINING)
        distributed.init_process_group(
            "gloo", store=store, rank=number, world_size=ranks, timeout=PATIENCE
        )
    except (distributed.DistNetworkError, distributed.DistStoreError) as error:
        raise UserError(
            f"rank {number} of {ranks} on {socket.gethostname()} does not find all of the others "
            f"by {address}:{port} (MASTER_ADDR, MASTER_PORT): {str(error).splitlines()[0]}"
        ) from None
    _group = _Group(number, ranks, store)
    heart = Heartbeat(beats, number, ranks, lambda: _ends(beats, 1, None) is None)
    heard = sys.stdout
    if number:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as it works
        progress.SHOWN = False
    yield  # a rank that fails leaves the group when its process ends: see `told`
    sys.stdout, progress.SHOWN = heard, True
    distributed.barrier()
    heart.stop()
    distributed.destroy_process_group()
    _group = None


def told(code: int, error: BaseException) -> tuple[int, str | None]:
    """Return by which exit code a rank that met an error ends, and whether it says why.

    Of the ranks that end because one of them does, the first to ask is the one whose error it was:
    it alone is to be heard, and all take its code.

    Returns:
        The exit code, and what is to be said in place of the error's own words: None for these, ""
        for nothing.
    """
    group = _group
    if group is None:
        return code, None
    group.alone = True  # nobody is there to agree with any more
    if asked() > 1:  # torchrun ends whoever is left, and this one ends, as soon as it has told
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    lost = _lost(error) if code == 1 else None
    try:
        other = _ends(group.store, code, lost)
    except RuntimeError:  # torchrun is gone, and what was told
        return code, ""
    if other is not None:
        return other, ""
    if lost is None:
        return code, None
    return code, "" if SAID in os.environ else f"{ENDED} ({lost})"


def _ends(store: Any, code: int, lost: str | None) -> int | None:  # noqa: ANN401
    """Tell that this rank ends; returns the code of the one that did before, None where none did.

    `lost` says by what another rank was missed. The first to end leaves both to who started it.
    """
    mark = uuid.uuid4().hex
    # In one step: whoever is killed between two would leave the others to wait for the second.
    first, found = json.loads(store.compare_set("ends", "", json.dumps([mark, code])))
    if first != mark:
        return int(found)
    if SAID in os.environ:
        text = json.dumps({"code": code, "lost": lost})
        Path(os.environ[SAID]).write_text(text, encoding="utf-8")
    return None


def _lost(error: BaseException) -> str | None:
    """Return what torch says where its talk with a rank failed because that is gone; else None."""
    from torch import distributed

    words = str(error)
    plain = type(error) is RuntimeError and "gloo" in words  # of C++: its file stands in it
    if not plain and not isinstance(error, distributed.DistError):
        return None
    return words.splitlines()[0] if any(one in words.lower() for one in LOST) else None


@contextmanager
def leader_first() -> Iterator[None]:
    """Let the leading rank do the block before the others do, each as if it were alone.

    What the first one leaves on disk (a list of files, a download) the others find there.
    """
    group = _group
    if group is None or count() == 1:
        yield
        return
    if not leads():
        _passed(None)
    group.alone = True
    try:
        yield
    except UserError as error:
        group.alone = False
        if leads():
            _passed(error)
        raise
    finally:
        group.alone = False
    if leads():
        _passed(None)


def led(work: Callable[[], T]) -> T:
    """Return what the leading rank's `work` returns, or raise its UserError, on all ranks."""
    if count() == 1:
        return work()
    if not leads():
        return _passed(None)
    try:
        found = work()
    except UserError as error:
        _passed(error)
        raise
    return _passed(found)


def _passed(thing: Any) -> Any:  # noqa: ANN401
    """Return what the leading rank gave; a UserError that it gave is raised by the others."""
    from torch import distributed

    box = [thing]
    distributed.broadcast_object_list(box, 0)
    if isinstance(box[0], UserError) and not leads():
        raise box[0]
    return box[0]


def gathered(thing: T) -> list[T]:
    """Return what each rank gave, in their order."""
    if count() == 1:
        return [thing]
    from torch import distributed

    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, thing)
    return found


def in_turns(things: Iterable[T], total: int) -> Iterator[T]:
    """Yield on the leading rank, in order, what all ranks make of `total` things; else nothing.

    Rank r makes the r-th of each round, so that `things` are its own: `all_of[rank()::count()]`.
    """
    if count() == 1:
        yield from things
        return
    own = iter(things)
    for _ in range(-(-total // count())):
        found = gathered((one,) if (one := next(own, None)) is not None else ())
        if leads():
            for thing in found:
                yield from thing


def use(chip: "torch.device") -> None:
    """Let tensors of a device go from rank to rank by what is fastest there."""
    group = _group
    if count() == 1 or group is None or group.tensors is not None:
        return
    from torch import distributed

    backend = "nccl" if chip.type == "cuda" else "gloo"
    group.tensors = distributed.new_group(backend=backend, timeout=STEP)


def own_share() -> Share:
    """Return this rank's places of every batch."""
    return Share(rank(), count(), whole_batch) if count() > 1 else Share()


def whole_batch(own: "Tensor", total: int) -> "Tensor":
    """Return the rows of all ranks, (total, ...), of which each has its `Share`."""
    import torch
    from torch import distributed

    assert _group is not None
    parts = [Share(each, count()).of(total) for each in range(count())]
    sizes = [part.stop - part.start for part in parts]
    filled = own.new_zeros((max(sizes), *own.shape[1:]))
    filled[: len(own)] = own
    found = [torch.empty_like(filled) for _ in parts]
    distributed.all_gather(found, filled, group=_group.tensors)
    return torch.cat([one[:size] for one, size in zip(found, sizes, strict=True)])


def summed(own: "Tensor") -> "Tensor":
    """Return the sum of a tensor over the ranks, in its place; no gradient flows."""
    if count() > 1:
        from torch import distributed

        assert _group is not None
        distributed.all_reduce(own, group=_group.tensors)
    return own


def tensor_group() -> Any:  # noqa: ANN401 - torch's, which has no public type
    """Return the group that tensors go by, for torch's own layers."""
    return None if _group is None else _group.tensors


def reducing(module: "nn.Module") -> "nn.Module":
    """Return a module whose backward pass leaves the mean gradient of all ranks in its weights.

    It is to be called with a batch and to return its loss alone: which weights had no part in it is
    found out from there, and these keep no gradient on any rank, as in one process. Buffers are not
    sent: they are equal, for BatchNorm looks at the whole batch.
    """
    from torch.nn.parallel import DistributedDataParallel

    assert _group is not None
    # Of weights with a side of one, in pieces of a batch: torch copies these, and would say so.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # To look for weights without a part costs next to nothing where there are none, and is right.
    return DistributedDataParallel(
        module,
        process_group=_group.tensors,
        broadcast_buffers=False,
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
    )


class Pulse:
    """What ranks tell each other with every step: read a step later, so that nobody waits for it.

    All of them read the same, so they stop, save and change their pace at the same step.
    """

    def __init__(self, values: int) -> None:
        self.values = values
        self._sent: Tensor | None = None
        self._work: Any = None

    def beat(self, *own: float) -> tuple[float, ...]:
        """Tell the others, and return the highest of what all told one beat before; 0 at first.

        Alone, what is told is returned at once.
        """
        if count() == 1:
            return own
        import torch
        from torch import distributed

        before = self.rest()
        self._sent = torch.tensor(own, dtype=torch.float64)
        self._work = distributed.all_reduce(self._sent, distributed.ReduceOp.MAX, async_op=True)
        return before

    def rest(self) -> tuple[float, ...]:
        """Return what the last beat told, that has not been read; 0 where none was."""
        if self._sent is None:
            return (0.0,) * self.values
        self._work.wait()
        found, self._sent = tuple(self._sent.tolist()), None
        return found
