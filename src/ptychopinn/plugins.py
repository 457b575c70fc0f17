"""Discover and look up backends, solvers and readers of files, without importing a deep-learning framework.

Each entry point of the group ``ptychopinn`` is loaded separately. A broken plugin is listed with its reason, and the
others stay usable.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from pydantic import BaseModel, create_model

from ptychopinn import hookspecs
from ptychopinn.config.execution import ExecutionOptions
from ptychopinn.config.solver import SolverOptions
from ptychopinn.data.readers.find import CORE_READERS
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.errors import PluginError
from ptychopinn.reconstructor import Capability, ModelSpec, PluginSpec, ReconstructorSpec, SolverSpec

GROUP = "ptychopinn"
ALIASES: Mapping[str, str] = {"pytorch": "torch", "tensorflow": "tf"}
KNOWN_BACKENDS: Mapping[str, str] = {
    "torch": "python -m pip install ./plugins/torch_backend (in a checkout of ptychopinn)",
    "tf": "python -m pip install ./plugins/tf_backend (in a checkout of ptychopinn)",
}

CORE_SOLVERS: tuple[SolverSpec, ...] = (
    SolverSpec("epie", "ePIE as published", "ptychopinn.solvers:EPIE", SolverOptions),
    SolverSpec("rpie", "rPIE with decreasing momentum", "ptychopinn.solvers:RPIE", SolverOptions),
)

_Spec = ReconstructorSpec | SolverSpec | ReaderSpec | ModelSpec
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PREFERRED = "torch"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that cannot be used."""

    name: str  # name of its entry point, or of a backend that several distributions define
    distribution: str  # the distributions that contain it, with versions
    reason: str  # one sentence


@dataclass(frozen=True)
class Registry:
    """The installed backends and solvers."""

    specs: Mapping[str, ReconstructorSpec]  # backend name to its `ReconstructorSpec`, by name
    distributions: Mapping[str, str]  # name of a backend or solver to its "distribution version"
    broken: tuple[BrokenPlugin, ...] = ()  # unusable plugins with reasons
    # Solver name to its `SolverSpec`: those of the core, then those of plugins by name.
    solvers: Mapping[str, SolverSpec] = field(default_factory=lambda: {spec.name: spec for spec in CORE_SOLVERS})
    # Reader name to its `ReaderSpec`: those of the core and those of plugins, by name.
    readers: Mapping[str, ReaderSpec] = field(default_factory=lambda: {spec.name: spec for spec in CORE_READERS})
    models: Mapping[str, ModelSpec] = field(default_factory=dict)  # trained models of plugins, by name

    def get(self, name: str) -> ReconstructorSpec:
        """The backend of that name or alias (pytorch, tensorflow).

        Raises PluginError if it is missing or broken; lists the installed ones, and how to install others.
        """
        name = ALIASES.get(name, name)
        if name in self.specs:
            return self.specs[name]
        for plugin in self.broken:
            if plugin.name == name:
                raise PluginError(
                    f"The backend '{name}' of {plugin.distribution} cannot be used: {plugin.reason}",
                    "Install it again, or uninstall it.",
                )
        there = ", ".join(self.specs) or "none"
        hint = KNOWN_BACKENDS.get(name)
        remedy = f"Install it with: {hint}" if hint else _install_hints(self.specs)
        raise PluginError(f"There is no backend '{name}'; installed: {there}.", remedy)

    def default(self) -> ReconstructorSpec:
        """The default backend: the only one, or torch.

        Raises PluginError if there is none, or none of them is torch.
        """
        if len(self.specs) == 1:
            return next(iter(self.specs.values()))
        if not self.specs:
            broken = "; ".join(f"{p.name} is broken: {p.reason}" for p in self.broken)
            raise PluginError(
                f"No backend is installed{' (' + broken + ')' if broken else ''}.", _install_hints(self.specs)
            )
        if _PREFERRED in self.specs:
            return self.specs[_PREFERRED]
        raise PluginError(f"Several backends are installed: {', '.join(self.specs)}.", "Name one of them.")


def solver_options(registry: Registry) -> type[SolverOptions]:
    """Options of the core's solvers and of the installed ones; `execution` has the device."""
    added: dict[str, Any] = {}
    for spec in registry.solvers.values():
        for name, info in spec.options.model_fields.items():
            if name not in SolverOptions.model_fields and name not in ExecutionOptions.model_fields:
                added.setdefault(name, (info.annotation, info))
    return create_model("Solvers", __base__=SolverOptions, **added)


def _install_hints(present: Iterable[str]) -> str:
    missing = [hint for name, hint in KNOWN_BACKENDS.items() if name not in present]
    return "Install one with: " + " or ".join(missing) if missing else "Use one that is installed."


