"""Evaluate, simulate, demonstrate, and reconstructors by name. Requirements: specs/09-command-line.md."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy_backend import NumpyReconstructor

from ptychopinn.atomic import write_csv
from ptychopinn.config import ModelConfig, SimulationConfig
from ptychopinn.data.io import read_scan
from ptychopinn.errors import ConfigError, DataError, PluginError, UsageError
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.product import read_product
from ptychopinn.workflows import (
    RunResult,
    create_reconstructor,
    demo_run,
    evaluate_run,
    load_reconstructor,
    simulate_run,
)
from ptychopinn.workflows.lock import locked

SIMULATION = SimulationConfig(N=32, rows=8, cols=8, seed=4)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scan large enough to be scored, and a product of it."""
    from ptychopinn.data.dataset import ScanDataset
    from ptychopinn.product import product_of, write_product

    folder = tmp_path_factory.mktemp("pair")
    scan: ScanDataset = read_scan(simulate_run(SIMULATION, folder / "scan.npz"))
    assert scan.object_guess is not None
    noise = 0.05 * np.random.default_rng(0).standard_normal(scan.object_guess.shape)
    write_product(folder / "product.h5", product_of(scan, 2j * scan.object_guess + noise, scan.probe))
    return folder / "product.h5", folder / "scan.npz"


def test_scores_are_those_of_the_metrics(pair: tuple[Path, Path]) -> None:
    """[CLI-022]"""
    scores = evaluate_run(*pair)
    scan, product = read_scan(pair[1]), read_product(pair[0])
    assert scan.object_guess is not None
    expected = score(align(scan.object_guess, product.object, scan_box(scan.positions, scan.object_guess.shape)))
    assert scores == pytest.approx(expected)
    assert scores["amp_ssim"] > 0.7
    assert evaluate_run(*pair, scan_path=pair[1]) == pytest.approx(scores)


def test_a_product_may_be_the_reference(pair: tuple[Path, Path]) -> None:
    assert evaluate_run(pair[0], pair[0])["nrmse"] < 1e-3


def test_run_directories_stand_for_their_products(trained: RunResult, scan_file: Path) -> None:
    """[CLI-022]"""
    product = trained.folder / "reconstruction.h5"
    assert evaluate_run(trained.folder, scan_file) == evaluate_run(product, scan_file)
    assert evaluate_run(product, trained.folder)["nrmse"] < 1e-3


def test_scores_and_a_picture_go_into_a_directory(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """[CLI-022]"""
    scores = evaluate_run(*pair, output=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == pytest.approx(scores)
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="is there and not empty"):
        evaluate_run(*pair, output=tmp_path / "out")


def test_an_evaluation_removes_nothing_of_a_run(pair: tuple[Path, Path], trained: RunResult) -> None:
    """[CLI-015] [CLI-022] [HARD-013] It replaces an evaluation, and no run."""
    before = sorted(path.name for path in trained.folder.iterdir())
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="that no evaluation wrote|not empty"):
            evaluate_run(*pair, output=trained.folder, overwrite=overwrite)
    assert sorted(path.name for path in trained.folder.iterdir()) == before


