"""Names of candidates and their settings: specs/14-comparison.md."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ptychopinn.comparison import CandidatePlan, Planner, known_candidates
from ptychopinn.config import Config, ExecutionOptions, TrainConfig
from ptychopinn.config.build import build
from ptychopinn.config.comparison import CandidateConfig
from ptychopinn.config.execution import Accelerator
from ptychopinn.config.run import AllSettings
from ptychopinn.config.solver import SolverOptions
from ptychopinn.errors import ConfigError, UsageError
from ptychopinn.plugins import CORE_SOLVERS, Registry, discover, solver_options
from ptychopinn.reconstructor import ReconstructorSpec, SolverSpec

TOY = ReconstructorSpec("torch", "", "toy:Toy", ExecutionOptions)
REGISTRY = Registry(
    {name: replace(TOY, name=name) for name in ("tf", "torch", "torch-mine")},
    {"tf": "tf 2", "torch": "t 1", "torch-mine": "m 3"},
)


def plan(*names: str, **settings):
    return plans(names, REGISTRY, **settings)


def plans(candidates, registry, **sections) -> list[CandidatePlan]:
    settings = build(AllSettings.with_options(ExecutionOptions, solver_options(registry)), sections)
    return Planner(registry, "1.0", 64, settings).plan(
        [CandidateConfig.model_validate(candidate) for candidate in candidates]
    )


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


def test_passes() -> None:
    """[COMP-036] Two after a network, unless its settings say otherwise; those of a solver by its options."""
    own = {"name": "alone", "backend": "torch", "infer": {"refine": 0}}
    candidates = plans(["torch-pinn", own, "epie"], REGISTRY, solver={"passes": 7})
    assert [candidate.passes for candidate in candidates] == [2, 0, 7]
    common = plans(["torch-pinn", own], REGISTRY, infer={"refine": 5})
    assert [candidate.passes for candidate in common] == [5, 0]


def test_aliases() -> None:
    """[COMP-001] pytorch is torch."""
    assert plan("pytorch-pinn")[0].name == "torch-pinn"


def test_solvers_by_name() -> None:
    """[COMP-001]"""
    (candidate,) = plan("epie", solver={"passes": 7})
    assert isinstance(candidate.solver, SolverOptions)
    assert candidate.solver.passes == 7
    assert not candidate.is_network


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
    own = {"name": "slow", "solver": {"accelerator": "cuda"}}
    assert plans([own], SOLVERS, execution=execution)[0].solver == SlowOptions(accelerator=Accelerator.CUDA)


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
    with pytest.raises(UsageError, match="No candidate"):
        plan()
    with pytest.raises(UsageError, match="torch-pinn was named twice"):
        plan("torch-pinn", "epie", "pytorch-pinn")
    with pytest.raises(UsageError, match="wide was named twice"):  # one folder where case is not distinguished
        plans([{"name": name, "backend": "torch"} for name in ("wide", "Wide")], REGISTRY)


def test_settings_that_do_not_apply_name_the_leg() -> None:
    """[COMP-002]"""
    with pytest.raises(ConfigError, match="Candidate torch-pinn-cnn: iterations"):
        plan("torch-pinn-cnn", model={"iterations": 2})


def test_every_field_is_part_of_the_plan() -> None:
    """[COMP-020] As plain values, so that its content can be told from another's."""
    (candidate,) = plan("torch-pinn", train={"nepochs": 3}, execution={"accelerator": "cpu"})
    values = json.loads(json.dumps(candidate.as_dict()))
    assert values == candidate.as_dict()
    assert values["settings"]["train"].keys() == TrainConfig.model_fields.keys()
    assert values["settings"]["execution"]["accelerator"] == "cpu"
    assert CandidatePlan.from_dict(values, REGISTRY) == candidate


def test_legs_with_settings_of_their_own() -> None:
    """[COMP-006] They go before those of all; the rest is shared."""
    wide = {"name": "wide", "backend": "pytorch", "model": {"n_filters_scale": 1}, "execution": {"precision": "bf16"}}
    long = {"name": "long", "backend": "epie", "solver": {"passes": 500}}
    named = {"name": "tf-pinn", "train": {"nepochs": 2, "seed": 5}}
    shared = {"train": {"nepochs": 9, "learning_rate": 0.5}, "solver": {"passes": 5, "seed": 3}}
    one, two, three = plans([wide, long, named], SOLVERS, **shared)
    assert one.settings is not None
    assert (one.name, one.source, one.settings.model.width_scale) == ("wide", "torch", 1)
    assert (one.settings.train.nepochs, one.settings.execution.precision) == (9, "bf16")
    assert isinstance(two.solver, SolverOptions)
    assert (two.name, two.source, two.solver.passes, two.solver.seed) == ("long", "epie", 500, 3)
    assert three.settings is not None
    assert (three.name, three.settings.train.nepochs, three.settings.train.learning_rate) == ("tf-pinn", 2, 0.5)


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ({"name": "a", "backend": "jax"}, "no backend or solver 'jax'"),
        ({"name": "a", "backend": "epie", "train": {"nepochs": 2}}, "Candidate a: train has no effect on a solver"),
        ({"name": "a", "backend": "torch", "solver": {"passes": 2}}, "Candidate a: solver has no effect on a network"),
        (
            {"name": "a", "backend": "torch", "train": {"nepoch": 2}},
            "Candidate a: nepoch is not known; did you mean nepochs",
        ),
        ({"name": "a", "backend": "torch", "execution": {"warp": 2}}, "Candidate a: warp is not known"),
        ({"name": "a", "backend": "torch", "model": {"N": 64}}, "Candidate a: N is given by the scans"),
        ({"name": "torch-pinn", "model": {"model_type": "pinn"}}, "Candidate torch-pinn: model_type is given"),
    ],
)
def test_settings_of_a_candidate_that_cannot_act_are_refused(candidate: dict[str, object], message: str) -> None:
    """[COMP-006]"""
    with pytest.raises((ConfigError, UsageError), match=message):
        plans([candidate], SOLVERS)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "x" * 65])
def test_a_name_of_ones_own_is_one_of_a_folder(name: str) -> None:
    """[COMP-006]"""
    with pytest.raises(ConfigError, match="is not made of letters, digits"):
        build(CandidateConfig, {"name": name, "backend": "epie"})


def test_repeats_have_other_seeds_and_a_cell_its_gridsize() -> None:
    """[STUDY-001]"""
    planner = Planner(SOLVERS, "1.0", 64, AllSettings(train={"seed": 3}))
    one, two = planner.plan([CandidateConfig(name="torch-pinn"), CandidateConfig(name="epie")], gridsize=2, repeat=4)
    assert one.settings is not None
    assert (one.settings.train.seed, one.settings.model.gridsize) == (7, 2)
    assert isinstance(two.solver, SolverOptions)
    assert two.solver.seed == 4


@pytest.mark.parametrize("name", ["N", "model_type", "architecture"])
def test_what_legs_say_is_not_set_for_all(name: str) -> None:
    """[COMP-002]"""
    value = {"N": 64, "model_type": "pinn", "architecture": "cnn"}[name]
    with pytest.raises(UsageError, match=f"{name} is given by the scans or by a candidate's name"):
        plan("epie", model={name: value})


def test_what_is_there() -> None:
    """[COMP-001] Solvers of the core are always there."""
    assert known_candidates(discover([])) == ["epie", "rpie"]
