"""What an engine must be able to do, and what jobs may ask it for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from src.errors import UserError
from src.launch.child import JobOrder
from src.registry import Registry

SIGHT_SECONDS = 60.0  # NFS remembers what a folder held for up to that long (`acdirmax`)


@dataclass(frozen=True)
class Resources:
    """What each job gets, and how many run at once."""

    dataset: str  # whose jobs they are
    jobs: int | None = None  # at once; None leaves that to the engine
    cards: int | None = None  # GPUs of a job; None: one where there are some, on this machine
    cores: int | None = None  # of a job; None: the engine's usual
    slurm: Mapping[str, str] = field(default_factory=dict)  # flags of sbatch, as they are
    address: str = "auto"  # of the Ray cluster


class JobEngine(ABC):
    """A place where jobs run. Made with `Resources`; one object serves one launch."""

    pause = 1.0  # seconds between two looks
    detaches = False  # whether jobs go on when the launcher has left
    # seconds after which this machine surely sees what a job of another one wrote at its end
    sight_seconds = 0.0

    def __init__(self, wanted: Resources) -> None:
        self.wanted = wanted

    @property
    @abstractmethod
    def cores(self) -> int:
        """The cores that each job gets."""

    @property
    def cards(self) -> int:
        """The GPUs that each job gets."""
        return self.wanted.cards or 0

    @property
    def at_once(self) -> int | None:
        """How many jobs run at once; None where only the engine knows."""
        return self.wanted.jobs

    @abstractmethod
    def check(self) -> None:
        """Find out whether such jobs can run here at all, before anything is begun.

        Raises:
            UserError: a package, a command, a card or a cluster is missing.
        """

    def adopt(self, orders: Sequence[JobOrder]) -> set[str]:  # noqa: ARG002
        """Take over those that an earlier launcher handed in and that still live; their names."""
        return set()

    @abstractmethod
    def start(self, orders: Sequence[JobOrder]) -> None:
        """Take jobs; they begin at once, or when there is room for them.

        Raises:
            UserError: none can be taken.
        """

    @abstractmethod
    def alive(self) -> dict[str, str]:
        """Return what was taken and has not ended, by name, with what the engine says of it."""

    def last_words(self, name: str) -> str:  # noqa: ARG002
        """Say what the engine knows of a job that ended and left no word of its own."""
        return ""

    @abstractmethod
    def stop(self) -> None:
        """End all jobs as SIGTERM does (they save), and wait until they have ended."""

    def close(self) -> None:  # noqa: B027 - most have nothing to let go
        """Let go of what the engine holds."""


ENGINES: Registry[type[JobEngine]] = Registry("engine")


def missing_package(extra: str, package: str) -> UserError:
    """Make the error for an engine whose package is not installed."""
    return UserError(
        f"--on {extra} wants the package {package}, which is not installed: pip install {package}"
    )
