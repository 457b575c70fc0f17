"""Reconstruct a scan with a trained network: predict, synchronise, stitch, refine on request, and assess."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.assembly import Stages, Synchronisation, assemble
from ptychopinn.config.infer import InferConfig, Synchronise
from ptychopinn.config.model import ModelConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.from_arrays import mend_every_pattern
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, varying_probe_in_counts
from ptychopinn.data.subsampling import nearest_to_middle, thin_positions
from ptychopinn.errors import Cancelled, ConfigError, DataError
from ptychopinn.geometry import Frame, split_positions
from ptychopinn.metrics.alignment import scan_box
from ptychopinn.metrics.baselines import noise_residual
from ptychopinn.metrics.quality import FLATNESS_LIMIT, RESIDUAL_PATTERNS, ForwardResidual, flatness
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.parallel import BackgroundThread
from ptychopinn.probe_variation import ProbeVariation
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.refinement import RefinementSummary, RefineOptions, StartKind, refine
from ptychopinn.registration import MIN_PATTERNS, LocatedScan, locate, measure_stage_error
from ptychopinn.scan_model import ScanModel
from ptychopinn.short_repr import ShortRepr
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.solvers.positions import MAX_MOVE_PX
from ptychopinn.stitching import StitchedObject, coverage_of, patch_weights
from ptychopinn.synchronise import overlap_pairs
from ptychopinn.tiles import Tiling, where_object_fits
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray
from ptychopinn.uncertainty import ScanResult, Uncertainty, check_uncertainty, estimate_uncertainty
from ptychopinn.verdict import Evidence, Explains, Verdict, judge

_log = logging.getLogger(__name__)
_BAD_RESIDUAL = 0.2  # R above which positions are checked, if noise explains less than half of it
_WRONG_STAGE_PX = 1.5  # error of a stage that passes alone may not correct
_CHECKED_PATTERNS = 128  # patterns in the middle of the scan that show whether the stage was off


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction(ShortRepr):
    """An object and figures of its quality."""

    object: ComplexArray  # (H, W) complex64; 1 + 0j where no pattern covers it
    coverage: AnyArray  # (H, W) float32, weights in units of the brightest point of one probe
    frame: Frame  # frame of the array, in the coordinates of the positions
    probe: ComplexArray  # (modes, N, N) complex64, in counts. With it the object explains the patterns.
    positions: FloatArray  # (n, 2) float64 (y, x), pixels: those of the scan, or the refined ones
    residual: float  # R = sqrt(sum (A - A_model)^2 / sum A^2) over evenly spread patterns
    flatness: float  # standard deviation of the complex object inside the scan box; NaN if the scan has no such box
    synchronised: Synchronisation  # how the phases of the patches were set
    # Number of patches placed, and number of patches outside the frame.
    placed: int
    dropped: int
    seconds: Mapping[str, float]  # wall time of each stage
    warnings: tuple[str, ...]
    refined: RefinementSummary | None = None  # figures of the refinement; None without refinement
    flux: FloatArray | None = None  # (n,) float32, flux of each pattern relative to the mean; None if it was not fitted
    # (N, N) float32, counts per pixel, DC at [N//2, N//2]; None if it was not fitted.
    background: FloatArray | None = None
    # (y, x): how far the stage moved in an exposure, pixels, as it was given; None if it stood still.
    motion_px: tuple[float, float] | None = None
    variation: ProbeVariation | None = None  # of the probe over the scan; None if it is constant
    # Positions located from the network's patches before the prediction; None if they were not requested.
    located: LocatedScan | None = None
    # Standard errors and resolution; None if they were not requested, or if no pass was kept.
    uncertainty: Uncertainty | None = None
    # Error of the stage that the network's patches show, pixels; 0 if there is none, or if it was not measured.
    stage_error_px: float = 0.0
    verdict: Verdict | None = None  # whether the object explains the patterns


def reconstruct(
    reconstructor: Reconstructor,
    data: ScanDataset,
    config: InferConfig | None = None,
    *,
    monitor: Monitor = NULL_MONITOR,
    judged: bool = True,
) -> Reconstruction:
    """Reconstruct a scan.

    Parameters
    ----------
    data:
        The scan, or several scans of one object. The frame of the object is that of ``object_guess`` if there is one,
        else the box of all patches.
    judged:
        Whether the result gets a verdict and warnings. Leave them out if work on the object goes on.

    Returns
    -------
    Reconstruction
        Memory is needed for the object, for one batch, and for the patches while their phases are solved. Beyond
        ``memory_budget_mb`` the patches are in a scratch file. A cancelled refinement returns its best state so far.

    Raises
    ------
    ConfigError
        As `check_infer`.
    DataError
        If the scan is empty, too small for the standard errors that are requested, or refused by the checks of files
        (`ptychopinn.data.from_arrays.mend_every_pattern`).
    PluginError
        If the reconstructor omits patterns.
    Cancelled
        If the monitor was cancelled before there was an object.
    ResourceError
        If memory or the disk of the scratch file do not suffice.
    """
    if len(data) == 0:
        raise DataError("The scan has no patterns.", "Give a scan with at least one.")
    data = mend_every_pattern(data)
    data.log_scan_count()
    config = config or InferConfig()
    if config.uncertainty:
        check_uncertainty(data)
    stages = Stages(config, monitor, judged=judged)
    located = _locate(reconstructor, data, stages)
    if located is not None:
        data = replace(data, positions=located.positions).as_checked()
    network_data = data
    if config.predict_overlap is not None:
        check_infer(reconstructor.model, config)
        network_data = _thin(data, config.predict_overlap, reconstructor.model.patch_size)
    with BackgroundThread() as background:
        pairs = None
        if config.synchronise is not Synchronise.OFF:
            # What depends only on positions is computed while patterns are read and predicted.
            size = reconstructor.model.patch_size
            corners, _ = split_positions(network_data.positions, size)
            pairs = background.submit(partial(overlap_pairs, corners, size))
        found = _reconstruct_at(data, network_data, reconstructor, stages, pairs)
    return replace(found, located=located)


def _reconstruct_at(
    data: ScanDataset,
    network_data: ScanDataset,
    reconstructor: Reconstructor,
    stages: Stages,
    pairs: Callable[[], IntArray] | None,
) -> Reconstruction:
    """`reconstruct` from the positions of ``data``. The network sees ``network_data``, a part of the scan or all."""
    config = stages.config
    prediction = reconstructor.infer(network_data, config, monitor=stages.monitor)
    if prediction.patch_size != reconstructor.model.patch_size:
        pairs = None  # they were computed for patches of another width
    frame = (
        Frame(data.object_guess.shape)
        if data.object_guess is not None
        else Frame.around(data.positions, prediction.patch_size)
    )
    place = where_object_fits(frame, data.N, prediction.library)
    if place is None:
        _log.warning(
            "An object of %d x %d pixels does not fit beside its passes on %s, nor do tiles; the host works on it.",
            *frame.shape,
            prediction.library,
        )
        prediction = prediction.on_host()
        place = prediction.library
    library = prediction.library
    with library.session():
        tiling = Tiling(frame, place, network_data.positions, prediction.patch_size, library)
        stitched, how = assemble(prediction, network_data, tiling, stages, pairs)
        predicted = stitched.coverage
        if network_data is not data:
            # The passes change every pixel that a pattern covers. Where the network gave no patch, they start from 1.
            with stages.timed("cover"):
                weights = patch_weights(library.to_host(prediction.probe), prediction.patch_size)
                tiling = Tiling(frame, place, data.positions, prediction.patch_size, library)
                stitched = replace(stitched, coverage=coverage_of(data.positions, weights, tiling))
        patterns = prediction.patterns
        if patterns is None or network_data is not data:
            patterns = patterns_to_refine(data, library, config)
        assessed = library.fit(lambda: refine_and_assess(stitched, how, prediction.probe, patterns, stages))
        if assessed.refined is not None and assessed.refined.passes_kept == 0:
            coverage = np.asarray(stitched.library.to_host(predicted))
            assessed = replace(assessed, coverage=coverage)  # no pass changed what lies outside the patches
    off = _explained_by_stage(reconstructor, data, patterns, assessed.residual, config)
    if off == 0 or not stages.judged:
        return replace(assessed, stage_error_px=off)
    warning = (
        f"The network's patches lie {off:.1f} px (root mean square) from where the scan's positions put them, and "
        "agree with each other: the stage may have been off. Add --refine 10 --refine-positions."
    )
    _log.warning("%s", warning)
    return replace(assessed, warnings=(*assessed.warnings, warning), stage_error_px=off)


def _locate(reconstructor: Reconstructor, data: ScanDataset, stages: Stages) -> LocatedScan | None:
    """Positions from the network's patches, if they are requested, and if the stage was off.

    Of a long scan, a part is looked at first: if the stage was off by less than `_WRONG_STAGE_PX`, passes correct it.
    """
    if not stages.config.refine_positions or not _can_locate(reconstructor, data):
        return None
    with stages.timed("locate"):
        if len(data) > 2 * _CHECKED_PATTERNS and _stage_error(reconstructor, data, stages.config) == 0:
            _log.info("Positions: the network's patches show no error of the stage; passes refine the positions.")
            return None
        return locate(reconstructor.infer(data, stages.config, monitor=stages.monitor), data, monitor=stages.monitor)


def _can_locate(reconstructor: Reconstructor, data: ScanDataset) -> bool:
    """Whether each patch is predicted from one pattern, so that positions do not matter, and there are enough."""
    return reconstructor.model.patterns_per_patch == 1 and len(data) >= MIN_PATTERNS


def _stage_error(reconstructor: Reconstructor, data: ScanDataset, config: InferConfig) -> float:
    """Error of the stage in the middle of a scan, pixels; 0 if it is less than `_WRONG_STAGE_PX`."""
    chosen = nearest_to_middle(data.positions, _CHECKED_PATTERNS)
    part = replace(data.select(chosen), scaling=fit_scaling(data))
    return measure_stage_error(reconstructor.infer(part, config), part, ignored_px=_WRONG_STAGE_PX)


def _explained_by_stage(
    reconstructor: Reconstructor, data: ScanDataset, patterns: Patterns, residual: float, config: InferConfig
) -> float:
    """Error of the stage, pixels, if it may be the reason of a large residual; else 0."""
    phases_set = config.refine > 0 or config.synchronise is not Synchronise.OFF
    if config.refine_positions or not phases_set or not _can_locate(reconstructor, data):
        return 0.0
    if residual < max(_BAD_RESIDUAL, 2 * noise_residual(patterns)):
        return 0.0
    return _stage_error(reconstructor, data, config)


def patterns_to_refine(data: ScanDataset, library: ArrayLibrary, config: InferConfig) -> Patterns:
    """The patterns of a scan for refinement. They are cached on the host only if there are several passes."""
    return Patterns(data, library, config.memory_budget_mb * 2**20 if config.refine > 1 else 0)


def check_infer(model: ModelConfig, config: InferConfig) -> None:
    """Refuse settings that a network does not support.

    Raises ConfigError if ``predict_overlap`` is set and the network predicts a patch from several patterns.
    """
    if config.predict_overlap is not None and model.patterns_per_patch > 1:
        raise ConfigError(
            "This network predicts a patch from several neighbouring patterns; predict_overlap leaves some out.",
            "Leave it out, or use a network of one pattern a patch (architecture fast).",
        )


def _thin(data: ScanDataset, overlap: float, patch_size: int) -> ScanDataset:
    """Fewer patterns of a scan, whose neighbours overlap by about this fraction of the probe's width."""
    scaling = fit_scaling(data)  # of all patterns, because the passes use all of them with the same probe
    spacing = min((1 - overlap) * probe_width_px(data.probe), patch_size / 2)
    chosen = thin_positions(data.positions, spacing)
    _log.info("The network sees %d of %d patterns, the passes use all.", len(chosen), len(data))
    return replace(data.select(chosen), scaling=scaling)


