"""Hands cases to a worker process, and starts another one when a case kills it or takes too long."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS_A_CASE = 60.0
_FIRST_SECONDS = 60.0  # imports
TESTS = Path(__file__).resolve().parents[2]
SOURCES = TESTS.parent / "src"


def environment() -> dict[str, str]:
    """That of a child process which shall find the tests and the sources."""
    paths = [str(TESTS), str(SOURCES), str(TESTS.parent / "plugins" / "torch_backend" / "src")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass
class Tally:
    """What came of the cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, result: dict[str, Any]) -> None:
        """Count one."""
        self.outcomes[result["outcome"]] += 1
        self.slowest = max(self.slowest, result.get("seconds", 0.0))
        if result["outcome"] not in ("refused", "handled"):
            self.failures.append(result)

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in sorted(self.outcomes.items()))
        return f"{sum(self.outcomes.values())} cases: {counts}; slowest {self.slowest:.1f} s"


def run_cases(cases: Iterable[tuple[str, int]], folder: Path) -> Tally:
    """Run cases in worker processes, one after another.

    Parameters
    ----------
    cases:
        Kind and number of each.
    folder:
        Where the workers may write.
    """
    tally = Tally()
    worker: subprocess.Popen[str] | None = None
    for kind, number in cases:
        limit = SECONDS_A_CASE
        if worker is None:
            worker = _start(folder)
            limit += _FIRST_SECONDS
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(f"{kind} {number}\n")
        worker.stdin.flush()
        ready, _, _ = select.select([worker.stdout], [], [], limit)
        line = worker.stdout.readline() if ready else ""
        if line:
            tally.add(json.loads(line))
            continue
        worker.kill()
        worker.communicate()
        said = f"exit {worker.returncode}: {(folder / 'stderr').read_text()[-2000:]}"
        tally.add({"kind": kind, "number": number, "outcome": "died" if ready else "hung", "error": said})
        worker = None
    if worker is not None:
        worker.communicate()
    return tally


def _start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hardening.kit.worker", str(folder)]
    with (folder / "stderr").open("w") as errors:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), stderr=errors
        )
