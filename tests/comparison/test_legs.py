"""Names of legs and their settings: specs/14-comparison.md."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ptychopinn.comparison import LegPlan, Planner, known_legs
from ptychopinn.config import Config, ExecutionOptions, RunSettings, TrainConfig
from ptychopinn.config.comparison import LegConfig
from ptychopinn.config.execution import Accelerator
from ptychopinn.config.solver import SolverOptions
from ptychopinn.errors import ConfigError, UsageError
from ptychopinn.plugins import CORE_SOLVERS, Registry, discover
from ptychopinn.reconstructor import ReconstructorSpec, SolverSpec

TOY = ReconstructorSpec("torch", "", "toy:Toy", ExecutionOptions)
REGISTRY = Registry(
    {name: replace(TOY, name=name) for name in ("tf", "torch", "torch-mine")},
    {"tf": "tf 2", "torch": "t 1", "torch-mine": "m 3"},
)


def plan(*names: str, **settings):
    return plans(names, REGISTRY, **settings)


def plans(legs, registry, solver=None, **sections) -> list[LegPlan]:
    planner = Planner(registry, "1.0", 64, RunSettings(**sections), solver or {})
    return planner.plan([LegConfig.model_validate(leg) for leg in legs])


def test_networks_by_name() -> None:
    """[COMP-001] Backend, model type and, if it is named, architecture."""
    one, two, three = plan("torch-pinn", "tf-supervised-cnn", "torch-mine-pinn-fast")
    assert (one.name, one.source, one.origin) == ("torch-pinn", "torch", "t 1, ptychopinn 1.0")
    assert one.settings is not None
    model = one.settings.model
    assert (model.model_type, model.architecture, model.N) == ("pinn", "fast", 64)
    assert two.settings is not None
    assert (two.source, two.settings.model.model_type, two.settings.model.architecture) == ("tf", "supervised", "cnn")
    assert three.source == "torch-mine"
    assert one.is_network
    assert one.solver is None


def test_aliases() -> None:
    """[COMP-001] pytorch is torch."""
    assert plan("pytorch-pinn")[0].name == "torch-pinn"


def test_solvers_by_name() -> None:
    """[COMP-001]"""
    (leg,) = plan("epie", solver={"passes": 7})
    assert isinstance(leg.solver, SolverOptions)
    assert leg.solver.passes == 7
    assert not leg.is_network


class SlowOptions(Config):
    """Of a solver on a device."""

    accelerator: Accelerator = Accelerator.AUTO
    engine: str = "diesel"


SLOW = SolverSpec("slow", "", "s:S", SlowOptions)
SOLVERS = Registry(REGISTRY.specs, REGISTRY.distributions, solvers={spec.name: spec for spec in (SLOW, *CORE_SOLVERS)})


def test_a_solver_computes_where_it_is_told_to() -> None:
    """[COMP-002] Execution settings that it knows reach it; its own say more."""
    execution = {"accelerator": "cpu", "precision": "bf16"}
    slow, epie = plans(["slow", "epie"], SOLVERS, execution=execution, solver={"engine": "steam"})
    assert slow.solver == SlowOptions(accelerator=Accelerator.CPU, engine="steam")
    assert isinstance(epie.solver, SolverOptions)
    (slow,) = plans(["slow"], SOLVERS, execution=execution, solver={"accelerator": "cuda"})
    assert slow.solver == SlowOptions(accelerator=Accelerator.CUDA)


def test_a_setting_that_no_solver_knows_is_refused() -> None:
    """[COMP-002]"""
    with pytest.raises(ConfigError, match="engin is not known.*did you mean engine"):
        plans(["epie"], SOLVERS, solver={"engin": "steam"})


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
    values = json.loads(json.dumps(leg.as_dict()))
    assert values == leg.as_dict()
    assert values["settings"]["train"].keys() == TrainConfig.model_fields.keys()
    assert values["settings"]["execution"]["accelerator"] == "cpu"
    assert LegPlan.from_dict(values, REGISTRY) == leg


def test_what_is_there() -> None:
    """[COMP-001] Solvers of the core are always there."""
    assert known_legs(discover([])) == ["epie", "rpie"]
