"""ePIE and rPIE as `ptychopinn.reconstructor.Solver`s, for comparisons."""

from __future__ import annotations

from ptychopinn.config.solver import SolverOptions
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.from_arrays import mend_every_pattern
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.solvers.epie import EPIE_SCHEDULE, EPIEResult, epie, rpie_schedule
from ptychopinn.solvers.options import PassOptions, StepSchedule


class RPIE:
    """`epie` with small regularisation and momentum at the start, and averaging at the end.

    Source: Maiden, Johnson & Li, Optica 4, 736 (2017).
    """

    def __init__(self, options: SolverOptions | None = None) -> None:
        self._options = SolverOptions() if options is None else options

    def schedule(self, passes: int) -> StepSchedule:
        """Steps for a number of passes."""
        return rpie_schedule(passes)

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> EPIEResult:
        """Reconstruct with the scan's own probe.

        Raises
        ------
        DataError
            If the checks of files refuse the scan (`ptychopinn.data.from_arrays.mend_every_pattern`).
        """
        data = mend_every_pattern(data)
        data.log_scan_count()
        data.log_mean_probe()
        given = self._options
        options = PassOptions(
            self.schedule(given.passes),
            update_probe=given.update_probe,
            batch_size=given.batch_size,
            seed=given.seed,
        )
        return epie(
            Patterns(data, host_budget_bytes=given.cache_mb * 2**20),
            probe_in_counts(data, fit_scaling(data), follow_offset=given.follow_offset),
            passes=given.passes,
            options=options,
            monitor=monitor,
        )


class EPIE(RPIE):
    """`epie` as published: Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009)."""

    def schedule(self, passes: int) -> StepSchedule:
        """Constant steps."""
        return EPIE_SCHEDULE
