"""``ptychopinn batch``: specs/27-batch.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptychopinn.batch import BatchResult, ScanOutcome, ScanStatus
from ptychopinn.config.batch import Workflow
from ptychopinn.config.run import AllSettings

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: object) -> dict[str, Any]:
    """Stands for the batch, and notes what it was asked."""
    noted: dict[str, Any] = {}

    def batch_run(settings: AllSettings[Any, Any], output: str, **kwargs: Any) -> BatchResult:
        noted.update(kwargs, settings=settings, output=output)
        scans = tuple(
            ScanOutcome(name, Path(f"{name}.npz"), Path("out/scans") / name, status, message=message)
            for name, status, message in (("a", ScanStatus.DONE, ""), ("b", ScanStatus.FAILED, "It is bad."))
        )
        return BatchResult(Path(output), scans, {"table": Path("out/batch.csv")})

    monkeypatch.setattr("ptychopinn.batch.batch_run", batch_run)
    monkeypatch.chdir(tmp_path)
    return noted


def test_a_pattern_with_flags(cli: Cli, asked: dict[str, Any]) -> None:
    """[CLI-038] One that failed is a warning and the exit code."""
    flags = ("--workflow", "train", "--start", "none", "--workers", "3", "--resume", "--accelerator", "cpu")
    code, out, err = cli("batch", "s*.npz", "-o", "out", *flags)
    assert code == 1
    batch = asked["settings"].batch
    assert [one.path for one in batch.scans] == ["s*.npz"]
    assert (batch.workflow, batch.start, batch.workers) == (Workflow.TRAIN, "none", 3)
    assert asked["settings"].given()["execution"] == {"accelerator": "cpu"}
    assert (asked["output"], asked["resume"], asked["overwrite"]) == ("out", True, False)
    assert "warning: b failed: It is bad." in err
    assert [line.split() for line in out.splitlines()] == [
        ["scans", "done", "1"],
        ["scans", "failed", "1"],
        ["table", "out/batch.csv"],
    ]


def test_a_file_with_options_of_its_backend(cli: Cli, asked: dict[str, Any]) -> None:
    """[CLI-038] [CLI-003] Flags go before it."""
    Path("plan.yaml").write_text(
        "backend: torch\nbatch: {scans: [a.npz, b.npz], retries: 7, workers: 2}\nexecution: {springs: 5}\n"
    )
    code, out, _ = cli("batch", "plan.yaml", "-o", "out", "--workers", "1", "--json")
    assert code == 1
    batch = asked["settings"].batch
    assert (len(batch.scans), batch.retries, batch.workers) == (2, 7, 1)
    assert asked["settings"].given()["execution"] == {"springs": 5}
    assert json.loads(out)["failed"] == {"b": "It is bad."}
    assert cli("batch", "plan.yaml", "-o", "out", "--config", "other.yaml")[0] == 2


def test_a_table_with_shared_settings(cli: Cli, asked: dict[str, Any]) -> None:
    """[CLI-038]"""
    Path("plan.csv").write_text("path,train.nepochs\na.npz,3\n")
    Path("shared.yaml").write_text("train: {batch_size: 8}\n")
    cli("batch", "plan.csv", "-o", "out", "--config", "shared.yaml")
    assert asked["settings"].batch.scans[0].settings == {"train": {"nepochs": "3"}}
    assert asked["settings"].train.batch_size == 8