def refine_and_assess(
    stitched: StitchedObject, how: Synchronisation, probe: Array, patterns: Patterns, stages: Stages
) -> Reconstruction:
    """Refine a stitched object, if the settings request it, and assess it.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64 of the patterns' library, in counts.
    """
    config, monitor = stages.config, stages.monitor
    summary, model = None, _first_model(probe, patterns, config)
    if config.refine > 0:
        with stages.timed("refine"):
            options = RefineOptions(
                config.refine,
                config.refine_probe,
                config.refine_positions,
                config.refine_flux,
                config.refine_background,
                config.refine_probe_variation,
                config.refine_likelihood,
                modes=config.refine_modes,
            )
            start = replace(stitched.canvas, covered=stitched.covered)
            solved = config.synchronise is Synchronise.AUTO
            kind = StartKind.SYNCHRONISED if solved else StartKind.PREDICTED
            refinement = refine(patterns, model, start, options, kind=kind, monitor=monitor)
        stitched, model, summary = replace(stitched, object=refinement.object), refinement.model, refinement.summary
    with stages.timed("judge"):
        assessed = assess(stitched, model, patterns, summary, how, judged=stages.judged)
    if config.uncertainty:
        with stages.timed("uncertainty"):
            assessed = _with_uncertainty(assessed, patterns, model, monitor)
    return replace(assessed, seconds=dict(stages.seconds))


