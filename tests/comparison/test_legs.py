"""Names of legs and their settings: specs/14-comparison.md."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ptychopinn.comparison import LegSettings, known_legs, plan_legs
from ptychopinn.config import Config, ExecutionOptions
from ptychopinn.config.execution import Accelerator
from ptychopinn.errors import ConfigError, UsageError
from ptychopinn.plugins import CORE_SOLVERS, Registry, discover
from ptychopinn.reconstructor import ReconstructorSpec, SolverSpec

TOY = ReconstructorSpec("torch", "", "toy:Toy", ExecutionOptions)
REGISTRY = Registry(
    {name: replace(TOY, name=name) for name in ("tf", "torch", "torch-mine")},
    {"tf": "tf 2", "torch": "t 1", "torch-mine": "m 3"},
)


def plan(*names: str, **settings):
    return plan_legs(names, LegSettings(**settings), REGISTRY, 64, "1.0")


def test_networks_by_name() -> None:
    """[COMP-001] Backend, model type and, if it is named, architecture."""
    one, two, three = plan("torch-pinn", "tf-supervised-cnn", "torch-mine-pinn-fast")
    assert (one.name, one.source, one.origin) == ("torch-pinn", "torch", "t 1, ptychopinn 1.0")
    assert one.model is not None
    assert (one.model["model_type"], one.model["architecture"], one.model["N"]) == ("pinn", "fast", 64)
    assert two.model is not None
    assert (two.source, two.model["model_type"], two.model["architecture"]) == ("tf", "supervised", "cnn")
    assert three.source == "torch-mine"
    assert one.is_network
    assert one.solver is None


def test_aliases() -> None:
    """[COMP-001] pytorch is torch."""
    assert plan("pytorch-pinn")[0].name == "torch-pinn"


def test_solvers_by_name() -> None:
    """[COMP-001]"""
    (leg,) = plan("epie", solver={"passes": 7})
    assert leg.solver is not None
    assert leg.solver["passes"] == 7
    assert not leg.is_network


class SlowOptions(Config):
    """Of a solver on a device."""

    accelerator: Accelerator = Accelerator.AUTO
    engine: str = "diesel"


SLOW = SolverSpec("slow", "", "s:S", SlowOptions)
SOLVERS = Registry(REGISTRY.specs, REGISTRY.distributions, solvers={spec.name: spec for spec in (SLOW, *CORE_SOLVERS)})


def test_a_solver_computes_where_it_is_told_to() -> None:
    """[COMP-002] Execution settings that it knows reach it; its own say more."""
    settings = LegSettings(execution={"accelerator": "cpu", "precision": "bf16"}, solver={"engine": "steam"})
    slow, epie = plan_legs(["slow", "epie"], settings, SOLVERS, 64, "1.0")
    assert slow.solver == {"accelerator": "cpu", "engine": "steam"}
    assert epie.solver is not None
    assert "accelerator" not in epie.solver
    told = LegSettings(execution={"accelerator": "cpu"}, solver={"accelerator": "cuda"})
    assert plan_legs(["slow"], told, SOLVERS, 64, "1.0")[0].solver == {"accelerator": "cuda", "engine": "diesel"}


def test_a_setting_that_no_solver_knows_is_refused() -> None:
    """[COMP-002]"""
    with pytest.raises(ConfigError, match="engin is not known.*did you mean engine"):
        plan_legs(["epie"], LegSettings(solver={"engin": "steam"}), SOLVERS, 64, "1.0")


@pytest.mark.parametrize("name", ["torch", "pinn", "torch-other", "jax-pinn", "torch-pinn-big", "epie-pinn", "../epie"])
def test_unknown_legs_are_refused(name: str) -> None:
    """[COMP-001] With those that are known."""
    with pytest.raises(UsageError, match=r"tf-supervised.*torch-pinn.*epie, rpie"):
        plan(name)


def test_no_leg_and_twice_the_same() -> None:
    """[COMP-001]"""
    with pytest.raises(UsageError, match="No leg"):
        plan()
    with pytest.raises(UsageError, match="torch-pinn was named twice"):
        plan("torch-pinn", "epie", "pytorch-pinn")


def test_settings_that_do_not_apply_name_the_leg() -> None:
    """[COMP-002]"""
    with pytest.raises(ConfigError, match="Leg torch-pinn-cnn: iterations"):
        plan("torch-pinn-cnn", model={"iterations": 2})


def test_every_field_is_part_of_the_plan() -> None:
    """[COMP-020] As plain values, so that its content can be told from another's."""
    (leg,) = plan("torch-pinn", train={"nepochs": 3}, execution={"accelerator": "cpu"})
    assert json.loads(json.dumps(leg.as_dict())) == leg.as_dict()
    assert leg.train is not None
    assert leg.train["nepochs"] == 3
    assert leg.execution is not None
    assert leg.execution["accelerator"] == "cpu"


def test_what_is_there() -> None:
    """[COMP-001] Solvers of the core are always there."""
    assert known_legs(discover([])) == ["epie", "rpie"]
