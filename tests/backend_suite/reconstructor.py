"""The reconstructor as others use it. Requirements: specs/07-reconstructor.md, specs/04-stitching.md."""

from __future__ import annotations

import csv
import importlib.util
import inspect
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend_suite.fits import Fit, Fits, New, Trained, patches_of, settings_of
from ptychopinn.bundle import Manifest, Writer, read_bundle, write_bundle
from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.errors import ArchiveError, Cancelled, DataError, PluginError, UsageError
from ptychopinn.metrics.quality import forward_residual
from ptychopinn.monitor import Monitor
from ptychopinn.reconstruction import reconstruct
from ptychopinn.reconstructor import Reconstructor, TrainStatus
from ptychopinn.simulate import simulate_scan

FRESH = """
import sys
import numpy as np
from backend_suite.fits import patches_of
from ptychopinn.config import SimulationConfig
from ptychopinn.simulate import simulate_scan

loaded = FITS.cls.load(sys.argv[1])
scan = simulate_scan(SimulationConfig(N=32, rows=5, cols=5, seed=1))
np.save(sys.argv[2], patches_of(loaded, scan))
"""


def test_it_has_the_methods_of_the_contract(fits: Fits, new: New) -> None:
    """[REC-001]"""
    assert isinstance(new(), Reconstructor)
    for name in ("__init__", "train", "infer", "save", "load"):
        ours, theirs = (inspect.signature(getattr(owner, name)).parameters for owner in (fits.cls, Reconstructor))
        assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()], name


# Save, load, predict


def test_a_model_predicts_the_same_in_a_fresh_process(
    fits: Fits, trained: Trained, scan: ScanDataset, tmp_path: Path
) -> None:
    """[REC-008]"""
    trained.reconstructor.save(tmp_path / "any name")
    command = fits.command(FRESH, tmp_path / "any name", tmp_path / "patches.npy")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "patches.npy"), trained.patches(scan), atol=1e-6)


def test_a_loaded_model_can_be_saved_and_trained_again(
    fits: Fits, trained: Trained, scan: ScanDataset, tmp_path: Path
) -> None:
    trained.reconstructor.save(tmp_path / "one.zip")
    loaded = fits.cls.load(tmp_path / "one.zip")
    assert loaded.model == trained.reconstructor.model
    loaded.save(tmp_path / "two.zip")
    one, two = (read_bundle(tmp_path / name) for name in ("one.zip", "two.zip"))
    assert one.manifest == two.manifest
    for name, array in one.weights.items():
        np.testing.assert_allclose(two.weights[name], array, rtol=1e-6, err_msg=name)
    assert loaded.train(scan, settings_of()).status is TrainStatus.FINISHED


def test_what_is_not_trained_can_do_nothing(new: New, scan: ScanDataset, tmp_path: Path) -> None:
    for act in (lambda: new().infer(scan, InferConfig()), lambda: new().save(tmp_path / "wts.h5.zip")):
        with pytest.raises(UsageError, match="not trained"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_archives_that_do_not_fit_are_refused(fits: Fits, trained: Trained, tmp_path: Path) -> None:
    trained.reconstructor.save(tmp_path / "whole.zip")
    content = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    manifest = Manifest(writer=Writer(ptychopinn="0", backend="other"), model=trained.reconstructor.model)
    write_bundle(tmp_path / "strange.zip", manifest, {"network/step": np.ones(1, np.float32)})
    for name in ("cut.zip", "strange.zip", "none.zip"):
        with pytest.raises(ArchiveError):
            fits.cls.load(tmp_path / name)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6])
def test_any_number_of_patterns(trained: Trained, scan: ScanDataset, count: int) -> None:
    """[REC-005] [REC-006] 0, 1, batch - 1, batch, batch + 1: each once, in the right shape, the same as alone."""
    prediction = trained.reconstructor.infer(scan.select(np.arange(count)), InferConfig(inference_batch_size=5))
    batches = list(prediction.batches)
    assert prediction.patch_size == 16
    assert [i for batch in batches for i in batch.indices.tolist()] == list(range(count))
    assert all(batch.patches.shape == (len(batch.indices), 16, 16) for batch in batches)
    assert all(batch.patches.dtype == np.complex64 for batch in batches)