def _first_model(probe: Array, patterns: Patterns, config: InferConfig) -> ScanModel:
    """The model before passes: with the variation of the scan's probe, if that is the probe that is used."""
    data, library = patterns.data, patterns.library
    model = ScanModel(probe, data.positions, motion_px=config.refine_fly)
    if data.probe_variation is None:
        return model
    own, variation = varying_probe_in_counts(data, library.to_host(probe))
    if variation is None:
        _log.warning(
            "The probe of '%s' varies over the scan, and is not that of the model: the model's probe is used for all "
            "patterns. With --probe-source scan passes start from the scan's.",
            data.name,
        )
        return model
    _log.info("The network used the mean probe; passes start from the scan's, which varies.")
    return replace(model, probe=own, variation=variation).on(library)


def _with_uncertainty(
    assessed: Reconstruction, patterns: Patterns, model: ScanModel, monitor: Monitor
) -> Reconstruction:
    """Add standard errors, or a warning that says why there are none."""
    if assessed.refined is None or assessed.refined.passes_kept == 0:
        warning = "There are no standard errors: they hold for objects that passes made, and no pass was kept."
    else:
        try:
            result = ScanResult(assessed.object, assessed.frame, model, assessed.refined.from_flat)
            return replace(assessed, uncertainty=estimate_uncertainty(patterns, result, monitor=monitor))
        except Cancelled:
            warning = "There are no standard errors: the reconstruction was cancelled before."
    _log.warning("%s", warning)
    return replace(assessed, warnings=(*assessed.warnings, warning))


