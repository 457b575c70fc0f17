"""What the NumPy backend registers. A backend with a framework must not import it here."""

from __future__ import annotations

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn_numpy.options import NumpyOptions


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """The one reconstructor of this backend."""
    return [
        ReconstructorSpec(
            name="numpy",
            summary="Plain NumPy: an example of a backend",
            import_string="ptychopinn_numpy.reconstructor:NumpyReconstructor",
            options=NumpyOptions,
            capabilities=frozenset({Capability.CPU, Capability.PINN, Capability.SUPERVISED, Capability.RESUME}),
            requires=("numpy",),
            install_hint="python -m pip install ./examples/numpy_backend",
        )
    ]