def discover(found: Iterable[EntryPoint] | None = None) -> Registry:
    """Find the installed backends.

    Parameters
    ----------
    found:
        Entry points to use instead of those of the group ``ptychopinn``.

    Returns
    -------
    A `Registry`. Broken plugins never raise here. A name that two distributions define is listed as broken, with both.
    Solvers, backends and readers share one set of names.
    """
    core: tuple[_Spec, ...] = (*CORE_SOLVERS, *CORE_READERS)
    claims: dict[str, list[tuple[str, _Spec]]] = {spec.name: [("ptychopinn", spec)] for spec in core}
    broken: list[BrokenPlugin] = []
    for entry in entry_points(group=GROUP) if found is None else found:
        distribution = _distribution(entry)
        try:
            specs = _load(entry)
        except (Exception, SystemExit) as error:
            # Exceptions of a plugin must not affect other backends; they are reported below.
            _log.debug("plugin %s failed to load", entry.name, exc_info=True)
            broken.append(BrokenPlugin(entry.name, distribution, _reason(error)))
            continue
        for spec in specs:
            claims.setdefault(spec.name, []).append((distribution, spec))
    for name, claimants in claims.items():
        if len(claimants) > 1:
            names = " and ".join(sorted(distribution for distribution, _ in claimants))
            reason = f"the name '{name}' is registered by {names}; uninstall one of them."
            broken.append(BrokenPlugin(name, names, reason))
    alone = {name: claimants[0] for name, claimants in sorted(claims.items()) if len(claimants) == 1}
    return Registry(
        specs={name: spec for name, (_, spec) in alone.items() if isinstance(spec, ReconstructorSpec)},
        distributions={name: origin for name, (origin, spec) in alone.items() if spec not in core},
        broken=tuple(broken),
        solvers={name: spec for name, (_, spec) in alone.items() if isinstance(spec, SolverSpec)},
        readers={name: spec for name, (_, spec) in alone.items() if isinstance(spec, ReaderSpec)},
        models={name: spec for name, (_, spec) in alone.items() if isinstance(spec, ModelSpec)},
    )


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown distribution"


def _reason(error: BaseException) -> str:
    text = str(error).strip() or "no reason given"
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _load(entry: EntryPoint) -> list[_Spec]:
    # A manager per plugin: pluggy checks the arguments of its hooks, and its exceptions do not affect others.
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugin = entry.load()
    manager.register(plugin, name=entry.name)
    manager.check_pending()
    if not manager.get_hookcallers(plugin):
        raise PluginError(
            f"{entry.value} implements no hook.",
            "Mark ptychopinn_reconstructors or another hook of ptychopinn.hookspecs with hookimpl.",
        )
    specs: list[_Spec] = []
    for hook, kind in (
        (manager.hook.ptychopinn_reconstructors, ReconstructorSpec),
        (manager.hook.ptychopinn_solvers, SolverSpec),
        (manager.hook.ptychopinn_readers, ReaderSpec),
        (manager.hook.ptychopinn_models, ModelSpec),
    ):
        for spec in (spec for returned in hook() for spec in returned):
            if not isinstance(spec, kind):
                raise PluginError(f"The hook returned {spec!r}; a {kind.__name__} is needed.")
            _check(spec)
            specs.append(spec)
    return specs


def _check(spec: _Spec) -> None:
    if not _NAME.fullmatch(spec.name) or spec.name in ALIASES:
        raise PluginError(
            f"The name {spec.name!r} is not allowed: lower-case letters, digits and inner dashes, "
            f"and none of {', '.join(ALIASES)}."
        )
    if isinstance(spec, ModelSpec):
        if not spec.path.is_file():
            raise PluginError(f"The archive of the model '{spec.name}', {spec.path}, is not there.")
        return
    if isinstance(spec, ReaderSpec):
        if not (callable(spec.sniff) and callable(spec.read)):
            raise PluginError(f"The reader '{spec.name}' has no functions sniff and read.")
        return
    module, colon, attribute = spec.import_string.partition(":")
    if not (module and colon and attribute):
        raise PluginError(f"The import string {spec.import_string!r} of '{spec.name}' is not 'package.module:Class'.")
    if not (isinstance(spec.options, type) and issubclass(spec.options, BaseModel)):
        raise PluginError(f"The options of '{spec.name}' are {spec.options!r}; a pydantic model is needed.")
    if not isinstance(spec, ReconstructorSpec):
        return
    if strange := [c for c in spec.capabilities if not isinstance(c, Capability)]:
        raise PluginError(f"The backend '{spec.name}' claims capabilities that do not exist: {strange}.")


def missing_requirements(spec: PluginSpec[Any]) -> tuple[str, ...]:
    """The missing packages of a backend or solver, found without importing them."""
    return spec.missing_packages


@dataclass(frozen=True)
class BackendRow:
    """One row of the table of backends, plain values only."""

    name: str
    distribution: str
    summary: str
    missing: tuple[str, ...]
    capabilities: Mapping[str, bool]  # all capabilities, and whether it has them
    install_hint: str


def capability_table(registry: Registry) -> list[BackendRow]:
    """Describe each backend and its capabilities, for lists and menus."""
    return [
        BackendRow(
            name=name,
            distribution=registry.distributions[name],
            summary=spec.summary,
            missing=missing_requirements(spec),
            capabilities={str(c): c in spec.capabilities for c in Capability},
            install_hint=spec.install_hint,
        )
        for name, spec in registry.specs.items()
    ]
