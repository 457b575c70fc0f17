"""The entry-point group ``ptychodus.reconstructor_libraries``: reconstructor libraries that other distributions bring.

An entry point names a callable ``create(settings_registry, is_developer_mode_enabled)`` that returns a
`ptychodus.api.reconstruct.ReconstructorLibrary`. Three members of the library are optional:

``older_names``
    is a mapping from keys of the dropdown that earlier versions had to those of today; settings files may have both;

``connect(task_manager, task_monitor)``
    is called once everything is built;
``create_view_controller_factory(processing_api, file_dialog_factory)``
    returns the factory of its panes; called in the GUI only, so that it may import Qt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

GROUP = "ptychodus.reconstructor_libraries"

_log = logging.getLogger("ptychopinn.ptychodus")


def load_libraries(
    settings_registry: Any,
    is_developer_mode_enabled: bool,
    taken: Iterable[str],
    found: Iterable[EntryPoint] | None = None,
) -> list[Any]:
    """Make the libraries of the group, or of the entry points given. A broken one is logged and left out.

    ``taken`` are the names of Ptychodus's own libraries; the first two arguments are those that it gives to them.
    """
    names = {name.casefold() for name in taken}
    libraries = []
    for entry in sorted(entry_points(group=GROUP) if found is None else found, key=lambda e: e.name):
        try:
            library = entry.load()(settings_registry, is_developer_mode_enabled)
            name = library.name.casefold()
            if "_" in name or name in names:
                raise ValueError(f"the name {library.name!r} is taken or has an underscore")
        except (Exception, SystemExit) as error:  # a stranger's library must not keep Ptychodus from starting
            _log.error("The reconstructor library '%s' is left out: %s: %s", entry.name, type(error).__name__, error)
            _log.debug("Its error:", exc_info=True)
            continue
        names.add(name)
        libraries.append(library)
    return libraries