@pytest.mark.parametrize("batch", [1, 7, 24, 25, 26])
def test_the_batch_size_does_not_matter(trained: Trained, scan: ScanDataset, batch: int) -> None:
    """[REC-006]"""
    np.testing.assert_allclose(trained.patches(scan, inference_batch_size=batch), trained.patches(scan), atol=1e-5)


def test_the_dose_does_not_matter(trained: Trained, scan: ScanDataset) -> None:
    """Counts times anything, as counts or as amplitudes."""
    brighter = replace(scan, counts_per_unit=1000.0)
    roots = replace(scan, patterns=np.sqrt(np.asarray(scan.patterns, np.float32)), measurement=Measurement.AMPLITUDE)
    for other in (brighter, roots):
        np.testing.assert_allclose(trained.patches(other), trained.patches(scan), atol=1e-4)


def test_the_probe_explains_the_counts(off_centre: ScanDataset, fit: Fit) -> None:
    """[REC-007] in counts of the scan, the offset of the detector in it: the true object fits the patterns."""
    found = fit(train={"detector_offset": "estimate"}, data=off_centre)
    probe = found.reconstructor.infer(off_centre, InferConfig()).probe
    assert (probe.shape, probe.dtype) == ((1, 32, 32), np.complex64)
    assert off_centre.object_guess is not None
    scaling = fit_scaling(off_centre)
    factor = np.sqrt((np.abs(off_centre.probe) ** 2).sum() / (np.abs(probe) ** 2).sum())
    expected = probe_in_counts(off_centre, scaling, follow_offset=True)
    np.testing.assert_allclose(probe, expected, atol=1e-3 * np.abs(expected).max())
    assert forward_residual(off_centre.object_guess * factor, (0, 0), probe, off_centre) < 0.07
    assert forward_residual(off_centre.object_guess, (0, 0), off_centre.probe, off_centre) > 0.1


def test_whose_probe_is_used(fit: Fit, scan: ScanDataset) -> None:
    found = fit(train={"probe_trainable": True, "nepochs": 8})
    other = replace(scan, probe=scan.probe * np.exp(0.5j * np.linspace(-1, 1, 32) ** 2).astype(np.complex64))
    by_model, by_scan = (
        found.reconstructor.infer(other, InferConfig(probe_source=source)) for source in ("model", "scan")
    )
    expected = probe_in_counts(other, fit_scaling(other), follow_offset=False)
    offset = found.arrays()["illumination/offset_px"]
    assert np.abs(np.abs(by_scan.probe) - np.abs(expected)).max() < 1e-3 * np.abs(expected).max()
    assert np.abs(by_model.probe - by_scan.probe).max() > 1e-2 * np.abs(expected).max()
    assert np.abs(offset).max() < 1
    model, scans = (next(prediction.batches).patches for prediction in (by_model, by_scan))
    assert not np.allclose(model, scans, atol=1e-4)


def test_another_n_is_refused(new: New, trained: Trained) -> None:
    """[REC-010] with both numbers."""
    wide = simulate_scan(SimulationConfig(N=64, rows=2, cols=2))
    with pytest.raises(DataError, match="64 x 64; this model has N = 32"):
        trained.reconstructor.infer(wide, InferConfig())
    with pytest.raises(DataError, match="64 x 64; this model has N = 32"):
        new().train(wide, settings_of())


