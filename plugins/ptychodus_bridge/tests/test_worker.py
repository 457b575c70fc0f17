"""The worker process and what a directory holds to train on (specs/12-ptychodus.md)."""

from __future__ import annotations

import inspect
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

from bridge_scans import make_input, simulated, write_scan_folder
from ptychodus.api.settings import SettingsRegistry

from ptychopinn.bundle import ArchiveKind, Manifest, TrainingSummary, Writer, write_bundle
from ptychopinn.config import ModelConfig
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import ArchiveError, DataError
from ptychopinn.jobs import JobError
from ptychopinn.plugins import discover
from ptychopinn_ptychodus.archives import load_model, with_losses
from ptychopinn_ptychodus.reconstructor import BridgeReconstructor
from ptychopinn_ptychodus.run_state import PROGRESS_GOAL, Host
from ptychopinn_ptychodus.settings import EntrySettings, entry_settings
from ptychopinn_ptychodus.supervision import shares_of
from ptychopinn_ptychodus.training_data import find_training_files, scan_files


def _entry(backend: str, host: Host) -> BridgeReconstructor:
    spec = discover().get(backend)
    return BridgeReconstructor(backend, "pinn", EntrySettings(SettingsRegistry(), "g", entry_settings(spec)), host)


class _Window(Host):
    """Records what the window would show, and presses Stop at a point of the progress bar."""

    def __init__(self, stop_at: int = PROGRESS_GOAL) -> None:
        super().__init__()
        self.bar: list[int] = []
        self.stop_at = stop_at

    @property
    def stop_wanted(self) -> bool:
        return bool(self.bar) and self.bar[-1] >= self.stop_at

    def show_progress(self, progress: int) -> None:
        self.bar.append(progress)


def test_training_files(tmp_path: Path) -> None:
    """[PTY-030] train_data.npz, else Ptychodus's pair, else the only NPZ file; several are refused by name."""
    assert find_training_files(tmp_path) is None
    scan = write_scan_folder(tmp_path)
    files = find_training_files(tmp_path)
    assert files is not None
    assert files.product == tmp_path / "product.h5"
    (tmp_path / "scratch").mkdir()
    path, validation = scan_files(files, tmp_path / "scratch")
    data = read_scan(path)
    assert data.object_guess is not None
    np.testing.assert_allclose(data.positions, scan.positions, atol=1e-6)
    assert validation is None
    write_scan(tmp_path / "mine.npz", scan)
    files = find_training_files(tmp_path)
    assert files is not None
    assert files.product == tmp_path / "product.h5"
    (tmp_path / "product.h5").unlink()
    files = find_training_files(tmp_path)
    assert files is not None
    assert files.train == tmp_path / "mine.npz"
    write_scan(tmp_path / "test_data.npz", scan)
    with pytest.raises(DataError, match=r"2 NPZ files: mine.npz, test_data.npz.*train_data.npz"):
        find_training_files(tmp_path)
    write_scan(tmp_path / "train_data.npz", scan)
    files = find_training_files(tmp_path)
    assert files is not None
    assert scan_files(files, tmp_path / "scratch") == (tmp_path / "train_data.npz", tmp_path / "test_data.npz")


def test_damaged_pair_is_refused(tmp_path: Path) -> None:
    """[PTY-043] Files that are not Ptychodus's are refused in words."""
    write_scan_folder(tmp_path)
    (tmp_path / "product.h5").write_bytes(b"nothing")
    files = find_training_files(tmp_path)
    assert files is not None
    with pytest.raises(DataError, match="cannot be read as a scan"):
        scan_files(files, tmp_path)


