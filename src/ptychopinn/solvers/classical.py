"""The iterative reference of every comparison, as `ptychopinn.reconstructor.ProbeSolver`s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ptychopinn.config.solver import SolverOptions
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.solvers.epie import EPIEResult, epie
from ptychopinn.typing import ComplexArray


class RPIE:
    """`epie` with its own course: small regularisation and momentum that give way to averaging.

    Parameters
    ----------
    options:
        None takes the defaults.
    """

    # rPIE and its momentum: Maiden, Johnson & Li, Optica 4, 736 (2017)
    course: ClassVar[Mapping[str, float]] = {}

    def __init__(self, options: SolverOptions | None = None) -> None:
        self._options = SolverOptions() if options is None else options

    def run(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> EPIEResult:
        """Reconstruct with the scan's own probe, and return the probe and the residuals too."""
        data.tell_of_scans()
        options = self._options
        probe = probe_in_counts(data, fit_scaling(data), follow_offset=options.follow_offset)
        return epie(
            data,
            probe,
            passes=options.passes,
            update_probe=options.update_probe,
            batch_size=options.batch_size,
            seed=options.seed,
            cache_bytes=options.cache_mb * 2**20,
            monitor=monitor,
            **self.course,  # type: ignore[arg-type]
        )

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> ComplexArray:
        """Return the object, (H, W) complex64, in the frame of `ptychopinn.solvers.frame_of` the scan."""
        return self.run(data, monitor=monitor).object


class EPIE(RPIE):
    """`epie` as published: steps as the brightest point of the probe allows, no momentum, the same to the end."""

    # Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009)
    course: ClassVar[Mapping[str, float]] = {"alpha": 1.0, "momentum": 0.0, "probe_momentum": 0.0, "settle": False}
