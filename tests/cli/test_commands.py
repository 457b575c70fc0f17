"""The commands: specs/09-command-line.md."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychopinn.config import ReadOptions, SimulationConfig
from ptychopinn.data.dataset import Measurement
from ptychopinn.data.io import read_object, read_scan, write_scan
from ptychopinn.metrics import Measures
from ptychopinn.plugins import BrokenPlugin, Registry
from ptychopinn.simulate import simulate_scan
from ptychopinn.verdict import Explains, Verdict
from ptychopinn.workflows import RunResult

Cli = Callable[..., tuple[int, str, str]]

TINY = ("--N", "32", "--rows", "3", "--cols", "3")


@pytest.fixture
def result(tmp_path: Path) -> RunResult:
    return RunResult(
        tmp_path / "run",
        {"model": tmp_path / "run" / "wts.h5.zip", "phase": tmp_path / "run" / "phase.png"},
        {"training": "finished", "loss": 0.123456, "patches placed": 9},
        ("The object is flat.",),
    )


def test_train_hands_everything_on(cli: Cli, calls: Any, result: RunResult) -> None:
    """[CLI-020]"""
    calls.returns["train_run"] = result
    code, out, err = cli(
        *(
            "train",
            "scan.npz",
            "-o",
            "run",
            "--from",
            "earlier",
            "--validation",
            "held.npz",
            "--nphotons",
            "1e5",
            "--measurement",
            "amplitude",
        ),
        *("--backend", "tf", "--gridsize", "2", "--nepochs", "3", "--accelerator", "cpu"),
    )
    assert code == 0
    assert calls.files == ("train_run", ("scan.npz", "run"))
    asked = dict(calls.last)
    assert not asked.pop("monitor").cancelled
    assert asked == {
        "backend": "tf",
        "model": {"gridsize": 2},
        "train": {"nepochs": 3},
        "infer": {},
        "execution": {"accelerator": "cpu"},
        "reading": {"measurement": Measurement.AMPLITUDE, "nphotons": 1e5},
        "validation": "held.npz",
        "start": "earlier",
        "resume": False,
        "overwrite": False,
    }
    assert [line.split() for line in out.splitlines()] == [
        ["training", "finished"],
        ["loss", "0.1235"],
        ["patches", "placed", "9"],
        ["model", str(result.files["model"])],
        ["phase", str(result.files["phase"])],
    ]
    assert err == "ptychopinn: warning: The object is flat.\n"


@pytest.mark.parametrize("command", [("train", "scan.npz"), ("pretrain",)])
def test_another_process_leads_the_training(
    cli: Cli, calls: Any, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """[TRAIN-022] Then this one says nothing, and has no run."""
    monkeypatch.setattr("ptychopinn.workflows.follow_training", lambda settings, monitor: True)
    assert cli(*command, "-o", "run") == (0, "", "")


def test_train_as_json(cli: Cli, calls: Any, result: RunResult) -> None:
    """[CLI-012] [CLI-020]"""
    calls.returns["train_run"] = result
    _, out, _ = cli("train", "scan.npz", "-o", "run", "--json")
    assert json.loads(out) == {
        "folder": str(result.folder),
        "files": {"model": str(result.files["model"]), "phase": str(result.files["phase"])},
        "figures": {"training": "finished", "loss": 0.123456, "patches placed": 9},
        "warnings": ["The object is flat."],
        "verdict": None,
    }


@pytest.mark.parametrize("command", [("train", "scan.npz"), ("infer", "run", "scan.npz")])
@pytest.mark.parametrize(
    ("explains", "strict", "code"), [("no", True, 5), ("no", False, 0), ("in part", True, 0), ("yes", True, 0)]
)
def test_a_result_that_explains_nothing_is_an_error_if_asked(
    cli: Cli, calls: Any, result: RunResult, command: tuple[str, ...], explains: str, strict: bool, code: int
) -> None:
    """[CLI-010] [CLI-032]"""
    verdict = Verdict(Explains(explains), 0.3, 0.2, 0.2, 0.1)
    calls.returns[f"{command[0]}_run"] = replace(result, verdict=verdict)
    found, out, err = cli(*command, "-o", "out", *(["--strict"] * strict))
    assert found == code
    assert "wts.h5.zip" in out
    assert ("does not explain the data (--strict)" in err) is (code == 5)


def test_an_interrupted_training_tells_what_it_saved(cli: Cli, calls: Any, result: RunResult) -> None:
    """[CLI-014]"""
    calls.returns["train_run"] = result
    calls.act = lambda *args, monitor, **kwargs: signal.raise_signal(signal.SIGINT)
    code, out, err = cli("train", "scan.npz", "-o", "run")
    assert code == 130
    assert str(result.files["model"]) in out
    assert "SIGINT: stopping after this step" in err


def test_infer_hands_everything_on(cli: Cli, calls: Any, result: RunResult, tmp_path: Path) -> None:
    """[CLI-021]"""
    calls.returns["infer_run"] = result
    code, out, _ = cli(
        *("infer", "run", "scan.npz", "-o", "out", "--synchronise", "off", "--measurement", "counts"),
        *("--write", "cxi,nexus"),
    )
    assert code == 0
    assert calls.files == ("infer_run", ("run", "scan.npz", "out"))
    asked = dict(calls.last)
    asked.pop("monitor")
    assert asked == {
        "model": {},
        "train": {},
        "infer": {"synchronise": "off"},
        "execution": {},
        "reading": {"measurement": Measurement.COUNTS},
        "overwrite": False,
        "formats": ["cxi", "nexus"],
    }
    assert calls.made[-1][1][3].backend is None  # that of the model
    assert "patches placed" in out
    cli("infer", "run", "scan.npz", "-o", "out", "--backend", "pytorch", "--overwrite")
    assert (calls.last["backend"], calls.last["overwrite"]) == ("torch", True)
    config = tmp_path / "c.yaml"
    config.write_text("backend: tf\n")
    cli("infer", "run", "scan.npz", "-o", "out", "--config", config)
    assert calls.last["backend"] == "tf"


def test_a_measurement_of_the_file_that_is_none_is_refused(cli: Cli, calls: Any, tmp_path: Path) -> None:
    """[CFG-009]"""
    config = tmp_path / "c.yaml"
    config.write_text("measurement: volts\n")
    code, _, err = cli("infer", "run", "scan.npz", "-o", "out", "--config", config)
    assert code == 2
    assert "'measurement' in 'reading' of" in err


def test_evaluate_prints_the_scores(cli: Cli, calls: Any) -> None:
    """[CLI-022]"""
    calls.returns["evaluate_run"] = Measures(
        {"phase_ssim": 0.71234, "phase_frc50": float("nan")}, {"phase_frc50": "It cannot be computed: flat."}
    )
    code, out, _ = cli(
        "evaluate", "r.h5", "--reference", "ref.npz", "--scan", "scan.npz", "-o", "scores", "--measurement", "counts"
    )
    assert code == 0
    assert calls.made[-1][1] == ("r.h5", "ref.npz")
    reading = ReadOptions(measurement=Measurement.COUNTS)
    asked = {"scan_path": "scan.npz", "reading": reading, "output": "scores", "overwrite": False}
    assert calls.made[-1][2] == asked
    assert out == "phase_ssim   0.7123\nphase_frc50  It cannot be computed: flat.\n"
    _, out, _ = cli("evaluate", "r.h5", "--reference", "ref.npz", "--json")
    reasons = {"phase_frc50": "It cannot be computed: flat."}
    assert json.loads(out) == {"phase_ssim": 0.71234, "phase_frc50": None, "cannot_be_computed": reasons}


def test_evaluate_needs_a_reference(cli: Cli) -> None:
    """[CLI-022]"""
    code, _, err = cli("evaluate", "r.h5")
    assert code == 2
    assert "--reference" in err


def test_simulate_writes_a_canonical_scan_with_its_object(cli: Cli, tmp_path: Path) -> None:
    """[CLI-023]"""
    path = tmp_path / "s.npz"
    code, out, _ = cli("simulate", "-o", path, *TINY, "--seed", "3")
    assert (code, out) == (0, f"{path}\n")
    data = read_scan(path)
    assert (len(data), data.N) == (9, 32)
    assert read_object(path).ndim == 2
    code, out, _ = cli("validate", path)
    assert code == 0
    assert out.endswith("valid\n")


def test_simulate_reads_its_section(cli: Cli, calls: Any, tmp_path: Path) -> None:
    """[CLI-023] [CLI-002]"""
    config = tmp_path / "c.yaml"
    config.write_text("simulation: {rows: 5, probe_kind: annular}\n")
    assert cli("simulate", "-o", "s.npz", "--config", config, "--rows", "6")[0] == 0
    assert calls.made[-1][1] == (SimulationConfig(rows=6, probe_kind="annular"), "s.npz")


def test_what_is_there_is_not_overwritten(cli: Cli, tmp_path: Path) -> None:
    """[CLI-015]"""
    path, other = tmp_path / "s.npz", tmp_path / "t.npz"
    assert cli("simulate", "-o", path, *TINY)[0] == 0
    before = path.read_bytes()
    for arguments in (("simulate", "-o", path, *TINY), ("convert", path, "-o", path)):
        code, _, err = cli(*arguments)
        assert code == 2
        assert "--overwrite" in err
    assert path.read_bytes() == before
    assert cli("simulate", "-o", path, *TINY, "--seed", "9", "--overwrite")[0] == 0
    assert path.read_bytes() != before
    assert cli("convert", path, "-o", other)[0] == 0
    assert cli("convert", path, "-o", other, "--overwrite")[0] == 0


def test_convert_writes_a_canonical_scan(cli: Cli, tmp_path: Path, scan_arrays: Any) -> None:
    """[CLI-024] Counts under the old name."""
    legacy, canonical = tmp_path / "old.npz", tmp_path / "new.npz"
    arrays = scan_arrays(diffraction=None, _metadata=None)
    np.savez(legacy, diff3d=np.full((9, 32, 32), 3, np.uint16), **arrays)
    code, out, _ = cli("convert", legacy, "-o", canonical)
    assert code == 0
    assert out == f"{canonical}: 9 patterns of 32 x 32, read as counts\n"
    with np.load(canonical) as file:
        assert {"diffraction", "_metadata"} <= set(file)
        np.testing.assert_allclose(file["diffraction"], np.sqrt(np.float32(3)))


def test_a_measurement_settles_what_is_ambiguous(cli: Cli, tmp_path: Path, scan_arrays: Any) -> None:
    """[CLI-006] [CLI-024]"""
    path = tmp_path / "a.npz"
    arrays = scan_arrays(diffraction=None, _metadata=None)
    np.savez(path, diff3d=np.full((9, 32, 32), 3, np.float32), **arrays)
    code, _, err = cli("convert", path, "-o", tmp_path / "b.npz")
    assert code == 3
    assert "--measurement" in err
    assert not (tmp_path / "b.npz").exists()
    assert cli("convert", path, "-o", tmp_path / "b.npz", "--measurement", "counts")[0] == 0


def test_validate_tells_every_problem(cli: Cli, tmp_path: Path, tiny_scan: Path, scan_arrays: Any) -> None:
    """[CLI-025]"""
    bad = tmp_path / "bad.npz"
    np.savez(bad, **scan_arrays(probeGuess=None, xcoords=np.zeros(4)))
    code, out, _ = cli("validate", tiny_scan, bad)
    assert code == 3
    assert f"{tiny_scan}: valid" in out
    assert f"{bad}: refused" in out
    assert f"{bad}: error: probeGuess" in out
    assert f"{bad}: error: xcoords" in out
    code, out, _ = cli("validate", tiny_scan, bad, "--json")
    assert code == 3
    first, second = json.loads(out)
    assert (first["valid"], second["valid"]) == (True, False)
    assert {p["key"] for p in second["problems"] if p["severity"] == "error"} >= {"probeGuess", "xcoords"}


def test_plugins_lists_what_is_there_and_what_is_broken(cli: Cli, toy: Registry, backends: Any) -> None:
    """[CLI-026]"""
    backends(Registry(toy.specs, toy.distributions, (BrokenPlugin("bad", "bad 2.0", "ImportError:\nno foo"),)))
    code, out, _ = cli("plugins")
    assert code == 0
    assert "torch  (toy 1.0)  A toy" in out
    assert "not usable: surely_not_installed missing; install with: python -m pip install toy" in out
    assert "can: cpu" in out
    assert "cannot: cuda" in out
    assert "bad  (bad 2.0)  broken: ImportError: no foo" in out
    assert "epie  (ptychopinn)  solver: ePIE as published" in out
    _, out, _ = cli("plugins", "--json")
    listed = json.loads(out)
    assert [backend["name"] for backend in listed["backends"]] == ["tf", "torch"]
    assert listed["broken"] == [{"name": "bad", "distribution": "bad 2.0", "reason": "ImportError:\nno foo"}]


def test_plugins_without_any_says_how_to_get_one(cli: Cli, backends: Any) -> None:
    """[CLI-026]"""
    backends(Registry({}, {}))
    code, out, _ = cli("plugins")
    assert code == 0
    assert "torch  not installed; install with: python -m pip install ./plugins/torch_backend" in out


def test_training_without_a_backend_says_how_to_get_one(cli: Cli, backends: Any) -> None:
    """[CLI-026]"""
    backends(Registry({}, {}))
    code, _, err = cli("train", "scan.npz", "-o", "run")
    assert code == 1
    assert "No backend is installed. Install one with: python -m pip install ./plugins/torch_backend" in err


def test_a_scan_is_reconstructed_without_a_backend(cli: Cli, backends: Any, tmp_path: Path) -> None:
    """[CLI-003] From a flat object; a backend that is named must be there."""
    backends(Registry({}, {}))
    write_scan(tmp_path / "scan.npz", simulate_scan(SimulationConfig(N=32, rows=4, cols=4)))
    command = ("reconstruct", str(tmp_path / "scan.npz"), "-o", str(tmp_path / "out"), "--may-free", "probe")
    code, out, err = cli(*command)
    assert code == 0, err
    assert "there was no network" in out
    code, _, err = cli(*command, "--backend", "torch")
    assert code == 1
    assert "There is no backend 'torch'" in err


def test_demo_runs_with_the_default_backend_and_prints_where_things_are(
    cli: Cli, calls: Any, result: RunResult
) -> None:
    """[CLI-027]"""
    calls.returns["demo_run"] = result
    code, out, _ = cli("demo")
    assert code == 0
    assert calls.made[-1][1] == ("ptychopinn-demo",)
    assert (calls.last["backend"], calls.last["overwrite"]) == ("torch", False)
    assert "max_time" not in calls.last
    assert str(result.files["phase"]) in out
    cli("demo", "-o", "there", "--backend", "tf", "--max-time", "20", "--overwrite")
    assert calls.made[-1][1] == ("there",)
    assert (calls.last["backend"], calls.last["max_time"], calls.last["overwrite"]) == ("tf", 20.0, True)


def test_doctor_prints_a_page(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-020]"""
    sections = {"versions": {"python": "3", "system": "long " * 50}, "places": {"here": "there"}}
    monkeypatch.setattr("ptychopinn.machine_check.check_machine", lambda: sections)
    code, out, _ = cli("doctor")
    assert code == 0
    assert out.splitlines()[:2] == ["versions", f"  {'python':<24}3"]
    assert max(map(len, out.splitlines())) <= 120
    assert out.count("long") == 50
    _, out, _ = cli("doctor", "--json")
    assert json.loads(out) == sections


def test_inspect_says_what_fits_best(cli: Cli, tmp_path: Path) -> None:
    """[CLI-033] [INSP-004]"""
    scan, picture = str(tmp_path / "scan.npz"), tmp_path / "scan.png"
    assert cli("simulate", "-o", scan, "--N", "32", "--rows", "6", "--cols", "6", "--seed", "3")[0] == 0
    code, out, _ = cli("inspect", scan, "-o", str(picture))
    assert code == 0
    assert "Patterns, positions and probe agree as given" in out
    assert picture.is_file()
    code, out, _ = cli("inspect", scan, "--json")
    found = json.loads(out)
    assert found["flags"] == []
    assert found["figures"]["patterns and positions"] == "as given"
    assert {"change": "as given", "residual": found["figures"]["residual as given"]} in found["tried"]
    assert cli("inspect", str(tmp_path / "missing.npz"))[0] == 3
