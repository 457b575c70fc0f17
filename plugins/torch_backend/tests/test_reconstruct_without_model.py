"""Passes without a network on the backend's device. Requirements: specs/22-reconstruct.md."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ptychopinn.config import ExecutionOptions, SimulationConfig
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.io import write_scan
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import reconstruct_run
from ptychopinn_torch.arrays import TorchLibrary


def test_passes_from_flat_run_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[AUTO-006] The CPU of torch stands for the card; freedoms are tried there too."""
    library = TorchLibrary(torch.device("cpu"), deterministic=True)
    asked: list[str] = []

    def created(name: str, *_: object) -> SimpleNamespace:
        asked.append(name)
        return SimpleNamespace(library=library)

    monkeypatch.setattr("ptychopinn.workflows._backends.create_reconstructor", created)
    monkeypatch.setattr("ptychopinn.workflows._backends.NVIDIA_DRIVER", tmp_path / "none")
    scan = simulate_scan(SimulationConfig(N=32, rows=8, cols=8, step_px=3.0, seed=1))
    write_scan(tmp_path / "scan.npz", scan)
    found = {}
    for device in ("cuda", "cpu", "auto"):
        settings = AllSettings(
            execution=ExecutionOptions(accelerator=device),
            automatic=AutomaticConfig(may_free=("probe", "positions")),
        )
        result = reconstruct_run(tmp_path / "scan.npz", tmp_path / device, model="none", settings=settings)
        found[device] = read_product(result.files["product"]).object
    assert asked == ["torch"]  # for the CPU, and on a machine without a card, no backend is asked
    assert abs(found["cuda"] - found["cpu"]).mean() < 0.01
