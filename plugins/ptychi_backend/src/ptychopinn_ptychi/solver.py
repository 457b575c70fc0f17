"""Pty-chi as a `ptychopinn.reconstructor.Solver`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ptychi.api as api
import torch
from ptychi.api.task import PtychographyTask

from ptychopinn.config.execution import Accelerator
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.from_arrays import mend_every_pattern
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.errors import ResourceError
from ptychopinn.geometry import Frame, flat_object
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.solvers import frame_of
from ptychopinn.typing import ComplexArray, FloatArray
from ptychopinn_ptychi.options import Engine, PtychiOptions

_ENGINES = {Engine.LSQML: api.LSQMLOptions, Engine.EPIE: api.EPIEOptions, Engine.RPIE: api.RPIEOptions}

_MARGIN_PX = 2
_DARK = 1e-12  # counts of a measured zero where zeros are left out


@dataclass(frozen=True, eq=False)
class PtychiResult:
    """Object (H, W) and probe (modes, N, N) in counts, both complex64."""

    object: ComplexArray
    probe: ComplexArray


class PtychiSolver:
    """An engine of pty-chi, started with the scan's own probe."""

    def __init__(self, options: PtychiOptions | None = None) -> None:
        self._options = PtychiOptions() if options is None else options

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> PtychiResult:
        """Reconstruct a scan. A cancelled run returns the object so far.

        pty-chi has one mask for all patterns. Values that are bad in single patterns are 0, which it is asked to leave
        out; measured zeros are `_DARK`.

        Raises ResourceError if CUDA is requested but not available, DataError if the checks of files refuse the scan.
        """
        data = mend_every_pattern(data)
        data.log_mean_probe()
        # The margin is needed because pty-chi rounds corners differently.
        box = Frame.around(data.positions, data.N + 2 * _MARGIN_PX)
        local = data.positions - np.asarray(box.origin)
        task = PtychographyTask(
            self._task_options(data),
            diffraction_data=_counts(data),
            valid_pixel_mask=~data.bad_pixels,
            object_data=np.ones((1, *box.shape), np.complex64),
            probe_data=self._probe(data),
            probe_position_y_px=local[:, 0],
            probe_position_x_px=local[:, 1],
        )
        for epoch in range(self._options.passes):
            if monitor.cancelled:
                break
            task.run(1)
            monitor.report("ptychi", epoch + 1, self._options.passes)
        reconstructed = np.asarray(task.get_data_to_cpu("object", as_numpy=True)[0], np.complex64)
        probe = np.asarray(task.get_data_to_cpu("probe", as_numpy=True)[0] * data.N, np.complex64)
        frame = frame_of(data)
        obj = flat_object(frame)
        frame.paste(obj, reconstructed, box)
        return PtychiResult(obj, probe)

    def _probe(self, data: ScanDataset) -> ComplexArray:
        """Initial probe, (1, modes, N, N) complex64, scaled because pty-chi's Fourier transform is not unitary."""
        probe = probe_in_counts(data, fit_scaling(data), follow_offset=self._options.follow_offset)
        return (probe[None] / data.N).astype(np.complex64)

    def _task_options(self, data: ScanDataset) -> Any:
        """Options of pty-chi, with lengths in pixels (pixel size 1)."""
        chosen = self._options
        options = _ENGINES[chosen.engine]()
        options.object_options.pixel_size_m = 1.0
        options.object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
        options.object_options.position_origin_coords = np.zeros(2)
        # Otherwise it rescales object and probe from time to time; here the probe stays in counts.
        options.object_options.remove_object_probe_ambiguity.enabled = False
        options.probe_options.optimizable = chosen.update_probe
        options.reconstructor_options.num_epochs = chosen.passes
        options.reconstructor_options.batch_size = min(chosen.batch_size, len(data))
        options.reconstructor_options.random_seed = chosen.seed
        options.reconstructor_options.default_device = self._device()
        if data.bad_values is not None:
            options.reconstructor_options.exclude_measured_pixels_below = 0.0
        return options

    def _device(self) -> Any:
        available = torch.cuda.is_available()
        if self._options.accelerator is Accelerator.CUDA and not available:
            raise ResourceError("CUDA was asked for, but there is no such device.", "Use --accelerator cpu or auto.")
        return api.Devices.GPU if available and self._options.accelerator is not Accelerator.CPU else api.Devices.CPU


def _counts(data: ScanDataset) -> FloatArray:
    """(n, N, N) float32 counts; where single patterns have bad values, these are 0 and no others."""
    counts = data.counts(slice(None))
    if data.bad_values is None:
        return counts
    counts = np.maximum(counts, np.float32(_DARK))
    data.bad_values.put(counts, slice(None), 0.0)
    return counts
