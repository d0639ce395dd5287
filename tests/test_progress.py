"""How far along things are, on a terminal and in a log."""

import io
import logging
import sys

import pytest

from src import progress
from src.progress import track


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Tell that somebody looks."""
        return True


@pytest.mark.parametrize("seconds", [-1.0, 1000.0])
def test_what_else_is_to_be_shown_is_asked_only_when_it_is_shown(monkeypatch, caplog, seconds):
    caplog.set_level(logging.INFO, "rvf")
    monkeypatch.setattr(progress, "LOG_SECONDS", seconds)
    monkeypatch.setattr(progress, "BAR_SECONDS", seconds)
    asked = []

    def said():
        asked.append(1)
        return f"loss {len(asked)}"

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(track("ab", "epoch 1/2", unit="batch", said=said)) == ["a", "b"]
    assert len(asked) == (2 if seconds < 0 else 0)
    assert ("epoch 1/2: 2/2" in caplog.text) == ("left, loss 2" in caplog.text) == (seconds < 0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    asked.clear()
    assert list(track("abc", "epoch 1/2", said=said)) == ["a", "b", "c"]
    assert len(asked) == (3 if seconds < 0 else 0)


def test_a_total_that_was_too_small_is_no_longer_told(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "rvf")
    monkeypatch.setattr(progress, "LOG_SECONDS", -1.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(track("abc", "epoch 1/2", total=2)) == ["a", "b", "c"]
    assert ": 2/2, " in caplog.messages[1]
    assert ": 3/?, " in caplog.messages[2]
    assert "left" not in caplog.messages[2]
