"""A command with a budget of memory and of time: specs/14-comparison.md."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from ptychopinn.comparison.process import anonymous_mib, descendants, run_limited
from ptychopinn.monitor import Monitor

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")
TAKE = "a = bytearray(b'x') * ({} * 2**20)\nimport time; time.sleep({})"
WITH_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def run(tmp_path: Path, code: str, *arguments: str, **limits):
    return run_limited([sys.executable, "-c", code, *arguments], log=tmp_path / "log", **limits)


def test_lines_and_the_exit_code(tmp_path: Path) -> None:
    """[COMP-010] Standard output comes line by line, the last one without an end too; errors go to the log."""
    lines: list[str] = []
    code = "import sys; print('a'); sys.stderr.write('oh'); sys.stdout.write('b'); sys.exit(3)"
    ended = run(tmp_path, code, on_line=lines.append)
    assert (ended.returncode, ended.reason, ended.cancelled) == (3, "", False)
    assert lines[:2] == ["a", "b"]
    assert (tmp_path / "log").read_text() == "oh"


def test_peak_memory_is_what_was_taken(tmp_path: Path) -> None:
    """[COMP-011] Of the command's own process."""
    held: list[float] = []
    run(tmp_path, TAKE.format(100, 3), on_memory=held.append)
    assert 100 < max(held) < 130


def test_memory_of_all_processes_counts(tmp_path: Path) -> None:
    """[COMP-011] What a child takes is the command's."""
    held: list[float] = []
    run(tmp_path, WITH_CHILD, TAKE.format(100, 3), on_memory=held.append)
    assert 100 < max(held) < 150


def test_too_much_memory_ends_it(tmp_path: Path) -> None:
    """[COMP-011] With all that it started, and a reason."""
    began = time.monotonic()
    ended = run(tmp_path, WITH_CHILD, TAKE.format(200, 60), memory_mb=150)
    assert "out of memory" in ended.reason
    assert "the budget is 150" in ended.reason
    assert time.monotonic() - began < 20


def test_too_much_time_ends_it(tmp_path: Path) -> None:
    """[COMP-011]"""
    assert run(tmp_path, "import time; time.sleep(60)", seconds=0.2).reason == "out of time: 0.2 s"


def test_a_child_that_is_left_behind_is_ended(tmp_path: Path) -> None:
    """[COMP-011] The command's processes do not outlive it."""
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(p.pid)"
    )
    lines: list[str] = []
    run(tmp_path, code, on_line=lines.append)
    status = Path(f"/proc/{lines[0]}/status")
    deadline = time.monotonic() + 10
    while status.exists() and "zombie" not in status.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not status.exists() or "zombie" in status.read_text()


def test_cancelling(tmp_path: Path) -> None:
    """[COMP-012]"""
    monitor = Monitor()
    ended = run(tmp_path, "import time; time.sleep(60)", monitor=monitor, on_memory=lambda mib: monitor.cancel())
    assert ended.cancelled


def test_processes_that_are_gone_hold_nothing() -> None:
    """[COMP-011]"""
    assert anonymous_mib([2**22 + 1]) is None
    assert descendants(2**22 + 1) == [2**22 + 1]
