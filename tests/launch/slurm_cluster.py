"""A real SLURM of one node, started from a folder of its own; Debian's packages are enough."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "scancel")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={other_port}
AuthType=auth/munge
# A job that is requeued waits for so long.
AuthInfo=socket={home}/munge.socket,cred_expire=10
SlurmUser=root
SlurmdUser=root
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="session")
def slurm_conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start munge, the controller and a node; yields the configuration, for `SLURM_CONF`."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no SLURM here ({' '.join(missing) or 'it wants root'}): see .ci/run")
    home = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (home / name).mkdir()
    key = home / "munge.key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    conf = home / "slurm.conf"
    ports = {"port": _free_port(), "other_port": _free_port()}
    conf.write_text(CONF.format(host=socket.gethostname().split(".")[0], home=home, **ports))
    munge = [f"--{name}={home}/munge.{name.partition('-')[0]}"
             for name in ("socket", "pid-file", "log-file", "seed-file")]  # fmt: skip
    started = [
        _started("munged", "--foreground", "--force", f"--key-file={key}", *munge),
        # By whole paths: a node hands its own on to the jobs.
        _started("slurmctld", "-D", "-f", str(conf)),
        _started("slurmd", "-D", "-f", str(conf)),
    ]
    try:
        _wait_until_idle(conf)
        yield conf
    finally:
        for process in started[::-1]:
            process.send_signal(signal.SIGTERM)
        for process in started[::-1]:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _started(name: str, *words: str) -> subprocess.Popen[bytes]:
    program = _program(name)
    assert program is not None
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([program, *words], stdout=quiet, stderr=quiet)
    time.sleep(0.5)
    return process


def _wait_until_idle(conf: Path) -> None:
    until, said = time.monotonic() + 60, ""
    while time.monotonic() < until:
        asked = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env={**os.environ, "SLURM_CONF": str(conf)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = asked.stdout + asked.stderr
        if asked.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    pytest.skip(f"SLURM does not start here: {said.strip()[:200]}")
