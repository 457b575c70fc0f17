"""Reconstruct a scan file with a saved model. Requirements: specs/09-command-line.md."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychopinn.bundle import read_bundle, write_bundle
from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.data.sizes import place_centred, resample_probe
from ptychopinn.errors import ArchiveError, Cancelled, ConfigError, DataError, PluginError, UsageError
from ptychopinn.metrics import scan_box
from ptychopinn.monitor import Monitor
from ptychopinn.product import read_product
from ptychopinn.refinement import Refinement, refine
from ptychopinn.simulate import simulate_scan
from ptychopinn.verdict import Explains
from ptychopinn.workflows import RunResult, infer_run, run_settings
from ptychopinn.workflows._outputs import probe_width_percent

CONTENT = [
    "amplitude.png",
    "phase.png",
    "probe.png",
    "reconstruction.h5",
    "reconstruction.json",
    "report.html",
    "run.log",
]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_reconstructs_a_scan(trained: RunResult, scan_file: Path, tmp_path: Path) -> None:
    """[CLI-021] the same object as the training's own reconstruction."""
    result = infer_run(trained.folder, scan_file, tmp_path / "out")
    assert names(tmp_path / "out") == CONTENT
    assert set(result.files) == {"product", "sidecar", "amplitude", "phase", "probe", "report"}
    assert result.figures["patches placed"] == 36
    found, before = (read_product(r.files["product"]).object for r in (result, trained))
    np.testing.assert_allclose(found, before, atol=1e-5)


