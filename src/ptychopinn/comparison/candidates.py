"""Candidates of a comparison: ``epie``, ``torch-pinn``, ``tf-supervised-cnn``, or a name of your own with settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ptychopinn.config.build import build
from ptychopinn.config.comparison import NOT_SHARED, CandidateConfig
from ptychopinn.config.execution import ExecutionOptions
from ptychopinn.config.model import Architecture, ModelType
from ptychopinn.config.run import AllSettings, RunSettings
from ptychopinn.errors import ConfigError, UsageError
from ptychopinn.plugins import ALIASES, Registry, discover, solver_options

Fields = Mapping[str, Any]
_OF_NETWORKS = ("model", "train", "infer")


@dataclass(frozen=True)
class CandidatePlan:
    """One reconstructor with everything that determines its results."""

    name: str  # the name asked for, aliases resolved
    source: str  # name of the backend or solver
    origin: str  # "distribution version" that provides it
    settings: RunSettings[Any] | None = None  # settings of a network; else None
    solver: BaseModel | None = None  # options of a solver; else None

    @property
    def is_network(self) -> bool:
        """Whether it is trained."""
        return self.settings is not None

    @property
    def passes(self) -> int | None:
        """Passes over the patterns that it makes, those of a network after its prediction; None if it does not say."""
        if self.settings is not None:
            return self.settings.infer.refine
        passes = getattr(self.solver, "passes", None)
        return passes if isinstance(passes, int) else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "source": self.source,
            "origin": self.origin,
            "settings": None if self.settings is None else self.settings.model_dump(mode="json"),
            "solver": None if self.solver is None else self.solver.model_dump(mode="json"),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], registry: Registry) -> CandidatePlan:
        """The inverse of `as_dict`."""
        settings, solver, source = values["settings"], values["solver"], values["source"]
        if settings is not None:
            settings = build(RunSettings.with_options(registry.get(source).options), settings)
        if solver is not None:
            solver = build(registry.solvers[source].options, solver)
        return cls(values["name"], source, values["origin"], settings, solver)


def comparison_settings(**sections: Mapping[str, object]) -> AllSettings[Any, Any]:
    """The settings of a comparison or study from plain values, in the sections of a configuration file.

    Raises
    ------
    ConfigError
        With every field that is unknown or out of bounds.
    """
    return build(AllSettings.with_options(ExecutionOptions, solver_options(discover())), sections)


@dataclass(frozen=True)
class Planner:
    """Makes the plans of candidates from common settings and their own."""

    registry: Registry  # the installed backends and solvers
    core_version: str
    pattern_size: int  # N of the scans
    # The common settings. They override the defaults, and a candidate's own settings override them. A candidate uses
    # the fields of ``execution`` and ``solver`` that it knows; for a solver, ``solver`` overrides ``execution``.
    settings: AllSettings[Any, Any]

    def plan(
        self, candidates: Sequence[CandidateConfig], *, gridsize: int | None = None, repeat: int = 0
    ) -> list[CandidatePlan]:
        """Check candidates and their settings.

        ``gridsize`` is for all networks; None keeps their own. ``repeat`` is added to the seed of the training or the
        solver.

        Raises
        ------
        UsageError
            If there is no candidate, a name is unknown or given twice, or a setting cannot be common to all.
        ConfigError
            If a setting does not apply to a candidate.
        """
        if not candidates:
            raise UsageError("No candidate was named.", f"Name some of {', '.join(known_candidates(self.registry))}.")
        if named := [name for name in NOT_SHARED if name in self.settings.model.model_fields_set]:
            raise UsageError(
                f"{', '.join(named)} is given by the scans or by a candidate's name.",
                "Leave it out of the section 'model'.",
            )
        plans = []
        for candidate in candidates:
            plan = self._solver if (candidate.backend or candidate.name) in self.registry.solvers else self._network
            try:
                plans.append(plan(candidate, gridsize, repeat))
            except ConfigError as error:
                raise ConfigError(f"Candidate {candidate.name}: {error.problem}", error.remedy) from error
        names = [plan.name.casefold() for plan in plans]  # some file systems do not distinguish case
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"The candidate {twice[0]} was named twice.", "Name each candidate once.")
        return plans

    def _solver(self, candidate: CandidateConfig, gridsize: int | None, repeat: int) -> CandidatePlan:
        source = candidate.backend or candidate.name
        _check_all_settings_used(candidate, _OF_NETWORKS, "a solver")
        options = self.registry.solvers[source].options
        given = self.settings.given()
        common = _known({**given.get("execution", {}), **given.get("solver", {})}, options)
        fields = {**common, **candidate.execution, **candidate.solver}
        if "seed" in options.model_fields:
            fields["seed"] = _later_seed(fields, repeat)
        origin = self.registry.distributions.get(source, f"ptychopinn {self.core_version}")
        return CandidatePlan(candidate.name, source, origin, solver=build(options, fields))

    def _network(self, candidate: CandidateConfig, gridsize: int | None, repeat: int) -> CandidatePlan:
        _check_all_settings_used(candidate, ("solver",), "a network")
        backend, named = _backend_of(candidate, self.registry)
        if given := [name for name in ("N", *named) if name in candidate.model]:
            raise ConfigError(f"{', '.join(given)} is given by the scans or by the candidate's name.", "Leave it out.")
        options = self.registry.specs[backend].options
        common = self.settings.given()
        common["execution"] = _known(common.get("execution", {}), options)
        sections = {
            section: {**common.get(section, {}), **getattr(candidate, section)}
            for section in (*_OF_NETWORKS, "execution")
        }
        sections["model"] |= {"N": self.pattern_size, **named, **({} if gridsize is None else {"gridsize": gridsize})}
        sections["train"]["seed"] = _later_seed(sections["train"], repeat)
        name = candidate.name if candidate.backend is not None else "-".join((backend, *map(str, named.values())))
        origin = f"{self.registry.distributions[backend]}, ptychopinn {self.core_version}"
        cls: type[RunSettings[Any]] = RunSettings.with_options(options)
        return CandidatePlan(name, backend, origin, settings=build(cls, {"backend": backend, **sections}))


def known_candidates(registry: Registry) -> list[str]:
    """The names of all possible candidates; the default architecture is not part of a name."""
    networks = [f"{backend}-{kind}" for backend in registry.specs for kind in ModelType]
    return [*networks, *registry.solvers]


def _check_all_settings_used(candidate: CandidateConfig, sections: Sequence[str], kind: str) -> None:
    if idle := [section for section in sections if getattr(candidate, section)]:
        raise ConfigError(f"{', '.join(idle)} has no effect on {kind}.", "Leave it out.")


def _known(fields: Fields, options: type[BaseModel]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in options.model_fields}


def _later_seed(fields: Fields, repeat: int) -> Any:
    """The seed of a repeat. A seed that is not a number is returned as it is and refused later."""
    seed = fields.get("seed", 0)
    return seed + repeat if isinstance(seed, int) else seed


def _backend_of(candidate: CandidateConfig, registry: Registry) -> tuple[str, dict[str, ModelType | Architecture]]:
    """The backend of a network, and the model settings in the candidate's name."""
    if candidate.backend is not None:
        backend = ALIASES.get(candidate.backend, candidate.backend)
        if backend in registry.specs:
            return backend, {}
    else:
        parts = candidate.name.split("-")
        for cut in range(len(parts) - 1, 0, -1):
            backend = "-".join(parts[:cut])
            backend = ALIASES.get(backend, backend)
            kind, architecture = parts[cut], "-".join(parts[cut + 1 :])
            known = kind in list(ModelType) and architecture in ("", *Architecture)
            if backend in registry.specs and known:
                named: dict[str, ModelType | Architecture] = {"model_type": ModelType(kind)}
                return backend, named | ({"architecture": Architecture(architecture)} if architecture else {})
    asked = f"candidate '{candidate.name}'" if candidate.backend is None else f"backend or solver '{candidate.backend}'"
    broken = "; ".join(f"{p.name} is broken: {p.reason}" for p in registry.broken)
    raise UsageError(
        f"There is no {asked}{f' ({broken})' if broken else ''}.",
        f"Known are {', '.join(known_candidates(registry))}, and networks followed by -{' or -'.join(Architecture)}.",
    )
