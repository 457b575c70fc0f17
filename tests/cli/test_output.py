"""Output that cannot be written: specs/21-running.md."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptychopinn.cli._console import Console
from ptychopinn.cli._output import NoteStream
from ptychopinn.cli._progress import progress_monitor

Cli = Callable[..., tuple[int, str, str]]


class Full(io.StringIO):
    """A stream on a full disk, or a terminal that is gone."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal
        self.refused = 0

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        self.refused += 1
        raise OSError(28, "No space left on device")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS: list[Callable[[], Any]] = [Full, lambda: Full(terminal=True), closed, lambda: None]


@pytest.mark.parametrize("make", STREAMS)
def test_notes_that_cannot_be_written_are_dropped(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """[RUN-004] Progress, notes, warnings, errors and the log."""
    import logging

    console = Console(debug=True)
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with console.logging(), progress_monitor(console) as monitor:
        for step in range(3):
            monitor.report("train", step, 3, {"loss": 0.5})
        console.say("a note")
        console.warn("a warning")
        logging.getLogger("ptychopinn").warning("a line")
    assert not isinstance(stream, Full) or stream.refused >= 3  # each was tried
    assert console.finish(0) == 0


def test_characters_that_the_output_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-004] Names of scans and files have any."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    console = Console()
    console.result("run µ \udcff")
    NoteStream(stream).write("Größe\n")
    stream.flush()
    assert raw.getvalue() == b"run \\xb5 \\udcff\nGr\\xf6\\xdfe\n"


def run_with(stdout: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from ptychopinn.cli import main; sys.exit(main({list(arguments)}))"
    return subprocess.run([sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_result_that_cannot_be_printed_is_an_error_in_words() -> None:
    """[RUN-004] A result on stdout that is lost is no success."""
    with open("/dev/full", "w") as full:
        done = run_with(full, "plugins")
    assert done.returncode == 4
    assert done.stderr.startswith("ptychopinn: error: The result cannot be printed: ")
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1