def uncertainty_of(
    data: ScanDataset, found: Reconstruction, *, flat_start: bool, monitor: Monitor = NULL_MONITOR
) -> Uncertainty:
    """Standard errors and resolution of any reconstruction that passes made, such as that of a solver.

    Parameters
    ----------
    flat_start:
        Whether the passes started from a flat object, and not from a prediction.
    monitor:
        Gets each pass as "uncertainty", and may cancel.

    Raises
    ------
    DataError
        If the scan is too small (`ptychopinn.uncertainty.check_uncertainty`).
    Cancelled
        If the monitor is cancelled.
    """
    background = None if found.background is None else np.fft.ifftshift(found.background)
    model = ScanModel(found.probe, found.positions, found.flux, background, found.motion_px, found.variation)
    result = ScanResult(found.object, found.frame, model, flat_start)
    patterns = Patterns(data, host_budget_bytes=InferConfig().memory_budget_mb * 2**20)
    return estimate_uncertainty(patterns, result, monitor=monitor)


def assess(
    stitched: StitchedObject,
    model: ScanModel,
    patterns: Patterns,
    refined: RefinementSummary | None,
    how: Synchronisation,
    *,
    judged: bool = True,
) -> Reconstruction:
    """Bring an object and its model to the host, with figures and warnings.

    One that is not ``judged``, because work on it goes on, has no verdict and no warnings.
    """
    residual = ForwardResidual(model, patterns, max_patterns=RESIDUAL_PATTERNS)(stitched.canvas)
    to_host = stitched.library.to_host
    stitched = replace(stitched, object=to_host(stitched.object), coverage=to_host(stitched.coverage), library=NUMPY)
    home = patterns.library.to_host
    background = None if model.background is None else np.fft.fftshift(home(model.background))
    variation = model.variation
    if variation is not None:
        variation = replace(variation, modes=home(variation.modes))
    model = replace(model, probe=home(model.probe), background=background, variation=variation)
    box = scan_box(stitched.frame.local(model.positions), stitched.object.shape)
    flat = math.nan if box.is_empty else flatness(stitched.object, box)
    verdict, warnings = None, list[str]()
    if judged:
        data = replace(patterns.data, positions=model.positions)
        verdict = judge(Evidence(data, model.probe, residual, 0 if refined is None else refined.passes_kept))
        warnings = _warnings_of(stitched, verdict, flat, refined)
        for warning in warnings:
            _log.warning("%s", warning)
    return Reconstruction(
        object=stitched.object,
        coverage=stitched.coverage,
        frame=stitched.frame,
        probe=model.probe,
        positions=model.positions,
        flux=model.flux,
        background=model.background,
        motion_px=model.motion_px,
        variation=variation,
        residual=residual,
        verdict=verdict,
        flatness=flat,
        synchronised=how,
        placed=stitched.placed,
        dropped=stitched.dropped,
        seconds={},
        warnings=tuple(warnings),
        refined=refined,
    )


