"""The entries of the dropdown that the tests work with."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from ptychopinn.plugins import discover, missing_requirements
from ptychopinn.reconstructor import Capability

Ptychodus = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Entry:
    """An entry of the dropdown."""

    name: str
    algorithm: str
    group: str


def entry_of(name: str) -> Entry:
    return Entry(name, f"ptychopinn-plugin_{name}", f"PtychoPINNPlugin-{name}")


def usable_backends() -> list[str]:
    """Backends that can be worked with here."""
    found = discover()
    return [
        name
        for name, spec in found.specs.items()
        if not missing_requirements(spec) and Capability.PINN in spec.capabilities
    ]
