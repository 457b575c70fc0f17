"""``ptychopinn stream``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptychopinn.data.dataset import Measurement

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def streamed(calls: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("ptychopinn.workflows.stream_run", calls.function("stream_run"))
    return calls


def test_flags_reach_the_workflow(cli: Cli, streamed: Any) -> None:
    """[CLI-031]"""
    code, _, _ = cli("stream", "RUN", "scan.h5", "-o", "out")
    assert (code, *streamed.files) == (0, "stream_run", ("RUN", "scan.h5", "out"))
    asked = streamed.last
    assert (asked["bind"], asked["interval_s"], asked["timeout_s"], asked["reading"]) == (False, 10.0, 60.0, {})
    assert ("backend" in asked, asked["overwrite"], asked["infer"]) == (False, False, {})
    cli(
        *("stream", "RUN", "tcp://host:5", "-o", "out", "--bind", "--interval", "2", "--timeout", "3", "--overwrite"),
        *("--measurement", "amplitude", "--refine", "2", "--backend", "torch"),
    )
    asked = streamed.last
    assert (asked["bind"], asked["interval_s"], asked["timeout_s"], asked["overwrite"]) == (True, 2.0, 3.0, True)
    assert (asked["reading"]["measurement"], asked["infer"]["refine"]) == (Measurement.AMPLITUDE, 2)
    assert asked["backend"] == "torch"


@pytest.mark.parametrize(("command", "passes"), [("stream", 0), ("infer", 2), ("train", 2)])
def test_the_default_of_passes_is_that_of_the_command(cli: Cli, command: str, passes: int) -> None:
    """[REFINE-009] [STREAM-001] [CLI-001] As its help says."""
    text = " ".join(cli(command, "--help")[1].split())
    assert f"streams is 0 (default: {passes}; at least 0" in text


def test_interrupted_it_exits_with_130(cli: Cli, streamed: Any, tmp_path: Path) -> None:
    """[STREAM-005]"""
    streamed.act = lambda *args, monitor, **kwargs: monitor.cancel()
    assert cli("stream", "RUN", "scan.h5", "-o", tmp_path / "out")[0] == 130


def test_a_source_is_needed(cli: Cli, streamed: Any) -> None:
    code, _, told = cli("stream", "RUN", "-o", "out")
    assert code == 2
    assert "SOURCE" in told