def _warnings_of(
    stitched: StitchedObject, verdict: Verdict, flat: float, refined: RefinementSummary | None
) -> list[str]:
    """The warnings about a stitched object, which is on the host."""
    warnings = [] if verdict.warning is None else [verdict.warning]
    if flat < FLATNESS_LIMIT:
        warnings.append(
            f"The object is flat: it deviates by {flat:.4f} inside the scan box, less than {FLATNESS_LIMIT}."
            + _why_flat(verdict)
        )
    if stitched.dropped:
        count = stitched.placed + stitched.dropped
        warnings.append(f"{stitched.dropped} of {count} patches lie outside the frame of objectGuess.")
    if refined is not None and refined.passes_done < refined.passes_asked:
        warnings.append(
            f"Refinement was cancelled after {refined.passes_done} of {refined.passes_asked} passes; "
            "the best so far is kept."
        )
    elif refined is not None and refined.passes_kept == 0:
        warnings.append(
            "No pass of the refinement was kept, because none lowered the forward residual significantly. Either the "
            "probe is wrong, or so few photons contain no more information than the prediction."
        )
    if refined is not None and refined.positions_reset:
        warnings.append(
            f"{refined.positions_reset} positions moved by {MAX_MOVE_PX} px and were set back: their patterns do not "
            "fit the others. Check these patterns and the probe."
        )
    if refined is not None and refined.weights_reset:
        warnings.append(
            f"The probe of {refined.weights_reset} patterns ran away from that of the others: the weights of its modes "
            "were set to 0. Check these patterns, or fit the flux too."
        )
    return warnings


def _why_flat(verdict: Verdict) -> str:
    match verdict.explains:
        case Explains.YES:
            return " The patterns say so too: there is little in the beam."
        case Explains.UNKNOWN:
            return " The patterns have too few photons to show more."
        case _:
            return ""
