"""Names of legs and their settings: specs/14-comparison.md."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ptychopinn.comparison import LegSettings, known_legs, plan_legs
from ptychopinn.config import ExecutionOptions
from ptychopinn.errors import ConfigError, UsageError
from ptychopinn.plugins import Registry, discover
from ptychopinn.reconstructor import ReconstructorSpec

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
    assert leg.train["learning_rate"] > 0
    assert leg.execution is not None
    assert leg.execution["accelerator"] == "cpu"


def test_what_is_there() -> None:
    """[COMP-001] Solvers of the core are always there."""
    assert known_legs(discover([])) == ["epie", "rpie"]
