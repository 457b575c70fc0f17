"""The conformance kit of ptychopinn, for the NumPy backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ptychopinn_numpy.plugin import ptychopinn_reconstructors

from ptychopinn.testing import ReconstructorConformance

(SPEC,) = ptychopinn_reconstructors()


class TestNumpy(ReconstructorConformance):
    """All of it; the network learns within a few batches."""

    spec = SPEC
    train: ClassVar[Mapping[str, Any]] = {"batch_size": 2}
