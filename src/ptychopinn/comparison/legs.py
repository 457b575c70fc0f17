"""Legs of a comparison by name: ``epie``, ``torch-pinn``, ``tf-supervised-cnn``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel

from ptychopinn.config.build import build, nearest
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.model import Architecture, ModelConfig, ModelType
from ptychopinn.config.train import TrainConfig
from ptychopinn.errors import ConfigError, UsageError
from ptychopinn.plugins import ALIASES, Registry

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class LegSettings:
    """Fields that were set for the legs of a comparison; what is missing takes its default.

    Of ``execution`` and ``solver`` each leg takes what it knows; for a solver ``solver`` goes before ``execution``.
    """

    model: Fields = field(default_factory=dict)
    train: Fields = field(default_factory=dict)
    infer: Fields = field(default_factory=dict)
    execution: Fields = field(default_factory=dict)
    solver: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class LegPlan:
    """One reconstructor with everything that decides what comes of it, as plain values.

    Attributes
    ----------
    name:
        As it was asked for, aliases resolved.
    source:
        Name of the backend or solver.
    origin:
        "distribution version" that brings it.
    model, train, infer, execution:
        All fields of the configurations of a network; None for a solver.
    solver:
        All options of a solver; None for a network.
    """

    name: str
    source: str
    origin: str
    model: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    infer: dict[str, Any] | None = None
    execution: dict[str, Any] | None = None
    solver: dict[str, Any] | None = None

    @property
    def is_network(self) -> bool:
        """Whether it is trained."""
        return self.model is not None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def plan_legs(
    names: Sequence[str], settings: LegSettings, registry: Registry, pattern_size: int, core_version: str
) -> list[LegPlan]:
    """Check the legs asked for and their settings.

    Parameters
    ----------
    names:
        ``BACKEND-MODELTYPE``, ``BACKEND-MODELTYPE-ARCHITECTURE`` or the name of a solver.
    settings:
        What was set for all of them.
    registry:
        What is installed.
    pattern_size:
        N of the scans.
    core_version:
        Version of this software.

    Raises
    ------
    UsageError
        If there is no leg, one twice, or one of an unknown name.
    ConfigError
        If a setting does not apply, naming the leg, or is one of solvers that no solver knows.
    """
    if not names:
        raise UsageError("No leg was named.", f"Name some of {', '.join(known_legs(registry))}.")
    known = {field for spec in registry.solvers.values() for field in spec.options.model_fields}
    if strange := [field for field in settings.solver if field not in known]:
        raise ConfigError(
            f"Setting of solvers {strange[0]} is not known{nearest(strange[0], sorted(known))}.",
            "Change it and try again.",
        )
    plans = [_plan(name, settings, registry, pattern_size, core_version) for name in names]
    seen = [plan.name for plan in plans]
    if twice := sorted({name for name in seen if seen.count(name) > 1}):
        raise UsageError(f"The leg {twice[0]} was named twice.", "Name each leg once.")
    return plans


def known_legs(registry: Registry) -> list[str]:
    """The names of all legs there are; the default architecture goes without its name."""
    networks = [f"{backend}-{kind}" for backend in registry.specs for kind in ModelType]
    return [*networks, *registry.solvers]


def _plan(name: str, settings: LegSettings, registry: Registry, size: int, core_version: str) -> LegPlan:
    core = f"ptychopinn {core_version}"
    if name in registry.solvers:
        options = registry.solvers[name].options
        given = {**settings.execution, **settings.solver}
        fields = {k: v for k, v in given.items() if k in options.model_fields}
        built = _built(options, fields, name)
        return LegPlan(name, name, registry.distributions.get(name, core), solver=built)
    backend, kind, architecture = _parts(name, registry)
    spec = registry.specs[backend]
    model = {"N": size, **settings.model, "model_type": kind}
    if architecture is not None:
        model["architecture"] = architecture
    execution = {k: v for k, v in settings.execution.items() if k in spec.options.model_fields}
    short = "-".join(filter(None, (backend, str(kind), architecture)))
    return LegPlan(
        short,
        backend,
        f"{registry.distributions[backend]}, {core}",
        model=_built(ModelConfig, model, name),
        train=_built(TrainConfig, settings.train, name),
        infer=_built(InferConfig, settings.infer, name),
        execution=_built(spec.options, execution, name),
    )


def _parts(name: str, registry: Registry) -> tuple[str, ModelType, Architecture | None]:
    parts = name.split("-")
    for cut in range(len(parts) - 1, 0, -1):
        backend = "-".join(parts[:cut])
        backend = ALIASES.get(backend, backend)
        kind, architecture = parts[cut], "-".join(parts[cut + 1 :])
        known = kind in list(ModelType) and architecture in ("", *Architecture)
        if backend in registry.specs and known:
            return backend, ModelType(kind), Architecture(architecture) if architecture else None
    broken = "; ".join(f"{p.name} is broken: {p.reason}" for p in registry.broken)
    raise UsageError(
        f"There is no leg '{name}'{f' ({broken})' if broken else ''}.",
        f"Known are {', '.join(known_legs(registry))}, and networks with -{' or -'.join(Architecture)} after them.",
    )


def _built(cls: type[BaseModel], fields: Fields, leg: str) -> dict[str, Any]:
    """All fields as plain values, checked."""
    try:
        return build(cls, fields).model_dump(mode="json")
    except ConfigError as error:
        raise ConfigError(f"Leg {leg}: {error.problem}", error.remedy) from error
