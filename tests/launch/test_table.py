"""What a row says of a job: its rate from the log, or the first line of its error, once."""

from pathlib import Path

import pytest

from src.launch.table import FAILED, JobRow, cells, count, error_of, last_part, progress_of

HEAD = "=== 2026-01-02 03:04:05 node7: ('train_folds.py',)\n"


def test_only_what_the_last_start_said_counts(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text(f"{HEAD}error: of yesterday\n{HEAD}epoch 1/4: all well\n")
    assert last_part(log) == "epoch 1/4: all well\n"
    assert last_part(tmp_path / "none.log") == ""


def test_progress_is_epoch_and_rate_else_the_last_line() -> None:
    epoch = "epoch 3/10: loss 0.1 | held out at 0.5: f1 0.9 | 512 img/s 3 s"
    inside = "epoch 4/10: 30/100, 5.1 batch/s, 13 s left, loss 0.2"
    assert progress_of(f"start\n{epoch}\n") == "epoch 3 of 10, 512 img/s"
    assert progress_of(f"{epoch}\n{inside}\n\n") == "epoch 4 of 10, 5.1 batch/s"
    assert progress_of("a\nreading\n") == "reading"
    assert progress_of("") == ""


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("a line\nerror: no such model\nmore\n", 2, "no such model"),
        (
            'Traceback (most recent call last):\n  File "x", line 1\n    y\nKeyError: 7\nlast\n',
            1,
            "KeyError: 7",
        ),
        ("quiet\n", -9, "killed by signal 9, as the system does when memory runs out"),
        ("bash: python: not found\n", 127, "exit code 127: bash: python: not found"),
    ],
)
def test_the_error_is_our_message_or_what_was_raised(text: str, code: int, said: str) -> None:
    assert error_of(text, code) == said


def test_a_message_that_jobs_share_stands_once() -> None:
    rows = [JobRow("a", FAILED, "SLURM job 7: the disk is full"), JobRow("b", "done")]
    rows += [JobRow("c", FAILED, "SLURM job 12: the disk is full"), JobRow("d", FAILED, "other")]
    assert [row[3] for row in cells(rows)[1:]] == [
        "SLURM job 7: the disk is full", "", "as a", "other",
    ]  # fmt: skip
    assert count(rows) == "1 done, 3 failed"
