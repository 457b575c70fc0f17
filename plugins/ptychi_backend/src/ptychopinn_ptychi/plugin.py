"""Registration. Imports neither pty-chi nor torch, so that listing solvers is fast."""

from __future__ import annotations

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import SolverSpec
from ptychopinn_ptychi.options import PtychiOptions


@hookimpl
def ptychopinn_solvers() -> list[SolverSpec]:
    """The solver of this distribution."""
    return [
        SolverSpec(
            name="ptychi",
            summary="pty-chi: LSQ-ML, ePIE or rPIE",
            import_string="ptychopinn_ptychi.solver:PtychiSolver",
            options=PtychiOptions,
            requires=("ptychi", "torch", "torchvision"),
            install_hint="python -m pip install ptychi",
        )
    ]
