"""Reconstruct a scan file without decisions. Requirements: specs/22-reconstruct.md."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from ptychopinn.bundle import read_bundle, write_bundle
from ptychopinn.config import SimulationConfig
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import UsageError
from ptychopinn.plugins import Registry, discover
from ptychopinn.product import read_product
from ptychopinn.reconstructor import ModelSpec
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import RunResult, reconstruct_run
from ptychopinn.workflows import _backends as backends
from ptychopinn.workflows._outputs import write_object
from ptychopinn.workflows.pretrained import find_pretrained, model_archive

SETTINGS: Any = AllSettings(automatic=AutomaticConfig(may_free=()))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, trained: RunResult, tmp_path: Path) -> ModelSpec:
    """A model for patterns of 32 x 32 pixels, which a distribution has."""
    archive = tmp_path / "models" / "family-32.zip"
    archive.parent.mkdir()
    shutil.copy(trained.files["model"], archive)
    spec = ModelSpec("family-32", archive, 32, "A toy")
    registry = Registry(dict(discover().specs), {}, models=MappingProxyType({spec.name: spec}))
    monkeypatch.setattr("ptychopinn.workflows.pretrained.discover", lambda: registry)
    return spec


def test_a_scan_without_a_model(scan_file: Path, tmp_path: Path) -> None:
    """[AUTO-005] [AUTO-006] Product, pictures, report and the story."""
    result = reconstruct_run(scan_file, tmp_path / "out", model="none", settings=SETTINGS)
    story = (tmp_path / "out" / "story.txt").read_text("utf-8")
    assert story.startswith("Passes started from a flat object: there was no network.")
    assert result.figures["what was done"] == story.strip()
    product = read_product(result.files["product"])
    assert story.strip() in product.comments
    assert {"report.html", "reconstruction.json", "phase.png"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_only_the_product_is_written(scan_file: Path, tmp_path: Path) -> None:
    """[AUTO-005] For a window that shows pictures itself."""
    result = reconstruct_run(scan_file, tmp_path / "out", model="none", settings=SETTINGS, only_product=True)
    assert str(result.figures["what was done"]) in read_product(result.files["product"]).comments
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".h5", ".txt", ".log"}


def test_without_an_installed_model_passes_start_from_flat(scan_file: Path, tmp_path: Path) -> None:
    """[AUTO-006]"""
    result = reconstruct_run(scan_file, tmp_path / "out", settings=SETTINGS)
    assert "there was no network" in str(result.figures["what was done"])


def test_a_model_is_named_or_found(scan_file: Path, installed: ModelSpec, trained: RunResult) -> None:
    """[MODEL-001]"""
    scan = read_scan(scan_file)
    assert model_archive("pretrained", scan) == model_archive("family-32", scan) == installed.path
    assert model_archive(trained.folder, scan) == trained.files["model"]
    assert find_pretrained(scan) == installed.path


def test_a_scan_that_no_model_fits(scan_file: Path, installed: ModelSpec) -> None:
    """[MODEL-001]"""
    scan = read_scan(scan_file)
    wide = scan.patterns[:4].repeat(2, axis=1).repeat(2, axis=2)
    other = type(scan)(
        patterns=wide,
        measurement=scan.measurement,
        positions=scan.positions[:4],
        probe=np.ones((1, 64, 64), np.complex64),
        scan_index=scan.scan_index[:4],
        bad_pixels=np.zeros((64, 64), bool),
        metadata=scan.metadata,
    )
    with pytest.raises(UsageError, match=r"for patterns of 64 x 64 pixels. The installed ones are for N = 32"):
        model_archive("pretrained", other)


def test_a_network_starts_a_sparse_scan(scan_file: Path, installed: ModelSpec, tmp_path: Path) -> None:
    """[AUTO-001] The installed model is used where patterns overlap little."""
    result = reconstruct_run(scan_file, tmp_path / "out", settings=SETTINGS)
    story = str(result.figures["what was done"])
    assert "network" in story
    assert "there was no network" not in story


@pytest.mark.parametrize(
    ("width", "said"), [(6.0, "better than the network|After a network"), (0.5, "No network was asked: it is for")]
)
def test_a_network_for_the_inner_half_of_patterns(
    installed: ModelSpec, tmp_path: Path, width: float, said: str
) -> None:
    """[AUTO-006] [AUTO-011] It is found, and asked unless too much light lies outside of that half."""
    y, x = np.indices((64, 64)) - 31.5
    probe = np.exp(-(y**2 + x**2) / (2 * width**2))[None].astype(np.complex64)
    scan = simulate_scan(SimulationConfig(N=64, rows=4, cols=4, step_px=30, seed=3), probe=probe)
    write_scan(tmp_path / "wide.npz", scan)
    result = reconstruct_run(tmp_path / "wide.npz", tmp_path / "out", settings=SETTINGS, only_product=True)
    assert re.search(said, str(result.figures["what was done"]))


@pytest.mark.parametrize("others", [("numpy",), ()])
def test_another_backend_or_none(
    scan_file: Path, installed: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]
) -> None:
    """[AUTO-006] An installed model works with any backend; without one, passes start from flat."""
    archive = read_bundle(installed.path)
    writer = archive.manifest.writer.model_copy(update={"backend": "elsewhere"})
    write_bundle(installed.path, archive.manifest.model_copy(update={"writer": writer}), archive.weights)
    specs = {name: backends.discover().get(name) for name in others}
    monkeypatch.setattr("ptychopinn.workflows._backends.discover", lambda: Registry(specs, dict.fromkeys(specs, "")))
    result = reconstruct_run(scan_file, tmp_path / "out", settings=SETTINGS)
    assert ("there was no network" in str(result.figures["what was done"])) == (not others)


@pytest.mark.slow
def test_the_object_so_far_is_written(scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[AUTO-005]"""
    monkeypatch.setattr("ptychopinn.workflows._reconstruct._UPDATE_S", 0.0)
    seen: list[str] = []

    def noted(folder: Path, *args: Any, **more: Any) -> Any:
        files = write_object(folder, *args, **more)
        seen.append(read_product(files["product"]).comments)
        return files

    monkeypatch.setattr("ptychopinn.workflows._reconstruct.write_object", noted)
    reconstruct_run(scan_file, tmp_path / "out", model="none", settings=SETTINGS)
    assert seen
    assert all(comments == "ptychopinn reconstruct, so far" for comments in seen)