@pytest.mark.usefixtures("without_pictures")
def test_a_result_that_explains_nothing_says_so_everywhere(
    trained: RunResult, scan_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[VER-004] [PROD-009] [REP-013] in log, report, product, sidecar and result."""
    scan = read_scan(scan_file)
    mixed = np.random.default_rng(0).permutation(len(scan))
    write_scan(tmp_path / "mixed.npz", replace(scan, positions=scan.positions[mixed], object_guess=None))
    with caplog.at_level("WARNING", logger="ptychopinn"):
        result = infer_run(trained.folder, tmp_path / "mixed.npz", tmp_path / "out")
    words = "This reconstruction does not explain the data"
    sidecar = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert result.verdict is not None
    assert result.verdict.explains is Explains.NO
    assert result.warnings[0].startswith(words)
    assert sidecar["verdict"]["explains_the_data"] == sidecar["figures"]["explains the data"] == "no"
    assert sidecar["verdict"]["causes"] == list(result.verdict.causes)
    assert sidecar["warnings"] == list(result.warnings)
    for text in (caplog.text, read_product(result.files["product"]).comments, result.files["report"].read_text()):
        assert words in text
    report = result.files["report"].read_text()
    assert report.count(words) == 1
    assert f'<p class="verdict bad">{words}' in report
    good = infer_run(trained.folder, scan_file, tmp_path / "good")
    report = (tmp_path / "good" / "report.html").read_text()
    assert words not in report
    assert '<p class="verdict good">This reconstruction explains the data: R = ' in report
    assert report.count('<div class="slider">') == 1
    assert good.verdict is not None
    assert good.verdict.explains is not Explains.NO


def test_the_model_that_is_used_is_not_replaced(trained: RunResult, scan_file: Path) -> None:
    """[CLI-021] [HARD-013]"""
    before = names(trained.folder)
    with pytest.raises(UsageError, match=r"directory of the model.*another --output"):
        infer_run(trained.folder, scan_file, trained.folder.parent / "run" / ".." / "run", overwrite=True)
    assert names(trained.folder) == before


@pytest.mark.usefixtures("without_pictures")
def test_an_archive_alone_will_do(trained: RunResult, scan_file: Path, tmp_path: Path) -> None:
    """[CLI-021]"""
    shutil.copy(trained.files["model"], tmp_path / "any name")
    result = infer_run(tmp_path / "any name", scan_file, tmp_path / "out", run_settings(infer={"synchronise": "off"}))
    assert result.figures["synchronisation"] == "off"
    assert (tmp_path / "out" / "reconstruction.h5").is_file()


@pytest.fixture
def wide_scan(tmp_path: Path) -> Path:
    """36 patterns over an area that suffices for standard errors."""
    path = tmp_path / "wide.npz"
    write_scan(path, simulate_scan(SimulationConfig(N=32, rows=6, cols=6, step_px=6, seed=1)))
    return path


def test_standard_errors_are_in_product_report_and_figures(trained: RunResult, wide_scan: Path, tmp_path: Path) -> None:
    """[UNC-006] [UNC-007] [PROD-001]"""
    settings = [run_settings(infer={"refine": 3, "uncertainty": flag}) for flag in (False, True)]
    both = [infer_run(trained.folder, wide_scan, tmp_path / f"{n}", one) for n, one in enumerate(settings)]
    plain, product = (read_product(result.files["product"]) for result in both)
    np.testing.assert_array_equal(product.object, plain.object)
    assert plain.phase_error is None
    assert product.phase_error is not None
    assert product.amplitude_error is not None
    assert product.frc is not None
    assert product.frc.shape[1] == 2
    figures = both[1].figures
    assert set(figures) - set(both[0].figures) == {
        "standard error of phase, rad (median)",
        "standard error of amplitude (median)",
        "resolution, px (half period)",
    }
    box = scan_box(product.local_positions, product.object.shape)
    median = float(np.median(product.phase_error[box.slices]))
    assert figures["standard error of phase, rad (median)"] == pytest.approx(median)
    assert both[1].files["uncertainty"].read_bytes().startswith(b"\x89PNG")
    assert "Standard errors of phase and amplitude" in both[1].files["report"].read_text()


def test_errors_of_too_few_patterns_are_refused_before_anything_is_written(trained: RunResult, tmp_path: Path) -> None:
    """[UNC-005]"""
    write_scan(tmp_path / "few.npz", simulate_scan(SimulationConfig(N=32, rows=4, cols=4, seed=1)))
    settings = run_settings(infer={"refine": 1, "uncertainty": True})
    with pytest.raises(DataError, match="two halves of the patterns"):
        infer_run(trained.folder, tmp_path / "few.npz", tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_without_a_pass_there_are_no_errors_and_a_warning_says_so(
    trained: RunResult, wide_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[UNC-005]"""

    def keep_none(*args: Any, **kwargs: Any) -> Refinement:
        found = refine(*args, **kwargs)
        return replace(found, summary=replace(found.summary, passes_kept=0))

    monkeypatch.setattr("ptychopinn.reconstruction.refine", keep_none)
    settings = run_settings(infer={"refine": 1, "uncertainty": True})
    result = infer_run(trained.folder, wide_scan, tmp_path / "out", settings)
    assert any("There are no standard errors" in warning for warning in result.warnings)
    assert "uncertainty" not in result.files


@pytest.mark.usefixtures("without_pictures")
def test_a_network_for_a_part_is_told(trained: RunResult, scan_file: Path, tmp_path: Path) -> None:
    """[REFINE-014]"""
    result = infer_run(
        trained.folder, scan_file, tmp_path / "out", run_settings(infer={"refine": 1, "predict_overlap": 0.3})
    )
    predicted = result.figures["patterns predicted"]
    assert isinstance(predicted, int)
    assert predicted < 36
    assert result.figures["patches placed"] == predicted
    assert "patterns predicted" not in trained.figures


@pytest.mark.usefixtures("without_pictures")
def test_options_and_settings_act(trained: RunResult, scan_file: Path, tmp_path: Path) -> None:
    """[RECON-002] A batch that does not fit is halved, told in the log, with the same result."""
    small = infer_run(
        trained.folder, scan_file, tmp_path / "out", run_settings("numpy", execution={"patterns_that_fit": 3})
    )
    assert "does not fit into memory" in (tmp_path / "out" / "run.log").read_text()
    found, before = (read_product(r.files["product"]).object for r in (small, trained))
    np.testing.assert_allclose(found, before, atol=1e-5)


def test_another_n_is_refused_before_anything_is_made(trained: RunResult, tmp_path: Path) -> None:
    """[REC-010]"""
    wide = tmp_path / "wide.npz"
    write_scan(wide, simulate_scan(SimulationConfig(N=64, rows=2, cols=2, seed=1)))
    with pytest.raises(DataError, match="64 x 64; this model has N = 32"):
        infer_run(trained.folder, wide, tmp_path / "out")
    assert names(tmp_path) == ["wide.npz"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "phase.png").write_text("old")
    with pytest.raises(DataError, match="64 x 64"):
        infer_run(trained.folder, wide, tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == ["phase.png"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"infer": {"inference_batch_size": 0}}, ConfigError, "inference_batch_size is 0"),
        ({"execution": {"warp": 9}}, ConfigError, "warp"),
        ({"backend": "jax"}, PluginError, "no backend 'jax'"),
        ({"model": "nowhere"}, UsageError, "model nowhere is not there"),
        ({"data_path": "nowhere.npz"}, DataError, "nowhere.npz"),
    ],
)
def test_refusals_leave_no_directory(
    trained: RunResult, scan_file: Path, tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        files = {"model": trained.folder, "data_path": scan_file, "output": tmp_path / "out"}
        files = {name: settings.get(name, path) for name, path in files.items()}
        infer_run(**files, settings=run_settings(**{k: v for k, v in settings.items() if k not in files}))
    assert names(tmp_path) == []


def test_a_damaged_archive_is_refused(trained: RunResult, scan_file: Path, tmp_path: Path) -> None:
    content = trained.files["model"].read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArchiveError, match="not a whole model archive"):
        infer_run(tmp_path / "cut.zip", scan_file, tmp_path / "out")
    assert names(tmp_path) == ["cut.zip"]


@pytest.mark.usefixtures("without_pictures")
def test_an_output_is_replaced_only_when_asked(trained: RunResult, scan_file: Path, tmp_path: Path) -> None:
    """[CLI-015] And a run's own directory is no place for an output of another."""
    (tmp_path / "phase.png").write_text("old")
    with pytest.raises(UsageError, match="is there and not empty"):
        infer_run(trained.folder, scan_file, tmp_path)
    assert names(tmp_path) == ["phase.png"]
    infer_run(trained.folder, scan_file, tmp_path, overwrite=True)
    assert names(tmp_path) == ["reconstruction.h5", "reconstruction.json", "report.html", "run.log"]


