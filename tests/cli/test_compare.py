"""``ptychopinn compare``: specs/14-comparison.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from ptychopinn.comparison import ComparisonResult, Row, Status
from ptychopinn.config import Config
from ptychopinn.config.comparison import CandidateConfig, ComparisonConfig
from ptychopinn.plugins import Registry, discover
from ptychopinn.reconstructor import SolverSpec

Cli = Callable[..., tuple[int, str, str]]
COMPARE = ("compare", "--train", "a.npz", "--test", "b.npz", "--legs", "torch-pinn", "epie", "-o", "out")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the comparison, and notes what it was asked."""
    noted: dict[str, Any] = {"failed": {}}

    def compare(*args: Any, **kwargs: Any) -> ComparisonResult:
        noted.update(kwargs, args=args[:3], settings=args[3])
        rows = (Row("epie", "test", "phase", "ssim", 0.5, Status.OK), Row("epie", "test", "phase", "mae", 1, Status.OK))
        return ComparisonResult(Path("out"), rows, {"table": Path("out/t.csv")}, noted["failed"])

    monkeypatch.setattr("ptychopinn.comparison.compare_run", compare)
    return noted


def test_what_is_handed_on(cli: Cli, asked: dict[str, Any]) -> None:
    """[COMP-002] Each setting to its section; those of solvers have a prefix."""
    flags = (
        "--batch-size",
        "4",
        "--solver-batch-size",
        "5",
        "--gridsize",
        "2",
        "--accelerator",
        "cpu",
        "--refine",
        "1",
    )
    limits = ("--n-test-groups", "6", "--memory-mb", "512", "--baseline", "epie", "--no-split-frc")
    code, out, _ = cli(*COMPARE, *flags, *limits, "--resume", "--measurement", "counts", "--nphotons", "1e5")
    assert code == 0
    assert asked["args"] == ("a.npz", "b.npz", "out")
    assert asked["settings"].run_settings().given() == {
        "train": {"batch_size": 4},
        "model": {"gridsize": 2},
        "infer": {"refine": 1},
        "execution": {"accelerator": "cpu"},
        "reading": {"measurement": "counts", "nphotons": 1e5},
    }
    assert asked["settings"].given()["solver"] == {"batch_size": 5}
    assert asked["settings"].comparison == ComparisonConfig(
        legs=("torch-pinn", "epie"), n_test_groups=6, memory_mb=512, baseline="epie", split_frc=False
    )
    assert asked["resume"]
    assert "epie: phase ssim 0.5\n" in out


class Steam(Config):
    """Options of a solver that is installed."""

    passes: int = Field(9, ge=1)
    accelerator: str = "auto"
    pressure: float = Field(1.0, gt=0, description="Of the boiler.")


def test_options_of_solvers_that_are_installed(
    cli: Cli, asked: dict[str, Any], backends: Callable[[Registry], None], tmp_path: Path
) -> None:
    """[COMP-002] Each is a flag and a key of the file; what says where to compute is one for all."""
    known = discover([])
    solvers = {**known.solvers, "steam": SolverSpec("steam", "", "steam:Steam", Steam)}
    backends(replace(known, solvers=solvers))
    assert cli(*COMPARE, "--solver-pressure", "2", "--solver-passes", "3")[0] == 0
    assert asked["settings"].given()["solver"] == {"pressure": 2.0, "passes": 3}
    (tmp_path / "c.yaml").write_text("solver: {pressure: 4}\n")
    assert cli(*COMPARE, "--config", tmp_path / "c.yaml")[0] == 0
    assert asked["settings"].given()["solver"] == {"pressure": 4.0}
    code, _, err = cli(*COMPARE, "--solver-pressure", "0")
    assert code == 2
    assert "--solver-pressure is 0" in err
    assert "--solver-accelerator is not a flag" in cli(*COMPARE, "--solver-accelerator", "cpu")[2]


def test_a_failed_leg_shows_in_the_exit_code(cli: Cli, asked: dict[str, Any]) -> None:
    """[COMP-003]"""
    asked["failed"]["torch-pinn"] = "out of memory"
    code, out, err = cli(*COMPARE, "--json")
    assert code == 1
    assert "warning: torch-pinn failed: out of memory" in err
    assert json.loads(out)["failed"] == {"torch-pinn": "out of memory"}
    assert json.loads(out)["test"] == {"epie": {"phase ssim": 0.5}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare",), "--train, --test, --legs, --output must be given"),
        ((*COMPARE, "--model-type", "pinn"), "--model-type is not a flag"),
        ((*COMPARE, "--N", "64"), "--N is not a flag"),
        ((*COMPARE, "--solver-passes", "0"), "--solver-passes is 0"),
        ((*COMPARE, "--resume", "--overwrite"), "not allowed with"),
    ],
)
def test_refusals(cli: Cli, asked: dict[str, Any], arguments: tuple[str, ...], message: str) -> None:
    """[COMP-002]"""
    code, _, err = cli(*arguments)
    assert code == 2
    assert message in err


def test_sections_of_the_file(cli: Cli, asked: dict[str, Any], tmp_path: Path) -> None:
    """[COMP-002]"""
    (tmp_path / "c.yaml").write_text("solver: {passes: 3}\ncomparison: {n_test_groups: 4}\n")
    assert cli(*COMPARE, "--config", tmp_path / "c.yaml")[0] == 0
    assert asked["settings"].given()["solver"] == {"passes": 3}
    assert asked["settings"].comparison.n_test_groups == 4


def test_legs_of_the_file(cli: Cli, asked: dict[str, Any], tmp_path: Path) -> None:
    """[COMP-006] Those of the command line replace them."""
    (tmp_path / "c.yaml").write_text("comparison: {legs: [epie, {name: long, backend: epie, solver: {passes: 9}}]}\n")
    files = ("compare", "--train", "a.npz", "--test", "b.npz", "-o", "out", "--config", tmp_path / "c.yaml")
    assert cli(*files)[0] == 0
    long = CandidateConfig(name="long", backend="epie", solver={"passes": 9})
    assert asked["settings"].comparison.legs == (CandidateConfig(name="epie"), long)
    assert cli(*files, "--legs", "rpie")[0] == 0
    assert asked["settings"].comparison.legs == (CandidateConfig(name="rpie"),)
    (tmp_path / "c.yaml").write_text("comparison: {legs: [{name: long, solve: {passes: 9}}]}\n")
    code, _, err = cli(*files)
    assert code == 2
    assert f"'legs' in 'comparison' of {tmp_path / 'c.yaml'} has an item with the unknown solve." in err


@pytest.mark.parametrize("passed", [True, False])
def test_verify(cli: Cli, monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    """[COMP-040] The exit code tells."""
    report = {"passed": passed, "checks": [{"name": "rows", "passed": passed, "found": [] if passed else ["missing"]}]}
    monkeypatch.setattr("ptychopinn.comparison.verify_comparison", lambda folder: report)
    code, out, _ = cli("compare", "--verify", "out")
    assert code == (0 if passed else 1)
    assert out.startswith("ok" if passed else "FAILED")
    assert json.loads(cli("compare", "--verify", "out", "--json")[1]) == report
