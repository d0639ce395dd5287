"""A SLURM cluster: each job a submission through submitit, judged by what it leaves behind.

SLURM is asked for little: `squeue` says which jobs live (accounting may be off, and then a job that
has ended is nowhere to be found). They are known by name, so that a launcher that comes later finds
those of an earlier one.
"""

import getpass
import hashlib
import importlib
import logging
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from src import paths
from src.artifacts.packages import is_installed
from src.errors import UserError
from src.launch import child
from src.launch.child import JobOrder, run_order
from src.launch.engines.base import (
    ENGINES,
    SIGHT_SECONDS,
    JobEngine,
    Resources,
    missing_package,
)

if TYPE_CHECKING:
    import submitit

COMMANDS = ("sbatch", "squeue", "srun", "scancel")
USUAL_CORES = 4  # of a job, or of each of its cards
USUAL_MINUTES = 24 * 60  # of a job, where no `time` is given
LEAST_MINUTES = 5  # SLURM signals up to a minute early, submitit asks for 90 s more
REQUEUES = 1000  # a job whose time is over goes on in the queue again, as often as it takes
LOG = logging.getLogger("rvf")
PAUSES = (1.0, 15.0)  # seconds between two looks: soon at first, then rarely
ENDING_SECONDS = 120.0  # that a cancelled job may take to save
ANSWER_SECONDS = 60.0  # that SLURM may take to answer
PRIVATE = 0o700  # submitit's files hold what jobs are told: commands and settings


