"""The register of broken backends."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from numpy_backend import NumpyOptions, NumpyReconstructor

from ptychopinn.reconstructor import (
    Capability,
    ReconstructorSpec,
)

ClassT = TypeVar("ClassT", bound=type[NumpyReconstructor])


@dataclass(frozen=True)
class Broken:
    """A class and the names of the tests that it must fail; no other may fail."""

    cls: type[NumpyReconstructor]
    fails: frozenset[str]
    fresh: bool  # whether it shows in a fresh process alone

    @property
    def spec(self) -> ReconstructorSpec:
        return ReconstructorSpec(
            name=self.cls.backend,
            summary=f"Broken: {self.cls.backend}",
            import_string=f"{self.cls.__module__}:{self.cls.__name__}",
            options=NumpyOptions,
            capabilities=frozenset({Capability.CPU, Capability.PINN, Capability.SUPERVISED, Capability.RESUME}),
        )


BROKEN: dict[str, Broken] = {}


def broken(*fails: str, fresh: bool = False) -> Callable[[ClassT], ClassT]:
    """Name a class after itself, and enter it."""

    def enter(cls: ClassT) -> ClassT:
        cls.backend = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        BROKEN[cls.backend] = Broken(cls, frozenset(fails), fresh)
        return cls

    return enter
