"""The entries of the dropdown that the tests work with, and what their window needs of the system."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from ptychopinn.plugins import discover, missing_requirements
from ptychopinn.reconstructor import Capability

Ptychodus = Callable[..., subprocess.CompletedProcess[str]]

MODEL_TYPES = {"pinn": Capability.PINN, "supervised": Capability.SUPERVISED}
WORDS = {"pinn": "unsupervised", "supervised": "supervised"}  # in the names of entries
QT_LIBRARIES = {  # what PyQt5's wheel takes from the system for an invisible window, and the Debian packages
    "libGL.so.1": "libgl1",
    "libXext.so.6": "libxext6",
    "libfontconfig.so.1": "libfontconfig1",
    "libgthread-2.0.so.0": "libglib2.0-0",
}


@dataclass(frozen=True)
class Entry:
    """An entry of the dropdown."""

    backend: str
    model_type: str

    @property
    def name(self) -> str:
        return f"{WORDS[self.model_type]}-{self.backend}"

    @property
    def algorithm(self) -> str:
        return f"ptychopinn-plugin_{self.name}"

    @property
    def group(self) -> str:
        return f"PtychoPINNPlugin-{self.backend}-{self.model_type}"


def usable_entries() -> list[Entry]:
    """An entry for each model type of the backends that can be worked with here."""
    return [
        Entry(name, model_type)
        for name, spec in discover().specs.items()
        if not missing_requirements(spec)
        for model_type, capability in MODEL_TYPES.items()
        if capability in spec.capabilities
    ]


def missing_packages(libraries: dict[str, str] = QT_LIBRARIES) -> list[str]:
    """Debian packages without which no window opens, not even an invisible one."""
    missing = []
    for library, package in libraries.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    return missing
