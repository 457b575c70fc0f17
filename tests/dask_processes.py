"""Schedulers and workers of Dask as processes of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PROGRAM = "from distributed.cli.dask_{} import main; main()"


class DaskProcesses:
    """Starts schedulers and workers at an address of this machine, in a folder; they end with `end`."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("distributed", reason="Dask is not installed")
        self._folder = folder
        self._begun: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])
        self.address = f"tcp://127.0.0.1:{self._port}"

    def begin_scheduler(self) -> subprocess.Popen[bytes]:
        return self._begin("scheduler", "--host", "127.0.0.1", "--port", self._port)

    def begin_worker(self, threads: int = 1) -> subprocess.Popen[bytes]:
        return self._begin("worker", self.address, "--nthreads", str(threads), "--no-nanny")

    def end(self) -> None:
        for process in self._begun:
            process.kill()
            process.wait()

    def _begin(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _PROGRAM.format(kind), "--no-dashboard", *arguments]
        search = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": search, "DASK_TEMPORARY_DIRECTORY": str(self._folder)}
        with (self._folder / "dask.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self._folder)
        self._begun.append(process)
        return process


@contextmanager
def dask_processes(folder: Path) -> Iterator[DaskProcesses]:
    """Of a block."""
    processes = DaskProcesses(folder)
    try:
        yield processes
    finally:
        processes.end()


def when_begun(path: Path, act: Callable[[], object]) -> threading.Thread:
    """Do something when a file is there."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread
