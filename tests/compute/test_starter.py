"""`--ddp`: how a command ends whose ranks have ended."""

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import api

from src.compute import ranks, starter
from src.errors import UserError

KILLED = r"^rank 1 of 2 was ended by SIGKILL \(memory that ran out\?\); the same command"
ERROR = r"^rank 0 of 2 was ended by an error \(gloo: closed by peer\); the same command"
GLOO = "gloo: closed by peer"


@pytest.mark.parametrize(
    ("said", "codes", "ends"),
    [
        ({"code": 2, "lost": None}, {0: 2, 1: -15}, 2),
        ({"code": 1, "lost": None}, {0: 1}, 1),  # its traceback was printed, or a silent rank
        ({"code": 1, "lost": GLOO}, {0: 1, 1: -9}, KILLED),
        ({"code": 1, "lost": GLOO}, {0: 1, 1: 1}, ERROR),
        (None, {1: -9}, KILLED),
    ],
)
def test_ranks_that_failed_are_said_once(monkeypatch, said, codes, ends):
    def launched(*_):
        if said:
            Path(os.environ[ranks.SAID]).write_text(json.dumps(said))
        failures = {rank: SimpleNamespace(exitcode=code) for rank, code in codes.items()}
        error = ChildFailedError.__new__(ChildFailedError)
        error.failures = failures
        error.get_first_failure = lambda: next(iter(failures.items()))
        raise error

    monkeypatch.setenv(ranks.SAID, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(logging, "disable", lambda _: None)
    monkeypatch.setattr(api, "elastic_launch", lambda *_: launched)
    if isinstance(ends, int):
        with pytest.raises(SystemExit) as ended:
            starter.start(2, [])
        assert ended.value.code == ends
    else:
        with pytest.raises(UserError, match=ends):
            starter.start(2, [])
