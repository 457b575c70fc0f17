"""Runs commands under the faults of `hardening.kit.faults`, and lists what should not have come of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE

import h5py
import numpy as np
import pytest
import toy_distribution
from hardening.kit.faults import DONE, WORKFLOWS, Case, Fault
from hardening.kit.job_runner import check_whole

from ptychopinn.data.io import read_scan

try:
    import resource
except ImportError:  # the tests are then skipped
    resource = None  # type: ignore[assignment]

INSIDE = Path(__file__).parent / "inside"
MAX_HANG_S = 10.0
SLOWER = 6.0  # than undisturbed, on a machine that does other things
_MARK = "FAULT_CASE"
_STUDY = (
    "study: {legs: [epie], photons: [1e4], seeds: [1]}\nsimulation: {N: 32, rows: 5, cols: 5}\nsolver: {passes: 3}\n"
)
_BATCH = "batch: {scans: [scan.npz], workflow: train}\nbackend: torch\ntrain: {nepochs: 2, probe_refinement: 0}\n"


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, output (as far as it was not redirected), and seconds."""

    code: int
    out: str
    err: str
    seconds: float
    hung: bool


class FaultRunner:
    """Runs cases in a folder with what the commands need.

    Parameters
    ----------
    folder:
        An empty folder.
    scan:
        A scan with its true object.
    """

    def __init__(self, folder: Path, scan: Path) -> None:
        self._folder = folder
        self._undisturbed: dict[str, tuple[Path, float]] = {}
        shutil.copy(scan, folder / "scan.npz")
        _write_stream(scan, folder / "scan.h5")
        (folder / "study.yaml").write_text(_STUDY)
        (folder / "batch.yaml").write_text(_BATCH)
        with pytest.MonkeyPatch.context() as patch:
            (plugins := folder / "plugins").mkdir()
            toy_distribution.install_plugins(plugins, patch)
        self._search = os.pathsep.join([str(INSIDE), str(plugins), *(path for path in sys.path if path)])

    def undisturbed(self, command: str) -> tuple[Path, float]:
        """The output of a command without a fault, and how long it takes."""
        if command not in self._undisturbed:
            if (before := WORKFLOWS[command].after) is not None:
                self.undisturbed(before)
            output = self._folder / f"undisturbed-{command}{_suffix(command)}"
            ended = self._run(Case(-1, command, Fault("nothing"), replaces=False), output, self._folder)
            assert ended.code == DONE, ended
            self._undisturbed[command] = (output, ended.seconds)
        return self._undisturbed[command]

    def run(self, case: Case) -> tuple[Ended, list[str]]:
        """Run a case; returns how it ended, and what should not have come of it."""
        done, _ = self.undisturbed(case.command)
        place = self._folder / f"case-{case.number}"
        place.mkdir()
        with _disk(case, place, done if case.replaces else None):
            output = place / f"out{_suffix(case.command)}"
            ended = self._run(case, output, place)
            found = [*_complaints(case, ended), *_losses(case, ended, output), *_processes_left(case.number)]
        shutil.rmtree(place)
        return ended, found

    def _run(self, case: Case, output: Path, place: Path) -> Ended:
        fault, workflow = case.fault, WORKFLOWS[case.command]

        def placed(text: str) -> str:
            return text.replace("FOLDER", str(place)).replace("NOLOCKS", str(_without_locks(self._folder)))

        for name, text in fault.files.items():
            path = Path(placed(name))
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.write_text(text)
        arguments = [*workflow.arguments, "-o", str(output), *(["--overwrite"] if case.replaces else [])]
        code = '"import sys; from ptychopinn.cli import main; sys.exit(main())"'
        shell = " ".join(["exec", f'"{sys.executable}"', "-c", code, *map(_quoted, arguments), fault.shell])
        if fault.tiny_shm:
            shell = f"mount -t tmpfs -o size=4k tmpfs /dev/shm && {shell}"
        env = os.environ | {"PYTHONPATH": self._search, _MARK: str(case.number), "OMP_NUM_THREADS": "1"}
        if "RLIMIT_FSIZE" in fault.limits:  # Python 3.11 would leave the first bytes of the bytecode that it writes
            env["PYTHONDONTWRITEBYTECODE"] = "1"
        if fault.read_only:
            _mount("remount,ro", place)
        env |= {"FAULT_INSIDE": json.dumps(fault.inside), **{name: placed(text) for name, text in fault.env.items()}}
        until = 2 * MAX_HANG_S if case.command not in self._undisturbed else self._undisturbed[case.command][1]
        began = time.monotonic()
        with (
            subprocess.Popen(
                [*(["unshare", "-m"] if fault.tiny_shm else []), "bash", "-c", shell],
                **{"cwd": self._folder, "env": env, "stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE},
                start_new_session=True,
                preexec_fn=lambda: _limit(fault),
            ) as process,
            ThreadPoolExecutor(2) as readers,
        ):
            said = [readers.submit(stream.read) for stream in (process.stdout, process.stderr)]
            hung = not _watch(process, case, output, until)
        seconds = time.monotonic() - began
        out, err = (text.result().replace(b"\0", b"").decode("utf-8", "replace") for text in said)  # of UTF-16 too
        return Ended(process.returncode, out, err, seconds, hung)


def _suffix(command: str) -> str:
    return ".npz" if command == "convert" else ""


def _quoted(argument: str) -> str:
    return f"'{argument}'"


def _limit(fault: Fault) -> None:
    """In the new process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    for name, limit in fault.limits.items():
        resource.setrlimit(getattr(resource, name), (limit, limit + 30 if name == "RLIMIT_CPU" else limit))


def _watch(process: subprocess.Popen[bytes], case: Case, output: Path, undisturbed_s: float) -> bool:
    """Do to a process what its fault says, and wait for it; returns whether it ended by itself."""
    began, fault = time.monotonic(), case.fault
    acts = [(share, number, "") for share, number in fault.signals]
    acts += [(fault.later[0], 0, fault.later[1])] if fault.later and fault.later[0] > 0 else []
    for share, number, what in acts:
        try:
            process.wait(max(began + share * undisturbed_s - time.monotonic(), 0.0))
            break
        except subprocess.TimeoutExpired:
            if number:
                process.send_signal(number)
            elif what == "removed":
                (output.unlink if output.is_file() else lambda: shutil.rmtree(output, ignore_errors=True))()
            else:
                _fill(output.parent)
    try:
        process.wait(began + MAX_HANG_S + SLOWER * undisturbed_s - time.monotonic())
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


@contextmanager
def _disk(case: Case, place: Path, earlier: Path | None) -> Iterator[None]:
    """A file system for a case, if it has one; an earlier result is there."""
    output, disk = place / f"out{_suffix(case.command)}", case.fault.disk

    def copy() -> None:
        if earlier is not None:
            (shutil.copytree if earlier.is_dir() else shutil.copy)(earlier, output)  # type: ignore[operator]

    if disk is None:
        copy()
        yield
        return
    _mount("size=16m", place, new=True)
    try:
        copy()
        used = shutil.disk_usage(place).used
        files = os.statvfs(place)
        limits = [f"size={used // 1024 + disk['kib']}k"] if "kib" in disk else []
        limits += [f"nr_inodes={files.f_files - files.f_ffree + disk['files']}"] if "files" in disk else []
        if limits:
            _mount(",".join(["remount", *limits]), place)
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(options: str, place: Path, *, new: bool = False) -> None:
    subprocess.run(
        ["mount", *(["-t", "tmpfs"] if new else []), "-o", options, "tmpfs", str(place)],
        check=True,
        capture_output=True,
    )


def _fill(place: Path) -> None:
    """Leave no room on a file system."""
    used = shutil.disk_usage(place).used
    _mount(f"remount,size={used}", place)


def _complaints(case: Case, ended: Ended) -> Iterator[str]:
    """Of what it said and how it ended."""
    fault = case.fault
    if ended.hung:
        yield "it hung"
        return
    if "Traceback" in ended.err + ended.out or "Fatal Python error" in ended.err:
        yield "a traceback"
    has_failures = WORKFLOWS[case.command].has_workers  # then the exit code says only that candidates failed
    if ended.code not in fault.codes and not (has_failures and ended.code == 1 and len(fault.codes) > 1):
        yield f"another exit code than {sorted(fault.codes)}"
    elif "This is a defect" in ended.err:
        yield "an error that was not expected"
    elif ended.code > 0 and "2>" not in fault.shell and not re.search(fault.cause, ended.err):
        yield f"the cause is not named: {fault.cause}"


def _losses(case: Case, ended: Ended, output: Path) -> Iterator[str]:
    """Results that are not there, or damaged."""
    results = [output / name if name else output for name in WORKFLOWS[case.command].results]
    removed = case.fault.later is not None and case.fault.later[1] == "removed"
    if output.exists():
        try:
            check_whole(output)
        except Exception as error:
            yield f"a damaged file: {error!r}"
    if ended.code == DONE and not removed and not all(path.exists() for path in results):
        yield "it ended as done, without its result"
    if case.replaces and ended.code != DONE and not removed:
        homes = (output, output / ".replaced", output / ".moving") if ended.code < 0 or ended.hung else (output,)
        parts = WORKFLOWS[case.command].parts
        goes_on = parts is not None and any(output.glob(parts))
        if not goes_on and not any(
            (home / results[0].name if home.is_dir() else results[0]).exists() for home in homes
        ):
            yield "the earlier result is lost"
    if ended.code >= 0 and not ended.hung and (left := [p.name for p in output.parent.rglob(".*.part*")]):
        yield f"left behind: {left}"


def _processes_left(number: int) -> Iterator[str]:
    """Processes of a case that go on."""
    until, mark = time.monotonic() + 3.0, f"{_MARK}={number}\0".encode()
    while left := _marked(mark):
        if time.monotonic() > until:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            yield f"processes go on: {left}"
            return
        time.sleep(0.05)


def _marked(mark: bytes) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes() + b"\0":
                found.append(int(path.parent.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def _without_locks(folder: Path) -> Path:
    """A library that takes all locks away."""
    library = folder / "no_locks.so"
    if not library.exists():
        source = INSIDE / "no_locks.c"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def _write_stream(scan: Path, path: Path) -> None:
    """A scan in HDF5 as a producer writes it, finished."""
    data = read_scan(scan)
    with h5py.File(path, "w", libver="latest") as file:
        file["diffraction"] = np.sqrt(data.counts(slice(None)))
        file["ycoords"], file["xcoords"] = data.positions.T
        file["probeGuess"], file["finished"] = data.probe, 1
