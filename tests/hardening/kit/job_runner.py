"""Starts jobs of `hardening.kit.job_process`, kills some, and looks at what they leave."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hardening.kit.pool import environment
from PIL import Image

from ptychopinn.bundle import read_bundle
from ptychopinn.config.files import read_config_file
from ptychopinn.data.io import read_scan
from ptychopinn.product import read_product

_SECONDS = 120.0
KILLED = -9
GONE_SECONDS = 3.0


@dataclass(frozen=True)
class Ending:
    """How a job ended.

    Attributes
    ----------
    status:
        Its exit code, negative if a signal ended it.
    told:
        The error it raised, as JSON, or nothing.
    seconds:
        How long it took.
    others:
        The processes that it had begun when it was killed.
    """

    status: int
    told: dict[str, str]
    seconds: float
    others: list[int]


class JobRunner:
    """A process that does jobs one after another."""

    def __init__(self, errors: Path) -> None:
        with errors.open("w") as stream:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "hardening.kit.job_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env=environment(),
            )
        self.errors = errors
        assert self._line() == "ready", errors.read_text()[-2000:]

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()

    def run(self, job: str, folder: Path, scan: Path, *, kill_after: float | None = None, **order: Any) -> Ending:
        """Do a job; kill it after some seconds if it is not done by then."""
        assert self._server.stdin is not None
        folder.mkdir(exist_ok=True)
        order |= {"job": job, "folder": str(folder), "scan": str(scan), "kill_after": kill_after}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        answers: list[dict[str, Any]] = [json.loads(self._line())]
        while "status" not in answers[-1]:
            answers.append(json.loads(self._line()))
        told = next((a for a in answers if "error" in a), {})
        return Ending(told=told, **answers[-1])

    def close(self) -> None:
        """End it."""
        self._server.communicate(timeout=_SECONDS)


def check_whole(folder: Path) -> int:
    """Open every file of a run directory, also of one set aside; what a writer left half done does not count.

    Returns
    -------
    How many files there are.
    """
    count = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and ".part" not in p.name):
        count += 1
        if path.suffix == ".zip":
            read_bundle(path)
        elif path.name.startswith("aligned-"):
            with h5py.File(path) as file:
                file.visititems(lambda name, item: item[()] if isinstance(item, h5py.Dataset) else None)
        elif path.suffix == ".h5":
            read_product(path)
        elif path.suffix == ".npz":
            read_scan(path)
        elif path.suffix == ".yaml":
            assert read_config_file(path), path
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                rows = list(csv.reader(file))
            assert len({len(row) for row in rows}) == 1, path
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>"), path
        else:
            count -= 1
            assert path.name in {"run.log", "job.log", "story.txt", ".lock"}, path
    return count


def outcome(run: Path) -> tuple[list[dict[str, str]], dict[str, np.ndarray[Any, Any]]]:
    """History without its clock, and the weights, of a finished run."""
    with (run / "history.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    return rows, dict(read_bundle(run / "wts.h5.zip").weights)


def lives(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_the_end(pids: Iterable[int]) -> float:
    """Seconds until none of some processes lives, `GONE_SECONDS` at most."""
    began = time.monotonic()
    while any(map(lives, pids)) and time.monotonic() - began < GONE_SECONDS:
        time.sleep(0.02)
    return time.monotonic() - began
