"""The templates of examples/slurm in a real Slurm of this machine alone.

Requirements: specs/10-training.md, specs/27-batch.md.
"""

from __future__ import annotations

import csv
import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import folders

TEMPLATES = Path(__file__).parents[2] / "examples" / "slurm"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo", "scancel")
LIMIT_S = 240
Submit = Callable[..., str]

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES State=UP
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ReturnToService=2
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MailProg=/bin/true
"""


def free_ports() -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def submit(long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Submit]:
    """Submits a template to a Slurm that runs for this test; returns the number of the job."""
    if not long:
        pytest.skip("in the long form")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install slurmctld slurmd slurm-client munge)")
    folder = tmp_path / "slurm"
    for name in (".", "state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            cpus=os.cpu_count(),
            user=getpass.getuser(),
            folder=folder,
            ports=free_ports(),
        )
    )
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    munge = [f"--{name}-file={folder / 'munge'}.{name}" for name in ("key", "pid", "log", "seed")]
    services = [
        ["munged", "--force", "--foreground", f"--socket={folder / 'munge.socket'}", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]
    running = []
    try:
        for command in services:
            with (folder / f"{command[0]}.out").open("wb") as out:
                running.append(subprocess.Popen(command, stdout=out, stderr=out))
            time.sleep(1)
        wait_until(lambda: "idle" in output("sinfo", "-h", "-o", "%T"))

        def submitted(template: str, option: str, *arguments: str) -> str:
            log = f"--output={folder / 'job.log'}"
            return output("sbatch", "--parsable", log, option, str(TEMPLATES / template), *arguments)

        yield submitted
    finally:
        output("scancel", "--user", getpass.getuser(), check=False)
        for process in reversed(running):
            process.terminate()
            process.wait()


def output(*command: str, check: bool = True) -> str:
    return subprocess.run(command, check=check, stdout=subprocess.PIPE, text=True, timeout=60).stdout.strip()


def wait_until(so: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not so():
        assert time.monotonic() < end
        time.sleep(0.2)


def statuses(out: Path) -> dict[str, str]:
    if not (out / "batch.csv").is_file():
        return {}
    with (out / "batch.csv").open(newline="") as file:
        return {row["name"]: row["status"] for row in csv.DictReader(file)}


@pytest.fixture
def pattern(tmp_path: Path) -> str:
    """Three scans."""
    for seed in range(3):
        write_scan(tmp_path / f"s{seed}.npz", simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=seed)))
    return str(tmp_path / "s*.npz")


DONE = {f"s{seed}": "done" for seed in range(3)}


def test_a_batch_that_is_stopped_before_its_time_is_over_goes_on(submit: Submit, pattern: str, tmp_path: Path) -> None:
    """[BATCH-005] [BATCH-004] It is queued again, and does what is not done."""
    out = tmp_path / "out"
    job = submit("one-node.sh", "--cpus-per-task=1", pattern, str(out), "--start", "none")
    first = out / "jobs/s0/scan.json"
    wait_until(lambda: first.is_file() and '"done"' in first.read_text())
    output("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: "open" in statuses(out).values())
    before = (out / "scans/s0/reconstruction.h5").stat().st_mtime_ns
    wait_until(lambda: statuses(out) == DONE)
    assert (out / "scans/s0/reconstruction.h5").stat().st_mtime_ns == before
    wait_until(lambda: output("squeue", "-h") == "")


def test_a_batch_on_several_tasks(submit: Submit, pattern: str, tmp_path: Path) -> None:
    """[JOB-010] A Dask worker in each."""
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("Dask is not installed")
    out = tmp_path / "out"
    submit("several-nodes.sh", "--ntasks=2", pattern, str(out), "--start", "none")
    wait_until(lambda: statuses(out) == DONE)
    wait_until(lambda: output("squeue", "-h") == "")


def test_a_training_on_several_tasks(submit: Submit, scan: Path, tmp_path: Path) -> None:
    """[TRAIN-022] As PyTorch finds them; one of them has the run directory."""
    pytest.importorskip("ptychopinn_torch", reason="the torch backend is not installed")
    run, quick = tmp_path / "run", ["--nepochs=2", "--probe-refinement=0", "--n-filters-scale=0.1"]
    submit("training.sh", "--ntasks-per-node=2", str(scan), str(run), "--accelerator=cpu", *quick)
    wait_until(lambda: (run / folders.REPORT).is_file())
    wait_until(lambda: output("squeue", "-h") == "")
    log = (tmp_path / "slurm/job.log").read_text()
    assert "error" not in log
    assert log.count("product") == 1
