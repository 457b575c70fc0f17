"""What the TensorFlow backend registers. Imports no TensorFlow: listing backends stays quick."""

from __future__ import annotations

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn_tf.options import TfOptions


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """The one reconstructor of this backend."""
    return [
        ReconstructorSpec(
            name="tf",
            summary="TensorFlow, on CPU and CUDA, with XLA, on several GPUs and machines",
            import_string="ptychopinn_tf.reconstructor:TfReconstructor",
            options=TfOptions,
            capabilities=frozenset(Capability),
            requires=("tensorflow",),
            install_hint="python -m pip install tensorflow",
        )
    ]