class SlurmWork:
    """What submitit runs on a node: a command. Told that its time is over, it saves and queues."""

    def __init__(self, order: JobOrder) -> None:
        self.order = order

    def __call__(self) -> str:
        """Run the command to its end; returns why it could not begin."""
        self.process: subprocess.Popen[bytes] | None = None
        self.why, self.ended = "", Event()

        def work() -> None:
            try:
                self.why = run_order(self.order, own_group=False, begun=self._begun)
            finally:
                self.ended.set()

        # In a thread of its own, for `checkpoint` runs within the main one, wherever that is.
        thread = Thread(target=work)
        thread.start()
        while thread.is_alive():
            thread.join(1.0)
        return self.why

    def _begun(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def checkpoint(self) -> Any:  # noqa: ANN401 - submitit's
        """Let the command save; the same one goes on when SLURM starts the job again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
        self.ended.wait()
        return DelayedSubmission(SlurmWork(self.order))


@ENGINES.register("slurm")
class Slurm(JobEngine):
    """Submits jobs, and asks `squeue` about them."""

    detaches = True
    sight_seconds = SIGHT_SECONDS

    def __init__(self, wanted: Resources) -> None:
        super().__init__(wanted)
        self.home = paths.launch_dir(wanted.dataset) / "slurm"
        self.pause = PAUSES[0]
        self._waiting: list[JobOrder] = []  # for room: `--jobs`, or a quota
        self._names: dict[str, str] = {}  # SLURM's name -> ours
        self._ids: dict[str, str] = {}  # our name -> SLURM's number
        self._seen: dict[str, str] = {}
        self._living: set[str] = set()  # our names of jobs that SLURM has, as far as is known
        self._refused = self._lost = ""

    @property
    def cores(self) -> int:
        """The cores that each job gets."""
        return self.wanted.cores or USUAL_CORES * max(1, self.cards)

    def check(self) -> None:
        """Look for submitit, SLURM's commands and its controller; read the flags of sbatch."""
        missing = [name for name in COMMANDS if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"--on slurm wants SLURM's commands on the PATH, and {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not there: type it where you type sbatch"
            )
        if not is_installed("submitit"):
            raise missing_package("slurm", "submitit")
        self._time()
        self._squeue()
        if self._lost:
            raise UserError(f"SLURM does not answer: {self._lost}")

    def _time(self) -> int:
        """Return the minutes of a job."""
        text = self.wanted.slurm.get("time")
        if text is None:
            return USUAL_MINUTES
        minutes = slurm_minutes(text)
        if minutes is None or minutes < LEAST_MINUTES:
            raise UserError(
                f"--slurm time={text}: want {LEAST_MINUTES} minutes or more, as 480, 8:00:00 or "
                "2-00:00:00; a job is told some time before the end, saves, and queues again"
            )
        return minutes

    def _executor(self, name: str) -> "submitit.SlurmExecutor":
        import submitit

        submitit.helpers  # noqa: B018 - what a node will want is there
        # By value: a node finds `src` on no path.
        pickler = importlib.import_module("cloudpickle")
        for module in (child, importlib.import_module(__name__)):
            pickler.register_pickle_by_value(module)
        self.home.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        executor = submitit.SlurmExecutor(self.home, max_num_timeout=REQUEUES)
        flags = {key: value for key, value in self.wanted.slurm.items() if key != "time"}
        asked: dict[str, Any] = {"gpus_per_node": self.wanted.cards} if self.wanted.cards else {}
        executor.update_parameters(
            job_name=name, time=self._time(), cpus_per_task=self.cores, stderr_to_stdout=True,
            # From SLURM 22.05 on a step does not inherit it, and would get one core.
            srun_args=[f"--cpus-per-task={self.cores}"], additional_parameters=flags, **asked,
        )  # fmt: skip
        return executor

    def adopt(self, orders: Sequence[JobOrder]) -> set[str]:
        """Take over the jobs of an earlier launcher that are in the queue."""
        known = {slurm_name(order): order.name for order in orders}
        found = {known[name] for name in self._squeue() if name in known}
        for name, ours in known.items():
            if ours in found:
                self._names[name] = ours
        self._living |= found
        return found

    def start(self, orders: Sequence[JobOrder]) -> None:
        """Submit as many as there is room for; raises where SLURM takes none at all."""
        self._waiting += orders
        self._submit()

    def _submit(self) -> None:
        """Submit what waits, up to `--jobs`; what SLURM refuses waits for room there."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        most = self.wanted.jobs
        while self._waiting and (most is None or len(self._living) < most):
            order = self._waiting[0]
            name = slurm_name(order)
            try:
                job = self._executor(name).submit(SlurmWork(order))
            except (FailedJobError, FailedSubmissionError, OSError) as error:
                words = _sbatch_words(error)
                if not self._living:
                    self._waiting.clear()
                    raise UserError(
                        f"SLURM takes no job: {words}. What it asks for is said by --slurm "
                        "KEY=VALUE (partition, account, qos, time, mem ...), --gpus-per-job and "
                        "--cpus-per-job"
                    ) from None
                if words != self._refused:
                    LOG.warning("SLURM takes no more for now: %s; the rest follows", words)
                self._refused = words
                return
            del self._waiting[0]
            self._names[name], self._ids[order.name] = order.name, job.job_id
            self._living.add(order.name)

    def _squeue(self) -> dict[str, str]:
        """Return the jobs of this user that SLURM knows and that have not ended, by SLURM's name.

        Where SLURM does not answer, what it said last stands.
        """
        words = ["squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i|%j|%T|%N|%r"]
        said = _ask(words)
        if said is None:
            self._lost = f"squeue took more than {ANSWER_SECONDS:g} s"
            return self._seen
        if said.returncode:
            self._lost = (said.stderr.strip().splitlines() or ["squeue failed"])[-1]
            return self._seen
        self._lost, seen = "", {}
        for line in said.stdout.splitlines():
            number, name, state, node, reason = line.split("|", 4)
            where = f" on {node}" if node else ""
            why = f", {reason}" if reason not in ("None", "") and not node else ""
            seen[name] = f"SLURM job {number} {state.lower()}{where}{why}"
            if name in self._names:
                self._ids[self._names[name]] = number
        self._seen = seen
        return seen

    def alive(self) -> dict[str, str]:
        """Return the jobs in SLURM's queue, and those that wait for room in it."""
        self.pause = min(PAUSES[1], 1.2 * self.pause)
        before, seen = set(self._living), self._squeue()
        if not self._lost:  # else nobody knows, and none has ended
            self._living = {ours for name, ours in self._names.items() if name in seen}
        if self._waiting and before - self._living:
            try:
                self._submit()
            except UserError as error:
                self._refused = str(error)
        told = {ours: seen[name] for name, ours in self._names.items() if name in seen}
        found = {name: told.get(name, "SLURM") for name in self._living}
        return found | {order.name: "not submitted yet" for order in self._waiting}

    def last_words(self, name: str) -> str:
        """Say how SLURM says that a job ended, and whether its node can have seen our files."""
        number = self._ids.get(name)
        if number is None:
            return self._refused or "SLURM knows nothing of it"
        told = _ask(["scontrol", "--oneliner", "show", "job", number])
        facts = dict(re.findall(r"(\w+)=(\S*)", told.stdout)) if told is not None else {}
        end = f"SLURM job {number}"
        if facts:
            end += f" {facts.get('JobState', '').lower()} on {facts.get('NodeList', '?')}"
        log = self.home / f"{number}_0_log.out"
        if not log.exists():
            return (
                f"{end}, and left nothing in {self.home}: no shared file system? Code and "
                "artefacts (RVF_ROOT) must lie where all nodes see them under one path"
            )
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{end}; {log}: {lines[-1].strip() if lines else 'empty'}"

    def stop(self) -> None:
        """Cancel the jobs, and wait until they have saved."""
        self._waiting.clear()
        seen = self._squeue()
        numbers = [self._ids[ours] for name, ours in self._names.items() if name in seen]
        if not numbers:
            return
        if _ask(["scancel", *numbers]) is None:
            LOG.warning("scancel does not answer; to end the jobs: scancel %s", " ".join(numbers))
            return
        until = time.monotonic() + ENDING_SECONDS
        while time.monotonic() < until and set(self._squeue()) & set(self._names):
            time.sleep(1.0)


def _ask(words: Sequence[str]) -> "subprocess.CompletedProcess[str] | None":
    """Run one of SLURM's commands; None where it does not come back."""
    try:
        return subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None


def slurm_name(order: JobOrder) -> str:
    """Return the name of a job in SLURM: of this job of these artefacts, and no other's."""
    digest = hashlib.sha256(order.state.encode()).hexdigest()[:10]
    return f"rvf-{digest}-{Path(order.state).stem}"[:100].replace("|", "_")


def slurm_minutes(text: str) -> int | None:
    """Return the minutes of a time as SLURM writes it; None where it is none.

    `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours[:minutes[:seconds]]`.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        return None
    days, *rest = (None if one is None else int(one) for one in found.groups())
    first, second, third = rest
    if days is not None:
        return 24 * 60 * days + 60 * (first or 0) + (second or 0)
    if third is not None:
        return 60 * (first or 0) + (second or 0)
    return first


def _sbatch_words(error: Exception) -> str:
    """Return what sbatch said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line.removeprefix("sbatch: error: ") for line in lines if line.startswith("sbatch:")]
    return "; ".join(said or lines[-1:] or [type(error).__name__])