def test_an_evaluation_replaces_an_evaluation(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """[CLI-015] [CLI-022]"""
    evaluate_run(*pair, output=tmp_path / "out")
    (tmp_path / "out" / "scores.json").write_text("old")
    evaluate_run(*pair, output=tmp_path / "out", overwrite=True)
    assert "nrmse" in (tmp_path / "out" / "scores.json").read_text()


def test_the_scan_says_where_the_product_lies(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """[CLI-022] In the reference's frame, whatever its size."""
    from ptychopinn.data.io import write_scan

    data = read_scan(pair[1])
    assert data.object_guess is not None
    wide = np.pad(data.object_guess, ((0, 60), (60, 0)), mode="wrap")
    np.savez(tmp_path / "wide.npz", object=wide)
    moved = replace(data, positions=data.positions + np.array([0, 60]), object_guess=None)
    write_scan(tmp_path / "moved.npz", moved)
    scores = evaluate_run(pair[0], tmp_path / "wide.npz", scan_path=tmp_path / "moved.npz")
    assert scores == pytest.approx(evaluate_run(*pair), rel=1e-3)
    write_scan(tmp_path / "few.npz", moved.select(np.arange(9)))
    with pytest.raises(DataError, match="has 64 positions that are not all among the 9 of the scan"):
        evaluate_run(pair[0], tmp_path / "wide.npz", scan_path=tmp_path / "few.npz")
    write_scan(tmp_path / "other.npz", replace(moved, positions=moved.positions[::-1].copy()))
    with pytest.raises(DataError, match="pixels from those of the scan"):
        evaluate_run(pair[0], tmp_path / "wide.npz", scan_path=tmp_path / "other.npz")


def test_a_simulated_file_is_replaced_only_when_asked(tmp_path: Path) -> None:
    """[CLI-015] [CLI-023]"""
    path = simulate_run(SIMULATION, tmp_path / "scan.npz")
    first = path.read_bytes()
    with pytest.raises(UsageError, match=r"scan\.npz exists already.*--overwrite"):
        simulate_run(SIMULATION.model_copy(update={"seed": 5}), path)
    assert path.read_bytes() == first
    simulate_run(SIMULATION.model_copy(update={"seed": 5}), path, overwrite=True)
    assert path.read_bytes() != first
    assert len(read_scan(path)) == 64


def test_reconstructors_by_the_name_of_their_backend(trained: RunResult) -> None:
    made = create_reconstructor("numpy", ModelConfig(N=64), {"accelerator": "cpu"})
    assert isinstance(made, NumpyReconstructor)
    assert made.model.N == 64
    for backend in (None, "numpy"):
        loaded = load_reconstructor(trained.files["model"], backend=backend)
        assert isinstance(loaded, NumpyReconstructor)
        assert loaded.model.N == 32
    with pytest.raises(PluginError, match="no backend 'jax'"):
        create_reconstructor("jax", ModelConfig(N=64))
    with pytest.raises(ConfigError, match="warp"):
        load_reconstructor(trained.files["model"], options={"warp": 9})


@pytest.mark.slow
def test_the_demonstration_runs_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[CLI-027]"""
    monkeypatch.setattr("ptychopinn.workflows._demo._SIDE", 9)
    monkeypatch.setattr("ptychopinn.workflows._demo.SimulationConfig", _small)
    result = demo_run(tmp_path / "demo", backend="numpy", max_time=1.0)
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == [
        "evaluation",
        "reconstruction",
        "test.npz",
        "train.npz",
        "training",
    ]
    assert {"phase", "amplitude", "comparison", "model", "product"} <= set(result.files)
    assert all(path.is_file() for path in result.files.values())
    assert 0 < result.figures["nrmse"] < 0.5
    with pytest.raises(UsageError, match="is there and not empty"):
        demo_run(tmp_path / "demo", backend="numpy")


def test_a_demonstration_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[HARD-013] [HARD-030] One at a time."""
    pytest.importorskip("fcntl", reason="without it files have no locks here")
    monkeypatch.setattr("ptychopinn.workflows._demo._SIDE", 3)
    monkeypatch.setattr("ptychopinn.workflows._demo.SimulationConfig", _small)
    (tmp_path / "training").mkdir()
    with locked(tmp_path), pytest.raises(UsageError, match="in use by process"):
        demo_run(tmp_path, backend="numpy", overwrite=True)
    with pytest.raises(PluginError, match="no backend 'jax'"):
        demo_run(tmp_path, backend="jax", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


def _small(**settings: int) -> SimulationConfig:
    return SimulationConfig(**{**settings, "N": 32})


def test_what_is_not_known_is_empty_in_the_history(tmp_path: Path) -> None:
    write_csv(tmp_path / "history.csv", ("epoch", "validation_loss"), [(1.0, float("nan")), (2.0, 0.123456789012)])
    assert (tmp_path / "history.csv").read_text().split() == ["epoch,validation_loss", "1,", "2,0.123456789"]
