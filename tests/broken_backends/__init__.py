"""Reconstructors that are each wrong in one way, and the tests of the kit that must find it.

The modules are named after those of the kit, `ptychopinn.testing`. Importing them fills the register.
"""

from __future__ import annotations

from broken_backends import archives, arrays, prediction, registration, settings, training
from broken_backends.registry import BROKEN, Broken
from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import ReconstructorSpec

__all__ = ["BROKEN", "Broken", "archives", "arrays", "prediction", "registration", "settings", "training"]


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """All of them."""
    return [one.spec for one in BROKEN.values()]
