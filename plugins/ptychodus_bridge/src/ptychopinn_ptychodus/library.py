"""The one library of this distribution: an entry that needs no training, and one for each backend and model type."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from ptychodus.api.reconstruct import Reconstructor, ReconstructorLibrary

from ptychopinn.config.model import ModelType
from ptychopinn.errors import PluginError
from ptychopinn.plugins import Registry, discover, missing_requirements
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn_ptychodus.automatic import NAME as AUTOMATIC
from ptychopinn_ptychodus.automatic import AutomaticReconstructor, automatic_settings
from ptychopinn_ptychodus.entry import Entry
from ptychopinn_ptychodus.reconstructor import BridgeReconstructor, entry_name
from ptychopinn_ptychodus.run_state import Host, Run
from ptychopinn_ptychodus.settings import EntrySettings, entry_settings

NAME = "PtychoPINN-Plugin"  # Ptychodus itself has libraries called PtychoPINN
# In the order of the dropdown.
_CAPABILITY = {ModelType.PINN: Capability.PINN, ModelType.SUPERVISED: Capability.SUPERVISED}
_log = logging.getLogger("ptychopinn.ptychodus")


class PluginLibrary(ReconstructorLibrary):
    """The reconstructors of all installed backends; each entry gets a group in Ptychodus's settings registry."""

    def __init__(self, settings_registry: Any, registry: Registry | None = None) -> None:
        super().__init__("ptychopinn")  # not below it: Ptychodus's own library listens there already
        self._host = Host()
        needs_nothing = EntrySettings(settings_registry, f"PtychoPINNPlugin-{AUTOMATIC}", automatic_settings())
        self._automatic = AutomaticReconstructor(needs_nothing, self._host)
        self._reconstructors: list[BridgeReconstructor] = []
        usable = _usable_backends(discover() if registry is None else registry)
        for model_type, capability in _CAPABILITY.items():
            for name, spec in usable.items():
                if capability not in spec.capabilities:
                    continue
                try:
                    settings = EntrySettings(
                        settings_registry, f"PtychoPINNPlugin-{name}-{model_type}", entry_settings(spec)
                    )
                except Exception as error:  # of a stranger's options model; the other entries stay
                    entry = entry_name(name, model_type)
                    _log.exception("The entry %s is left out: %s: %s", entry, type(error).__name__, error)
                    continue
                self._reconstructors.append(BridgeReconstructor(name, model_type.value, settings, self._host))
        if not self._reconstructors:
            _log.warning(
                "No backend is installed, so nothing can be trained; 'ptychopinn plugins' says how to install one."
            )

    @property
    def name(self) -> str:
        """As the dropdown shows it, before the underscore."""
        return NAME

    def __iter__(self) -> Iterator[Reconstructor]:
        return iter(self.reconstructors)

    @property
    def reconstructors(self) -> tuple[Entry, ...]:
        """The entries, in the order of the dropdown: what needs to know least of the object comes first."""
        return (self._automatic, *self._reconstructors)

    @property
    def older_names(self) -> dict[str, str]:
        """Name of an entry in version 0.1 to its name, as settings files have them."""
        names = {entry.older_name: entry.name for entry in self._reconstructors}
        return {f"{NAME}_{old}".casefold(): f"{NAME}_{new}".casefold() for old, new in names.items()}

    def connect(self, task_manager: Any, task_monitor: Any) -> None:
        """Take what says whether to stop."""
        self._host.connect(task_manager, task_monitor)

    @property
    def latest_run(self) -> Run | None:
        """The current run of these entries, or the latest one."""
        return self._host.latest_run

    def create_view_controller_factory(self, processing_api: Any, file_dialog_factory: Any) -> Any:
        """The factory of the panes; imports Qt."""
        from ptychopinn_ptychodus.pane import PaneFactory

        self._host.has_window = True

        return PaneFactory(self, processing_api, file_dialog_factory)


def _usable_backends(registry: Registry) -> dict[str, ReconstructorSpec]:
    """The backends that can be worked with, the default one first; the log names the others with the reason."""
    for broken in registry.broken:
        _log.warning("The backend %s of %s cannot be used: %s", broken.name, broken.distribution, broken.reason)
    usable = {}
    for name, spec in registry.specs.items():
        if missing := missing_requirements(spec):
            _log.warning(
                "The backend '%s' is left out: %s not installed. %s",
                name,
                " and ".join(missing) + (" are" if len(missing) > 1 else " is"),
                spec.install_hint,
            )
        else:
            usable[name] = spec
    with contextlib.suppress(PluginError):  # several, and none is the default
        default = registry.default().name
        if default in usable:
            usable = {default: usable.pop(default), **usable}
    return usable


def create_library(settings_registry: Any, is_developer_mode_enabled: bool) -> PluginLibrary:
    """What the entry point of the group ``ptychodus.reconstructor_libraries`` names."""
    return PluginLibrary(settings_registry)
