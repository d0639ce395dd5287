"""What this process has answered: the newest of it, in memory alone."""

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

from src.evidence.evidence import FileEvidence

MOST_BYTES = 64 * 2**20  # of pictures


@dataclass(frozen=True)
class Answered:
    """One answer."""

    key: str  # in its address; nobody guesses it
    at: float  # seconds since 1970
    evidence: FileEvidence

    @property
    def clock(self) -> str:
        """When it was, by the server's clock."""
        return time.strftime("%H:%M:%S", time.localtime(self.at))


class History:
    """The newest answers; older ones make room.

    Args:
        most: answers; 0 keeps none.
        most_bytes: of their pictures together.
    """

    def __init__(self, most: int, most_bytes: int = MOST_BYTES) -> None:
        self.most, self.most_bytes = most, most_bytes
        self.bytes = 0
        self._answers: OrderedDict[str, Answered] = OrderedDict()

    def add(self, evidence: FileEvidence) -> str | None:
        """Keep an answer; returns its key, None where none are kept."""
        if not self.most:
            return None
        key = secrets.token_hex(8)
        self._answers[key] = Answered(key, time.time(), evidence)
        self.bytes += _size(evidence)
        while len(self._answers) > self.most or (
            self.bytes > self.most_bytes and len(self._answers) > 1
        ):
            self.bytes -= _size(self._answers.popitem(last=False)[1].evidence)
        return key

    def get(self, key: str) -> Answered | None:
        """Return an answer, None where it is gone."""
        return self._answers.get(key)

    def newest(self) -> list[Answered]:
        """Return all answers, the newest first."""
        return list(reversed(self._answers.values()))

    def clear(self) -> None:
        """Forget all."""
        self._answers.clear()
        self.bytes = 0


def _size(evidence: FileEvidence) -> int:
    return sum(map(len, evidence.pictures.values()))
