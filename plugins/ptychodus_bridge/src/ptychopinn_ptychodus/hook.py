"""Patch the Ptychodus that is starting in this process so that it knows the libraries of the entry-point group.

Ptychodus names its reconstructor libraries and their panes in its two composition roots. In the process that is
starting, the names ``ProcessingCore`` and ``ProcessingController`` in those two modules are bound to subclasses that
append what other distributions bring; its files stay as they are. Batch mode never imports Qt: the second is bound when
Ptychodus imports its module.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from types import ModuleType
from typing import Any

MODEL_ROOT = "ptychodus.model.core"
CONTROLLER_ROOT = "ptychodus.controller.core"
SUPPORTED = ((1, 6), (1, 8))  # from, up to but not with

_CORE_PARAMETERS = ("self", "task_manager", "settings_registry", "product_api", "algorithm_libraries")
_CONTROLLER_PARAMETERS = (
    "self",
    "algorithm_parameter",
    "processing_api",
    "product_repository",
    "product_table_model",
    "globus",
    "genesis",
    "view",
    "status_view",
    "file_dialog_factory",
    "view_controller_factories",
)
_log = logging.getLogger("ptychopinn.ptychodus")


def install() -> bool:
    """Extend the Ptychodus that is starting in this process; calling it again does nothing.

    Returns
    -------
    Whether it is extended. False where Ptychodus only reads files, and where its version is not supported, which is
    logged.
    """
    root = sys.modules.get(MODEL_ROOT)
    if root is None or not hasattr(root, "ProcessingCore"):
        return False
    from ptychopinn_ptychodus.core import extended_core, is_extended

    if is_extended(root.ProcessingCore):
        return True
    if reason := unsupported(root):
        _log.warning("The ptychopinn reconstructors are not available: %s", reason)
        return False
    root.ProcessingCore = extended_core(root.ProcessingCore)  # type: ignore[attr-defined]
    after_import(CONTROLLER_ROOT, _extend_controller)
    return True


def unsupported(root: ModuleType) -> str:
    """Why this Ptychodus cannot be extended, with what to do; empty if it can."""
    low, high = SUPPORTED
    try:
        version = metadata.version("ptychodus")
    except metadata.PackageNotFoundError:  # a checkout on the path: its signatures decide
        version = ""
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers and not low <= numbers < high:
        return (
            f"Ptychodus {version} is not supported, {low[0]}.{low[1]} up to {high[0]}.{high[1] - 1} are. "
            "Install another version of ptychopinn-ptychodus or of ptychodus."
        )
    return _differs(root.ProcessingCore, _CORE_PARAMETERS)


def _differs(cls: Any, expected: tuple[str, ...]) -> str:
    found = tuple(inspect.signature(cls.__init__).parameters)
    if found == expected:
        return ""
    return f"{cls.__name__} of this Ptychodus takes {', '.join(found)}; upgrade ptychopinn-ptychodus."


def _extend_controller(root: ModuleType) -> None:
    """Bind the controller's name; a broken pane must not keep the window from opening."""
    try:
        from ptychopinn_ptychodus.controller import extended_controller

        if reason := _differs(root.ProcessingController, _CONTROLLER_PARAMETERS):
            _log.warning("The ptychopinn panes are not available: %s", reason)
            return
        root.ProcessingController = extended_controller(root.ProcessingController)  # type: ignore[attr-defined]
    except Exception:
        _log.exception("The ptychopinn panes are not available.")


def after_import(name: str, then: Callable[[ModuleType], None]) -> None:
    """Call ``then`` with a module: at once if it is imported, else once, right after its import."""
    module = sys.modules.get(name)
    if module is not None:
        then(module)
    elif not any(isinstance(finder, _OneShotFinder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _OneShotFinder(name, then))


class _OneShotFinder(importlib.abc.MetaPathFinder):
    """Wraps the loader of one module when that is imported, and removes itself."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self.name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _CallbackLoader(spec.loader, self._then)
        return spec


class _CallbackLoader(importlib.abc.Loader):
    """A loader that calls a function after the module ran."""

    def __init__(self, loader: Any, then: Callable[[ModuleType], None]) -> None:
        self._loader, self._then = loader, then

    def __getattr__(self, name: str) -> Any:  # get_source, get_filename and their like
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._then(module)
