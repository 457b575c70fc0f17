"""What the PyTorch backend registers. Imports no torch: listing backends stays quick."""

from __future__ import annotations

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn_torch.options import TorchOptions


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """The one reconstructor of this backend."""
    return [
        ReconstructorSpec(
            name="torch",
            summary="PyTorch with Lightning Fabric, on CPU and CUDA",
            import_string="ptychopinn_torch.reconstructor:TorchReconstructor",
            options=TorchOptions,
            capabilities=frozenset(Capability),
            requires=("torch", "lightning_fabric"),
            install_hint="python -m pip install torch lightning-fabric",
        )
    ]