def test_the_bar_moves_in_every_stage(
    tmp_path: Path, third_party: Path | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[PTY-034] [PTY-035] [PTY-038] [PTY-046] Train and infer as the command line does, refinement and all."""
    if third_party is None:
        pytest.skip("the example backend is not beside the tests")
    monkeypatch.syspath_prepend(str(third_party))
    scan = write_scan_folder(tmp_path)
    window = _Window()
    entry = _entry("numpy", window)
    for name, value in {"nepochs": "2", "probe_refinement": "2", "batch_size": "2"}.items():
        entry.settings.parameter("train", name).set_value(value)
    entry.settings.parameter("infer", "refine").set_value("4")
    with caplog.at_level(logging.INFO):
        (trained,) = entry.train(tmp_path, tmp_path / "out")
    assert [loss.epoch for loss in trained.training_loss] == [1, 2]
    assert "Training finished" in caplog.text
    shares = shares_of("train")
    for low, high in shares.values():
        assert any(low < value / PROGRESS_GOAL <= high for value in window.bar)
    window.bar.clear()
    given = make_input(scan)
    (output,) = entry.reconstruct(given)
    assert [(loss.epoch, loss.value) for loss in output.product.losses] == entry._model.losses  # type: ignore[union-attr]
    assert output.product.object_.get_array().shape[1:] == scan.object_guess.shape
    shares = shares_of("infer")
    assert set(shares) == {"predict", "synchronise", "stitch", "slow phase", "refine"}
    reached = {
        stage: any(low < value / (PROGRESS_GOAL - 1) <= high + 1e-3 for value in window.bar)
        for stage, (low, high) in shares.items()
    }
    assert all(reached.values()), (reached, window.bar)
    assert window.bar == sorted(window.bar)
    assert not Path(f"/proc/{window.latest_run.worker_pid}").exists()  # type: ignore[union-attr]
    entry.settings.parameter("train", "learning_rate").set_value("7")
    with pytest.raises(JobError, match="learning_rate is 7") as caught:
        list(entry.train(tmp_path, tmp_path / "out"))
    assert caught.value.remedy
    assert "Traceback" not in caught.value.details


def test_what_refinement_does_not_take_goes_to_the_rest() -> None:
    """[PTY-035] The shares of the bar add up, with refinement and without."""
    for shares in (shares_of("train"), shares_of("infer"), shares_of("infer", left_out="refine")):
        edges = [edge for share in shares.values() for edge in share]
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == (0, pytest.approx(1))


def test_stop_before_the_first_step_leaves_nothing(
    tmp_path: Path, third_party: Path | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[PTY-036] Stopped while the probe is refined, a training has no model, and no process and no folder stay."""
    if third_party is None:
        pytest.skip("the example backend is not beside the tests")
    monkeypatch.syspath_prepend(str(third_party))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_scan_folder(tmp_path / "scan")
    window = _Window(stop_at=1)
    entry = _entry("numpy", window)
    entry.settings.parameter("train", "probe_refinement").set_value("1000")
    with caplog.at_level(logging.INFO):
        assert list(entry.train(tmp_path / "scan", tmp_path / "out")) == []
    assert "there is no model" in caplog.text or "cancelled" in caplog.text.lower()
    assert not entry.is_model_loaded()
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("ptychopinn-ptychodus-*"))


def _archive(path: Path, **changes: Any) -> Path:
    manifest = Manifest(
        writer=Writer(ptychopinn="0", backend="b"), model=ModelConfig(N=32), training=TrainingSummary(status="finished")
    ).model_copy(update=changes)
    write_bundle(path, with_losses(manifest, [[1, 0.5], [2, 0.25]]), {"a": np.ones(3, np.float32)})
    return path


def test_only_whole_models_of_the_type_are_loaded(tmp_path: Path) -> None:
    """[PTY-031] [PTY-046] Damaged files, checkpoints and models of another type are refused; losses are found again."""
    good = _archive(tmp_path / "good.zip")
    model = load_model(good, "pinn")
    assert model.losses == [(1, 0.5), (2, 0.25)]
    assert "N = 32, pinn, written by b, 0 epochs" in model.summary
    with pytest.raises(ArchiveError, match="of the type pinn; this entry takes supervised"):
        load_model(good, "supervised")
    with pytest.raises(ArchiveError, match="checkpoint of a training"):
        load_model(_archive(tmp_path / "c.zip", kind=ArchiveKind.CHECKPOINT), "pinn")
    content = bytearray(good.read_bytes())
    content[-300] ^= 255
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(bytes(content))
    with pytest.raises(ArchiveError):
        load_model(damaged, "pinn")
    with pytest.raises(ArchiveError):
        load_model(tmp_path / "absent.zip", "pinn")


def test_exported_scan_is_read_again(tmp_path: Path) -> None:
    """[PTY-033] Exported training data are a scan file to the contract; a name without a suffix gets one."""
    scan = simulated(bad_pixel_fraction=0.02)
    entry = BridgeReconstructor("b", "pinn", EntrySettings(SettingsRegistry(), "g", []), Host())
    entry.export_training_data(tmp_path / "out", make_input(scan, bad=scan.bad_pixels))
    data = read_scan(tmp_path / "out.npz")
    np.testing.assert_allclose(data.counts(slice(None)), scan.counts(slice(None)), rtol=1e-5)
    np.testing.assert_allclose(data.positions, scan.positions, atol=1e-6)
    assert os.path.getsize(tmp_path / "out.npz") > 0


def test_ptychodus_own_export_is_read(tmp_path: Path) -> None:
    """[PTY-030] Training data that Ptychodus itself exported are read as the same scan."""
    from ptychodus.api.io import save_ptychopinn_training_data

    scan = simulated(bad_pixel_fraction=0.01)
    asked = inspect.signature(save_ptychopinn_training_data).parameters
    modes = {"multimodal_probe": True} if "multimodal_probe" in asked else {}  # 1.6 asks for it
    save_ptychopinn_training_data(tmp_path / "train_data.npz", make_input(scan, bad=scan.bad_pixels), **modes)
    files = find_training_files(tmp_path)
    assert files is not None
    data = read_scan(scan_files(files, tmp_path)[0])
    np.testing.assert_allclose(data.positions, scan.positions, atol=1e-6)
    np.testing.assert_array_equal(data.counts(slice(None)), scan.counts(slice(None)))
    with np.load(tmp_path / "train_data.npz") as exported:
        if "bad_pixels" in exported:  # 1.6 exports none
            np.testing.assert_array_equal(data.bad_pixels, scan.bad_pixels)
