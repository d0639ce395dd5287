"""A running Ray cluster: each job a task of it, which starts one command and returns by value."""

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from src.artifacts.packages import is_installed
from src.errors import UserError
from src.launch import child
from src.launch.child import JobOrder, out_of_sight, run_order
from src.launch.engines.base import (
    ENGINES,
    SIGHT_SECONDS,
    JobEngine,
    Resources,
    missing_package,
)

USUAL_CORES = 4  # of a job, or of each of its cards
PORT_SECONDS = 5.0  # that a cluster may take to answer
NODE_SECONDS = 120.0  # that a node may take to start a worker
ENDING_SECONDS = 60.0  # that a cancelled job may take to save


@ENGINES.register("ray")
class OnRay(JobEngine):
    """Tasks on a cluster that somebody has started; Ray queues what there is no room for."""

    sight_seconds = SIGHT_SECONDS

    def __init__(self, wanted: Resources) -> None:
        super().__init__(wanted)
        self._ray: Any = None
        self._waiting: list[JobOrder] = []  # for room among `--jobs`
        self._refs: dict[str, Any] = {}
        self._words: dict[str, str] = {}

    @property
    def cores(self) -> int:
        """The cores that each job gets."""
        return self.wanted.cores or USUAL_CORES * max(1, self.cards)

    def check(self) -> None:
        """Connect, and hold what a job asks for against what the nodes have."""
        if not is_installed("ray"):
            raise missing_package("ray", "ray")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before it is imported
        os.environ["RAY_DEDUP_LOGS"] = "0"
        import ray

        self._ray = ray
        try:
            _check_port(self.wanted.address)
            ray.init(
                address=self.wanted.address, log_to_driver=False, logging_level=logging.ERROR,
                configure_logging=False,
            )  # fmt: skip
        except (OSError, RuntimeError, ValueError) as error:  # none, another version, no address
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"--on ray finds no cluster at {self.wanted.address!r}: {reason}. Start one (ray "
                "start --head --disable-usage-stats), or name it (--ray-address HOST:6379)"
            ) from None
        self._check_room()

    def _check_room(self) -> None:
        """Raise a UserError where no node could ever hold one job: it would stay pending."""
        cards, nodes = self.wanted.cards or 0, [n for n in self._ray.nodes() if n["Alive"]]
        rooms = [(n["Resources"].get("CPU", 0), n["Resources"].get("GPU", 0)) for n in nodes]
        if not any(cpu >= self.cores and gpu >= cards for cpu, gpu in rooms):
            most = ", ".join(f"{cpu:g} cores and {gpu:g} GPUs" for cpu, gpu in rooms)
            raise UserError(
                f"a job wants {self.cores} cores and {cards} GPUs, and no node of this Ray cluster "
                f"has them ({most}): --cpus-per-job N, --gpus-per-job N"
            )

    def start(self, orders: Sequence[JobOrder]) -> None:
        """Hand jobs to Ray, once every node has shown that it sees our files."""
        self._check_files(orders[0])
        self._waiting += orders
        self._hand_in()

    def _check_files(self, order: JobOrder) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = self._remote(out_of_sight, num_cpus=0)
        asked = {}
        for node in [node for node in self._ray.nodes() if node["Alive"]]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            ref = look.options(scheduling_strategy=there).remote(order)
            asked[ref] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        _, silent = self._ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
        if silent:
            for ref in silent:
                self._ray.cancel(ref, force=True)
            raise UserError(
                f"no process begins on {', '.join(asked[ref] for ref in silent)} within "
                f"{NODE_SECONDS:g} s: is python {sys.version_info.major}.{sys.version_info.minor} "
                "with this Ray there, and is its log quiet (/tmp/ray/session_latest/logs)? Take "
                "the node out of the cluster (ray stop), or mend it"
            )
        try:
            blind = [why for why in self._ray.get(list(asked)) if why]
        except self._ray.exceptions.RayError as error:
            raise UserError(f"a node of the Ray cluster fails: {_first_line(error)}") from None
        if blind:
            raise UserError(blind[0])

    def _remote(self, function: Any, **asked: float) -> Any:  # noqa: ANN401 - Ray's
        # By value: a node finds `src` on no path, and gets no copy of the working folder.
        self._ray.cloudpickle.register_pickle_by_value(child)
        return self._ray.remote(max_retries=0, max_calls=1, **asked)(function)

    def _hand_in(self) -> None:
        work = self._remote(run_order, num_cpus=self.cores, num_gpus=self.wanted.cards or 0)
        while self._waiting and (not self.wanted.jobs or len(self._refs) < self.wanted.jobs):
            order = self._waiting.pop(0)
            self._refs[order.name] = work.options(name=order.name).remote(order)

    def alive(self) -> dict[str, str]:
        """Return the jobs that Ray has not ended."""
        for name, ref in list(self._refs.items()):
            ended, _ = self._ray.wait([ref], timeout=0)
            if ended:
                del self._refs[name]
                self._words[name] = self._result(ref)
        self._hand_in()
        return dict.fromkeys(self._refs, "Ray") | {o.name: "" for o in self._waiting}

    def _result(self, ref: Any) -> str:  # noqa: ANN401 - Ray's
        try:
            return str(self._ray.get(ref))
        except self._ray.exceptions.RayError as error:  # a node died, or what runs ours
            return f"Ray: {type(error).__name__}: {_first_line(error)}"

    def last_words(self, name: str) -> str:
        """Say what Ray says of a job's end."""
        return self._words.get(name, "")

    def stop(self) -> None:
        """Cancel the jobs, and wait until their commands have saved."""
        self._waiting.clear()
        for ref in self._refs.values():
            self._ray.cancel(ref, force=False)
        until = time.monotonic() + ENDING_SECONDS
        while self._refs and time.monotonic() < until:
            self.alive()
            time.sleep(0.5)

    def close(self) -> None:
        """Leave the cluster."""
        if self._ray is not None:
            with suppress(Exception):
                self._ray.shutdown()


def _first_line(error: Exception) -> str:
    """Return the first line of an error of Ray's, without its colours."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
    return (text.splitlines() or [""])[0]


def _check_port(address: str) -> None:
    """Raise an OSError where nothing listens at HOST:PORT: Ray itself would ask for minutes."""
    host, sign, port = address.rpartition(":")
    if sign and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=PORT_SECONDS).close()
