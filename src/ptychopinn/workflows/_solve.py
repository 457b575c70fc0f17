"""Reconstruct a scan with an iterative solver."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel

from ptychopinn.assembly import PhaseRule, Synchronisation
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.run import options_for
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.errors import PluginError
from ptychopinn.geometry import Frame, Windows
from ptychopinn.metrics import flatness, forward_residual, scan_box
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.plugins import discover
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.reconstructor import Solver, SolverSpec
from ptychopinn.solvers import frame_of
from ptychopinn.stitching import patch_weights
from ptychopinn.typing import ComplexArray, FloatArray, StrPath
from ptychopinn.verdict import Evidence, judge
from ptychopinn.workflows import folders
from ptychopinn.workflows._outputs import Description, RunResult, write_outputs

_log = logging.getLogger(__name__)
_BLOCK = 512


def create_solver(name: str, options: BaseModel | Mapping[str, object] | None = None) -> Solver:
    """Create a solver by its name, with its options or fields of them.

    Raises
    ------
    PluginError
        If there is no such solver, or it cannot be imported.
    ConfigError
        If an option is unknown or out of bounds.
    """
    spec = _solver_spec(name)
    return spec.load_class()(options_for(spec.options, options))  # type: ignore[call-arg]


def _solver_spec(name: str) -> SolverSpec:
    solvers = discover().solvers
    if name not in solvers:
        raise PluginError(f"There is no solver '{name}'.", f"Use one of {', '.join(solvers)}.")
    return solvers[name]


def solve(solver: Solver, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> Reconstruction:
    """Reconstruct a scan with a solver.

    Returns
    -------
    As `ptychopinn.reconstruction.reconstruct`, with the coverage of whole windows.

    Raises
    ------
    PluginError
        If the solver returns no object and probe, or an object that does not have the shape of the frame.
    """
    start = time.perf_counter()
    frame = frame_of(data)
    found = solver.reconstruct(data, monitor=monitor)
    if not all(hasattr(found, name) for name in ("object", "probe")):
        raise PluginError(
            f"The solver returned a value of the type {type(found).__name__}.",
            "Return one with the attributes object (H, W) and probe (modes, N, N).",
        )
    obj, probe = found.object, found.probe
    seconds = time.perf_counter() - start
    if obj.shape != frame.shape:
        raise PluginError(
            f"The solver returned an object of {obj.shape}; the frame of the scan has {frame.shape}.",
            "Use another solver; this one violates the protocol.",
        )
    box = scan_box(frame.local(data.positions), frame.shape)
    coverage = _coverage(data, probe, frame)
    residual = forward_residual(obj, frame.origin, probe, data)
    verdict = judge(Evidence(data, np.asarray(probe, np.complex64), residual, passes=1, trained=False))
    if verdict.warning is not None:
        _log.warning("%s", verdict.warning)
    return Reconstruction(
        object=np.asarray(obj, np.complex64),
        coverage=coverage,
        frame=frame,
        probe=np.asarray(probe, np.complex64),
        positions=data.positions,
        residual=residual,
        verdict=verdict,
        flatness=math.nan if box.is_empty else flatness(obj, box),
        synchronised=Synchronisation(PhaseRule.NONE_NEEDED),
        placed=len(data),
        dropped=0,
        seconds={"solve": seconds},
        warnings=() if verdict.warning is None else (verdict.warning,),
    )


def _coverage(data: ScanDataset, probe: ComplexArray, frame: Frame) -> FloatArray:
    """Sum of the probe's intensity over all windows, in units of its maximum."""
    windows = Windows.at(data.positions, data.N, frame)
    coverage = np.zeros(frame.shape, np.float32)
    light = patch_weights(probe, data.N)
    for low in range(0, len(data), _BLOCK):
        some = windows[low : low + _BLOCK]
        coverage = some.add(coverage, np.broadcast_to(light, (len(some), *light.shape)))
    return coverage


def solve_run(  # noqa: PLR0913
    data_path: StrPath,
    output: StrPath,
    *,
    solver: str,
    options: BaseModel | Mapping[str, object] | None = None,
    reading: ReadOptions | None = None,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Reconstruct a scan file into a directory, as `infer_run` does with a network.

    Parameters
    ----------
    options:
        Its options, or fields of them.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    """
    options = options_for(_solver_spec(solver).options, options)
    made = create_solver(solver, options)
    data = read_scan(data_path, **dict(reading or ReadOptions()))
    with folders.run_folder(output, overwrite=overwrite) as folder:
        reconstruction = solve(made, data, monitor=monitor)
        return write_outputs(
            folder,
            data,
            reconstruction,
            Description(f"Reconstruction of {data.name}", f"ptychopinn, solver {solver}"),
            tables={"Solver": {"name": solver, **options.model_dump(mode="json", exclude_none=True)}},
        )