def test_an_object_comes_out(fit: Fit, scan: ScanDataset) -> None:
    """[RECON-001] through the core's stitching."""
    found = fit(train={"nepochs": 24, "n_groups": None, "batch_size": 1})
    result = reconstruct(found.reconstructor, scan, InferConfig(refine=0))
    assert (result.placed, result.dropped) == (25, 0)
    flat = forward_residual(np.ones_like(result.object), (0, 0), result.probe, scan)
    assert result.residual < 0.7 * flat


# Cancellation, isolation, determinism


def test_a_cancelled_training_is_usable(fits: Fits, fit: Fit, scan: ScanDataset, tmp_path: Path) -> None:
    """[REC-009]"""
    monitor = Monitor(lambda progress: monitor.cancel() if progress.done == 2 else None)
    found = fit(train={"nepochs": 9}, monitor=monitor)
    assert found.result.status is TrainStatus.CANCELLED
    found.reconstructor.save(tmp_path / "wts.h5.zip")
    loaded = fits.cls.load(tmp_path / "wts.h5.zip")
    np.testing.assert_array_equal(patches_of(loaded, scan), found.patches(scan))


def test_inference_is_cancelled_between_batches(trained: Trained, scan: ScanDataset) -> None:
    """[REC-009]"""
    monitor = Monitor()
    prediction = trained.reconstructor.infer(scan, InferConfig(inference_batch_size=4), monitor=monitor)
    next(prediction.batches)
    monitor.cancel()
    with pytest.raises(Cancelled, match="after 4 of 25"):
        next(prediction.batches)


def test_two_instances_do_not_disturb_each_other(fit: Fit, trained: Trained, scan: ScanDataset) -> None:
    """[REC-002] trained before, after, or while the other predicts."""
    before = trained.patches(scan)
    stream = trained.reconstructor.infer(scan, InferConfig(inference_batch_size=10)).batches
    first = next(stream).patches
    other = fit(model={"amp_activation": "exp"}, train={"seed": 3, "nepochs": 2})
    rest = [batch.patches for batch in stream]
    np.testing.assert_allclose(np.concatenate([first, *rest]), before, atol=1e-5)
    np.testing.assert_array_equal(trained.patches(scan), before)
    alone = fit(model={"amp_activation": "exp"}, train={"seed": 3, "nepochs": 2})
    np.testing.assert_array_equal(alone.patches(scan), other.patches(scan))


def test_the_same_settings_give_the_same_archive(fit: Fit, tmp_path: Path) -> None:
    """[REC-004] weights bit by bit."""
    found = []
    for name in ("one", "two"):
        fit().reconstructor.save(tmp_path / name)
        found.append(read_bundle(tmp_path / name).weights)
    assert found[0].keys() == found[1].keys()
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name], err_msg=name)


# Loggers


def test_the_history_as_csv(fit: Fit, tmp_path: Path) -> None:
    found = fit(train={"nepochs": 2}, options={"logger": "csv"}, checkpoint_dir=tmp_path / "checkpoints")
    (path,) = tmp_path.glob("csv/**/metrics.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == pytest.approx(found.result.history["loss"])
    assert [int(row["step"]) for row in rows] == [4, 8]


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named(
    fits: Fits, new: New, scan: ScanDataset, tmp_path: Path, kind: str
) -> None:
    """With the command that installs it; before any work, and the instance stays as it was."""
    if importlib.util.find_spec(kind) is not None or importlib.util.find_spec("tensorboardX") is not None:
        pytest.skip(f"{kind} is installed here")
    made = new(options={"logger": kind})
    with pytest.raises(PluginError, match=f"'{kind}' is not installed") as caught:
        made.train(scan, settings_of(), checkpoint_dir=tmp_path / "checkpoints")
    assert caught.value.remedy == f"Install it: python -m pip install {kind}"
    with pytest.raises(UsageError, match="not trained"):
        made.infer(scan, InferConfig())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
def test_a_tracker_needs_a_folder(new: New, scan: ScanDataset, kind: str) -> None:
    with pytest.raises(UsageError, match="needs a folder"):
        new(options={"logger": kind}).train(scan, settings_of())