def test_a_cancelled_inference_leaves_nothing(trained: RunResult, scan_file: Path, tmp_path: Path) -> None:
    """[REC-009]"""
    monitor = Monitor(lambda progress: monitor.cancel())
    with pytest.raises(Cancelled):
        infer_run(trained.folder, scan_file, tmp_path / "out", monitor=monitor)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("without_pictures")
def test_the_product_is_written_in_other_formats_too(trained: RunResult, scan_file: Path, tmp_path: Path) -> None:
    """[PROD-020] Beside it, the same; and --overwrite replaces them."""
    for _ in range(2):
        result = infer_run(trained.folder, scan_file, tmp_path / "out", formats=["cxi", "nexus"], overwrite=True)
        whole = read_product(result.files["product"])
        for kind, name in (("cxi", "reconstruction.cxi"), ("nexus", "reconstruction.nxs")):
            assert result.files[kind] == tmp_path / "out" / name
            found = read_product(result.files[kind])
            np.testing.assert_array_equal(found.object, whole.object)
            np.testing.assert_allclose(found.local_positions, whole.local_positions, atol=1e-6)
    with pytest.raises(UsageError, match="no such format"):
        infer_run(trained.folder, scan_file, tmp_path / "other", formats=["png"])
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("size", [(28, 28), (35, 33), (30, 24)])
def test_patterns_of_any_size_are_reconstructed(
    trained: RunResult, scan_file: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    """[DATA-210] With a network for 32 x 32, without the user's help."""
    scan = read_scan(scan_file)
    np.savez(
        tmp_path / "scan.npz",
        diff3d=np.rint(place_centred(scan.counts(slice(None)), size)).astype(np.uint32),
        ycoords=scan.positions[:, 0] * size[0] / 32,
        xcoords=scan.positions[:, 1] * size[1] / 32,
        probeGuess=resample_probe(scan.probe, size),
    )
    result = infer_run(trained.folder, tmp_path / "scan.npz", tmp_path / "out")
    whole = infer_run(trained.folder, scan_file, tmp_path / "whole")
    figure = "forward residual R"
    assert float(result.figures[figure]) < 1.2 * float(whole.figures[figure]) + 0.02


@pytest.mark.usefixtures("without_pictures")
def test_the_scans_probe_is_used_where_the_models_is_of_other_light(
    trained: RunResult, scan_file: Path, tmp_path: Path
) -> None:
    """[VER-006] but not where both are the same, nor against the settings."""
    config = SimulationConfig(N=32, rows=6, cols=6, seed=5, nphotons=1e6, probe_kind="defocused")
    write_scan(tmp_path / "other.npz", replace(simulate_scan(config), object_guess=None))
    found = infer_run(trained.folder, tmp_path / "other.npz", tmp_path / "out")
    assert found.warnings[0].startswith("The probe of the scan is used")
    product = read_product(found.files["product"])
    probe = read_scan(tmp_path / "other.npz").probe
    like = np.abs(np.vdot(product.probe, probe)) / np.linalg.norm(product.probe) / np.linalg.norm(probe)
    assert like > 0.99
    asked = run_settings(infer={"probe_source": "model"})
    other = infer_run(trained.folder, tmp_path / "other.npz", tmp_path / "model", asked)
    assert not any("probe of the scan is used" in text for text in other.warnings)
    same = infer_run(trained.folder, scan_file, tmp_path / "same")
    assert not any("probe of the scan is used" in text for text in same.warnings)


@pytest.mark.usefixtures("without_pictures")
def test_a_scan_of_other_conditions_than_the_training_is_named(
    trained: RunResult, scan_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[VER-007] [ARC-017] Once in log, result and report; not for an archive that does not state its scan."""
    write_scan(tmp_path / "dim.npz", simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=1, nphotons=1e4)))
    found = infer_run(trained.folder, tmp_path / "dim.npz", tmp_path / "out")
    said = [text for text in found.warnings if text.startswith("The model was trained under other conditions")]
    assert len(said) == 1
    assert caplog.text.count(said[0]) == 1
    assert "7.9e+05 photons a pattern, here 7.9e+03: patterns are noisier" in said[0]
    assert "The model was trained under other conditions" in found.files["report"].read_text()
    alike = infer_run(trained.folder, scan_file, tmp_path / "alike")
    older = tmp_path / "older.zip"
    bundle = read_bundle(trained.files["model"])
    assert bundle.manifest.training is not None
    unstated = bundle.manifest.training.model_copy(update={"scan": None})
    write_bundle(older, bundle.manifest.model_copy(update={"training": unstated}), bundle.weights)
    of_older = infer_run(older, tmp_path / "dim.npz", tmp_path / "of_older")
    for result in (alike, of_older):
        assert not any("other conditions" in text for text in result.warnings)


def test_the_probe_is_as_large_as_beside_the_object() -> None:
    """[REP-014]"""
    assert [probe_width_percent(64, shown) for shown in (128, 40, 2000)] == [50, 100, 25]
