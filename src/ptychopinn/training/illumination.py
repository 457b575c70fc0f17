"""The illumination of a model: its initial estimate and its tensors in an archive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.bundle import Bundle
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.train import DetectorOffset, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import Scaling, circle, probe_in_counts
from ptychopinn.data.subsampling import nearest_to_middle
from ptychopinn.errors import ArchiveError
from ptychopinn.forward import detector_ramp
from ptychopinn.monitor import Monitor
from ptychopinn.solvers import choose_probe
from ptychopinn.solvers.epie import CACHE_BYTES
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray

_INITIAL = "begun/"
_MIDDLE_PATTERNS = 1024  # they determine the probe, and the time is limited


@dataclass(frozen=True, eq=False)
class IlluminationArrays:
    """The illumination of a model, as NumPy arrays."""

    # (modes, N, N) complex64 in units of the square root of a scan's mean counts, without the offset.
    probe: ComplexArray
    offset_px: FloatArray  # (2,) (y, x): shift of the patterns from the probe's far field, in detector pixels
    log_intensity: float = 0.0  # natural logarithm of a factor on all counts


def scan_probe(data: ScanDataset, scaling: Scaling, model: ModelConfig, *, follow_offset: bool = False) -> ComplexArray:
    """The scan's own probe over the root of its mean counts, as `probe_in_counts` makes it: (modes, N, N) complex64."""
    probe = probe_in_counts(data, scaling, follow_offset=follow_offset, circular_mask=model.probe_mask)
    return probe / np.float32(math.sqrt(scaling.mean_counts))


def estimate_illumination(
    data: ScanDataset,
    scaling: Scaling,
    model: ModelConfig,
    config: TrainConfig,
    monitor: Monitor,
    library: ArrayLibrary = NUMPY,
) -> IlluminationArrays:
    """Estimate the initial illumination of a training: the scan's probe, and the offset of its patterns.

    With ``probe_refinement``, ePIE refines the probe with patterns in the middle of the scan and arrays of ``library``.
    The refined probe, which includes the offset, is used if it explains the patterns clearly better
    (`ptychopinn.solvers.choose_probe`).
    """
    follow = config.offset_for(model) is not DetectorOffset.NONE
    offset = scaling.detector_offset_px if follow else np.zeros(2)
    probe = scan_probe(data, scaling, model)
    if config.probe_refinement:
        root = np.float32(math.sqrt(scaling.mean_counts))
        ramp = detector_ramp(offset, data.N)
        middle = data.select(nearest_to_middle(data.positions, _MIDDLE_PATTERNS))
        patterns = Patterns(middle, library, CACHE_BYTES)
        choice = choose_probe(patterns, probe * root, ramp, config.probe_refinement, seed=config.seed, monitor=monitor)
        if choice.refined:
            probe, offset = choice.probe / root, np.zeros(2)
            if model.probe_mask:
                probe = probe * circle(data.N)
    return IlluminationArrays(probe, offset)


def illumination_tensors(light: IlluminationArrays) -> dict[str, AnyArray]:
    """The tensors of an illumination in an archive; the inverse of `illumination_from_tensors`."""
    return {
        "illumination/probe": light.probe.astype(np.complex64),
        "illumination/offset_px": np.asarray(light.offset_px, np.float32),
        "illumination/log_intensity": np.array([light.log_intensity], np.float32),
    }


def initial_tensors(arrays: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """The initial illumination as its checkpoints store it, from the tensors of the untrained model."""
    return {f"{_INITIAL}{name}": array for name, array in arrays.items() if name.startswith("illumination/")}


def initial_illumination(config: ModelConfig, checkpoint: Bundle | None) -> IlluminationArrays | None:
    """The initial illumination stored in a checkpoint, so that resuming does not estimate it again.

    Returns
    -------
    None if there is no checkpoint, or one of an older version.

    Raises
    ------
    ArchiveError
        If it does not fit the configuration.
    """
    weights = {} if checkpoint is None else checkpoint.weights
    arrays = {name.removeprefix(_INITIAL): array for name, array in weights.items() if name.startswith(_INITIAL)}
    return illumination_from_tensors(config, arrays) if arrays else None


def illumination_from_tensors(config: ModelConfig, arrays: Mapping[str, AnyArray]) -> IlluminationArrays:
    """The illumination in the tensors of an archive.

    Raises ArchiveError if tensors are missing or do not fit the configuration.
    """
    try:
        probe, offset = arrays["illumination/probe"], arrays["illumination/offset_px"]
        log_intensity = arrays["illumination/log_intensity"]
    except KeyError as error:
        raise ArchiveError(f"The archive lacks the tensor {error}.", "Save the model again.") from error
    fits = probe.ndim == 3 and probe.shape[1:] == (config.N, config.N)
    if not fits or offset.shape != (2,) or log_intensity.shape != (1,):
        raise ArchiveError(
            f"The archive's illumination has the shapes {probe.shape}, {offset.shape}, {log_intensity.shape}; "
            f"N = {config.N} was expected.",
            "Save the model again.",
        )
    return IlluminationArrays(probe, offset, float(log_intensity[0]))
