"""How jobs stand: a row each, with the rate from a job's log or the first line of its error."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from src.compute.clock import in_words

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
TAIL = 1 << 16  # bytes of a log that are looked at
BEGINS = re.compile(r"(?m)^=== \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+: .*$")  # as `child` writes it
EPOCH = re.compile(r"epoch (\d+)/(\d+)")
RATE = re.compile(r"([\d.]+) (\w+)/s\b")
LONGEST = 160  # characters of a message in a row


@dataclass
class JobRow:
    """A job as the table shows it."""

    name: str
    state: str = WAITING
    note: str = ""
    seconds: float | None = None  # by records before it, as it was after it


def last_part(log: Path) -> str:
    """Return what a job's last start wrote, as far as it is looked at; "" where there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    begins = [found.end() for found in BEGINS.finditer(text)]
    return text[begins[-1] :].lstrip("\n") if begins else text


def progress_of(text: str) -> str:
    """Return how far a job's log says that it is: epoch and rate, or its last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        epoch, rate = EPOCH.search(line), RATE.search(line)
        if epoch:
            return f"epoch {epoch[1]} of {epoch[2]}" + (f", {rate[1]} {rate[2]}/s" if rate else "")
    return _short(lines[-1]) if lines else ""


def error_of(text: str, code: int | None) -> str:
    """Return the first line of a job's error: our own message, else what Python raised."""
    lines = text.splitlines()
    for line in lines:
        if line.startswith("error: "):
            return _short(line.removeprefix("error: "))
    for number, line in enumerate(lines):
        if line.startswith("Traceback (most recent call last)"):
            raised = [one for one in lines[number + 1 :] if one[:1].strip()]
            if raised:
                return _short(raised[0])
    if code is not None and code < 0:
        why = ", as the system does when memory runs out" if code == -9 else ""
        return f"killed by signal {-code}{why}"
    said = f": {_short(lines[-1])}" if lines else ""
    return f"exit code {code}{said}"


def _short(line: str) -> str:
    line = line.strip()
    return line if len(line) <= LONGEST else line[: LONGEST - 4] + " ..."


def cells(rows: Iterable[JobRow]) -> list[list[str]]:
    """Return the table, with its head; a message that several rows share stands in the first."""
    told: dict[str, str] = {}
    table = [["job", "state", "time", ""]]
    for row in rows:
        note, alike = row.note, re.sub(r"\d+", "#", row.note)  # numbers of jobs and folds differ
        if row.state == FAILED and alike in told:
            note = f"as {told[alike]}"
        elif row.state == FAILED:
            told[alike] = row.name
        table.append([row.name, row.state, in_words(row.seconds) if row.seconds else "", note])
    return table


def count(rows: Iterable[JobRow]) -> str:
    """Return how many jobs there are in each state."""
    states = [row.state for row in rows]
    order = (DONE, RUNNING, WAITING, STOPPED, FAILED)
    return ", ".join(f"{states.count(one)} {one}" for one in order if one in states)
