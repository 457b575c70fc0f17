"""``ptychopinn parity``: specs/18-parity-check.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toy_distribution import install_plugins

from ptychopinn.cli import main
from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.errors import ConfigError, DataError, PtychoPinnError, UsageError
from ptychopinn.parity import STAGES, parity_run
from ptychopinn.parity.stages import difference_of, first_difference, offset_of, statistics_of
from ptychopinn.report import stage_picture
from ptychopinn.simulate import simulate_object, simulate_scan
from ptychopinn.workflows import run_settings, train_run


@pytest.fixture(scope="module", autouse=True)
def plugins(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        install_plugins(tmp_path_factory.mktemp("toys"), patch)
        yield


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    write_scan(path, simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=1)))
    return path


@pytest.fixture(scope="module")
def models(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Trainings of different length."""
    folder = tmp_path_factory.mktemp("models")
    for epochs in (1, 5):
        train = {"nepochs": epochs, "probe_refinement": 0}
        train_run(scan, folder / str(epochs), run_settings("numpy", train=train))
    return [folder / "1", folder / "5"]


@pytest.mark.slow
def test_the_same_twice_agrees(scan: Path, models: list[Path], tmp_path: Path) -> None:
    """[PAR-001] [PAR-003] Nothing differs, and every stage has its picture."""
    result = parity_run(scan, models[:1], tmp_path / "out", backends=["numpy", "numpy"])
    assert result.first is None
    assert all(values["relative"] == 0 for values in result.differences.values())
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["first_difference"] is None
    assert stats["stages"]["prediction"]["a"]["shape"] == [8, 16, 16]
    assert stats["stages"]["input"]["b"]["value"]["largest"] > 1
    offsets = json.loads((tmp_path / "out" / "offsets.json").read_text())
    assert offsets["patches_px"]["a"] == offsets["patches_px"]["b"]
    assert offsets["stages"]["canvas"]["factor"] == pytest.approx(1)
    for stage in STAGES:
        assert (tmp_path / "out" / f"{stage}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_two_devices_of_one_backend(scan: Path, models: list[Path], tmp_path: Path) -> None:
    """[PAR-004] With one model, and with the backend that wrote it; each side computes on its own."""
    result = parity_run(scan, models[:1], tmp_path / "out", devices=["cpu", "auto"], options={"accelerator": "cuda"})
    assert result.first is None
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["sides"] == {"a": "numpy, cpu", "b": "numpy, auto"}
    tasks = [json.loads((tmp_path / "out" / side / "task.json").read_text()) for side in "ab"]
    assert [task["arguments"]["options"] for task in tasks] == [{"accelerator": "cpu"}, {"accelerator": "auto"}]
    apart = parity_run(scan, models, tmp_path / "two", devices=["cpu", "cpu"])
    assert apart.first == "prediction"


@pytest.mark.slow
def test_the_command_on_two_devices(
    scan: Path, models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """[PAR-004]"""
    arguments = ["parity", str(models[0]), "--data", str(scan), "-o", str(tmp_path / "out"), "--quiet"]
    assert main([*arguments, "--devices", "cpu,cpu"]) == 0
    assert "first difference: none" in capsys.readouterr().out
    for wrong, told in (
        (["--devices", "cpu"], "1 devices were given"),
        (["--devices", "cpu,mps"], "accelerator is mps: it has no double precision"),
        (["--devices", "cpu,cpu", "--accelerator", "cpu"], "--accelerator and --devices were given"),
    ):
        assert main([*arguments, "--overwrite", *wrong]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.slow
def test_two_models_first_differ_where_they_do(scan: Path, models: list[Path], tmp_path: Path) -> None:
    """[PAR-001] [PAR-002] Their input is the same, their prediction is not."""
    result = parity_run(scan, models, tmp_path / "out", patterns=5)
    assert result.first == "prediction"
    assert result.differences["input"]["relative"] == 0
    assert result.differences["intensity"]["relative"] > 0
    relaxed = parity_run(scan, models, tmp_path / "out", patterns=5, tolerance=1e9, overwrite=True)
    assert relaxed.first is None


@pytest.mark.slow
def test_the_command(scan: Path, models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """[PAR-002] The exit code tells."""
    arguments = ["parity", *map(str, models), "--data", str(scan), "-o", str(tmp_path / "out"), "--quiet"]
    assert main(arguments) == 1
    assert "first difference: prediction" in capsys.readouterr().out
    assert main([*arguments, "--overwrite", "--json", "--tolerance", "1e9", "--accelerator", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["first_difference"] is None


def test_refusals(scan: Path, models: list[Path], tmp_path: Path) -> None:
    """[PAR-001]"""
    for given, backends in ((models[:1], []), (models, ["numpy"]), ([], ["numpy", "numpy"])):
        with pytest.raises(UsageError, match="one model and two backends or two devices, or two models"):
            parity_run(scan, given, tmp_path / "out", backends=backends)
    with pytest.raises(UsageError, match="1 models, 0 backends and 1 devices"):
        parity_run(scan, models[:1], tmp_path / "out", devices=["cpu"])
    with pytest.raises(ConfigError, match="accelerator is tpu"):
        parity_run(scan, models[:1], tmp_path / "out", devices=["cpu", "tpu"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="the scan has 36"):
        parity_run(scan, models, tmp_path / "out", patterns=37)


def test_a_side_that_fails_is_told(models: list[Path], tmp_path: Path) -> None:
    """[PAR-001] With its reason."""
    write_scan(tmp_path / "wide.npz", simulate_scan(SimulationConfig(N=64, rows=3, cols=3)))
    with pytest.raises(PtychoPinnError, match=r"Side a \(numpy.*64"):
        parity_run(tmp_path / "wide.npz", models, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_check_that_fails_leaves_the_earlier_one(models: list[Path], tmp_path: Path) -> None:
    """[HARD-013]"""
    write_scan(tmp_path / "wide.npz", simulate_scan(SimulationConfig(N=64, rows=3, cols=3)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stats.json").write_text("old")
    with pytest.raises(PtychoPinnError, match="Side a") as told:
        parity_run(tmp_path / "wide.npz", models, tmp_path / "out", overwrite=True)
    assert "Traceback" in told.value.__notes__[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["stats.json"]


def test_figures_of_a_stage() -> None:
    """[PAR-003] Statistics, differences and what of them is a factor, a phase, a shift."""
    obj = simulate_object("letter", (60, 60), np.random.default_rng(0)).astype(np.complex128)
    found = statistics_of(np.where(np.indices(obj.shape)[0] < 6, np.nan, obj))
    assert found["not_finite"] == 360
    assert found["amplitude"]["nonzero_share"] == 1
    assert difference_of(obj, 1.1 * obj)["relative"] == pytest.approx(0.1)
    assert difference_of(obj, obj[:5])["reason"] == "shapes (60, 60) and (5, 60)"
    assert difference_of(obj, obj * np.nan)["relative"] is None
    offset = offset_of(obj, 0.5 * obj * np.exp(0.3j))
    assert (offset["factor"], offset["phase_rad"]) == (pytest.approx(2), pytest.approx(-0.3))
    moved = offset_of(obj, np.roll(obj, (2, -1), axis=(0, 1)))["shift_px"]
    assert moved == pytest.approx([-2, 1], abs=0.2)


def test_the_first_difference_is_the_earliest() -> None:
    """[PAR-002] What cannot be compared differs."""
    fine = {stage: {"relative": 0.0} for stage in STAGES}
    assert first_difference(fine, 0.1) is None
    assert first_difference({**fine, "canvas": {"relative": 1.0}, "probe": {"relative": None}}, 0.1) == "probe"


def test_pictures_of_other_shapes() -> None:
    """[PAR-003] Real, complex, of different numbers, zero, not finite."""
    for a, b in (
        (np.ones((2, 5, 5)), np.ones((3, 4, 4))),
        (np.zeros((1, 4, 6), complex), np.full((1, 4, 6), np.nan * 1j)),
    ):
        assert stage_picture({"a": a, "b": b}, title="t").startswith(b"\x89PNG")
