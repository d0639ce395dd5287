"""What is said where ranks end, and which card each takes."""

import errno
import os
import signal
import socket
import time
from contextlib import suppress
from datetime import timedelta

import pytest
import torch
from torch import distributed

from src.cli.common import run_command
from src.compute import clock as clock_module
from src.compute import device, heartbeat, ranks
from src.compute.clock import Clock
from src.errors import UserError
from tests.ranks import run_ranks

GLOO = RuntimeError(
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:5"
)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (GLOO, True),
        (RuntimeError("[.../gloo/transport/tcp/buffer.cc:72] Timed out waiting 1800000ms"), True),
        (distributed.DistBackendError("NCCL error: remote process exited or there was"), True),
        (distributed.DistBackendError("NCCL error: Duplicate GPU detected : rank 1"), False),
        (RuntimeError("gloo: op.preamble.length <= op.nbytes. 8 vs 4"), False),
        (RuntimeError("DataLoader timed out after 30 seconds"), False),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), False),
        (TimeoutError("The read operation timed out"), False),
    ],
)
def test_a_defect_that_speaks_of_a_network_keeps_its_traceback(monkeypatch, error, lost):
    group = ranks._Group(0, 2, distributed.HashStore())
    monkeypatch.setattr(ranks, "_group", group)

    def command(_):
        raise error

    if lost:
        code, said = ranks.told(1, error)
        assert (code, said) == (1, f"{ranks.ENDED} ({error})")
    else:
        with pytest.raises(type(error)) as raised:
            run_command(command, [])
        assert raised.value is error
    assert ranks.told(1, ValueError("the second to end")) == (1, "")


def test_a_rank_that_is_stopped_is_missed_and_all_end(monkeypatch):
    """As a machine without power: its sockets stay open, and nobody is told."""
    monkeypatch.setattr(heartbeat, "EVERY", 0.05)
    monkeypatch.setattr(heartbeat, "SILENT", 10)

    def work(number):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)  # else a rank that is not missed would wait for ever
        ranks.gathered(number)
        if number == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        ranks.gathered(number)

    codes, said = run_ranks(3, work)
    assert codes == [1, 1, -signal.SIGKILL]
    assert said.startswith("nothing was heard of rank 2 on ")
    assert said.count("heard of") == 1
    assert "goes on from what was saved" in said
    assert len(said.splitlines()) == 1


def test_a_signal_while_it_is_told_why_a_rank_ends_costs_no_other_rank_its_end():
    """torchrun hands a signal on at its own time: also when a rank is about to end by it."""

    def work(number):
        with suppress(RuntimeError):
            ranks.gathered(number)
        tell = ranks._ends

        def late(*given):
            os.kill(os.getpid(), signal.SIGTERM)
            return tell(*given)

        ranks._ends = late
        raise UserError("the first to end")

    codes, said = run_ranks(2, work)
    assert (codes, said) == ([2, 2], "error: the first to end")


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_are_not_all_there_are_told(monkeypatch, rank):
    """The first keeps what they meet by; the second knocks where nobody is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(ranks, "JOINING", timedelta(seconds=0.5))
    words = rf"rank {rank} of 2 on \S+ does not find all of the others by 127.0.0.1:{port} \(MASTER"
    with pytest.raises(UserError, match=words), ranks.member():
        pass
    assert ranks.count() == 1


def test_ranks_that_work_long_are_not_missed(monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY", 0.05)
    monkeypatch.setattr(heartbeat, "SILENT", 10)

    def work(number):
        with ranks.leader_first():
            time.sleep(0.0 if number else 1.0)

    assert run_ranks(2, work) == ([0, 0], "")


def test_a_signal_that_is_handed_on_by_another_way_is_one(monkeypatch):
    def told_twice(clock):
        with clock.running(), clock.noting():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return clock.asked

    with pytest.raises(KeyboardInterrupt):  # alone, a second one is impatience
        told_twice(Clock())
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(Clock, "heard", (0, 0.0))
    assert told_twice(Clock()) == signal.SIGTERM
    monkeypatch.setattr(Clock, "heard", (0, 0.0))
    heard = Clock()
    with heard.running(), heard.noting():
        heard.heed(signal.SIGTERM)  # another rank has had it already
        os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(clock_module, "REPEAT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        told_twice(Clock())


def test_a_rank_takes_the_card_of_its_number_or_the_only_one_it_is_given(monkeypatch):
    monkeypatch.setattr(ranks, "_group", ranks._Group(1, 2, None))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(device.torch, "ones", lambda *_, **__: torch.tensor([1.0]))
    for name, value in {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for cards, by_torchrun, wanted in [(2, True, 1), (8, False, 1), (1, False, 0)]:
        monkeypatch.setattr(torch.cuda, "device_count", lambda cards=cards: cards)
        monkeypatch.setattr(ranks, "by_torchrun", lambda by_torchrun=by_torchrun: by_torchrun)
        assert device.choose_device("auto") == torch.device(f"cuda:{wanted}")
    monkeypatch.setattr(ranks, "by_torchrun", lambda: True)
    with pytest.raises(UserError, match="2 ranks and 1 cards on this machine, one a rank"):
        device.choose_device("auto")
