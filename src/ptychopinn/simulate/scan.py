"""Simulate a scan: object, probe, positions, what goes wrong in a real one, and Poisson counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import reduce

import numpy as np

from ptychopinn.config.simulation import ScanKind, SimulationConfig
from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.data.ground_truth import true_patches
from ptychopinn.errors import ConfigError
from ptychopinn.forward import detector_ramp, expected_counts
from ptychopinn.geometry import split_positions
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.short_repr import ShortRepr
from ptychopinn.simulate.effects import (
    aberrated,
    aberration_course,
    background_shape,
    draw_flux,
    fly_offsets,
    position_errors,
    stage_drift,
)
from ptychopinn.simulate.objects import simulate_object
from ptychopinn.simulate.probes import probe_width_px, simulate_probe
from ptychopinn.simulate.trajectories import scan_positions
from ptychopinn.typing import ComplexArray, FloatArray

_BLOCK = 256  # patterns simulated at a time
_MARGIN_PX = 8  # object beyond the outermost window


class _Stream(IntEnum):
    """Number of a random stream of a scan's seed; a new one goes to the end, so that those before it stay."""

    OBJECT = 0
    POSITIONS = 1
    NOISE = 2
    BAD_PIXELS = 3
    FLUX = 4
    POSITION_ERRORS = 5
    DRIFT = 6
    ABERRATIONS = 7

    def of(self, config: SimulationConfig) -> np.random.Generator:
        """The generator, at its start."""
        return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(self,)))


@dataclass(frozen=True, eq=False, repr=False)
class SimulatedTruth(ShortRepr):
    """What the patterns of a simulated scan are made of."""

    object: ComplexArray  # (H, W) complex64, or as the caller gave it
    probe: ComplexArray  # (modes, N, N) complex64, scaled to counts, without the detector's offset
    positions: FloatArray  # (n, 2) float64 (y, x), object pixels: where the probe was, in the middle of each exposure
    flux: FloatArray  # (n,) float32: factor of the dose of each pattern; their distribution has the mean 1
    # (N, N) float32: expected counts that every pattern has beside its own, DC at ``[N//2, N//2]``.
    background: FloatArray
    # (n, 2) float64, rad: defocus and astigmatism of each pattern, as `ptychopinn.simulate.effects.aberrated` takes
    # them; None if the probe does not vary.
    aberrations: FloatArray | None = None

    def probes(self, part: slice = slice(None)) -> ComplexArray:
        """(b, modes, N, N) complex64: the probe of some patterns; (modes, N, N) if it does not vary."""
        return self.probe if self.aberrations is None else aberrated(self.probe, self.aberrations[part])


def simulate_scan(
    config: SimulationConfig,
    *,
    obj: ComplexArray | None = None,
    probe: ComplexArray | None = None,
    monitor: Monitor = NULL_MONITOR,
) -> ScanDataset:
    """Simulate a scan.

    Object, positions, noise, bad pixels, flux, position errors, drift and aberrations have separate random streams, so
    a change of the dose does not change the object. Memory is needed for the counts, and for the true patches if they
    are stored.

    Parameters
    ----------
    obj:
        (H, W) complex to use instead of ``object_kind``.
    probe:
        (modes, N, N) complex to use instead of ``probe_kind``; scaled to ``nphotons``.

    Returns
    -------
    A scan of counts (uint32) at the recorded positions, with the true object as ``object_guess`` and the true probe,
    scaled to counts, as ``probe``; true patches are those at the true positions. With ``detector_offset_px`` the
    patterns are shifted, but the probe is not. `simulated_truth` has the true positions.

    Raises
    ------
    ConfigError
        If the scan does not fit into the object, or the probe is not N pixels wide.
    """
    truth = simulated_truth(config, obj=obj, probe=probe)
    bad = _Stream.BAD_PIXELS.of(config).random((config.N, config.N)) < config.bad_pixel_fraction
    for_noise = _Stream.NOISE.of(config)
    count = len(truth.positions)
    counts = np.empty((count, config.N, config.N), np.uint32)
    limit = config.saturation_counts or np.iinfo(counts.dtype).max
    patches = np.empty(counts.shape, np.complex64) if config.write_patches else None
    for block, expected in _exposures(config, truth):
        counts[block] = np.minimum(for_noise.poisson(expected + truth.background), limit)
        if patches is not None:
            patches[block] = true_patches(truth.object, truth.positions[block], config.N)
        monitor.report("simulate", block.stop, count)
    counts[:, bad] = 0
    metadata = ScanMetadata.model_validate(
        {
            "measurement": Measurement.COUNTS,
            "nphotons": max(float(counts.sum(dtype=np.float64) / count), np.finfo(np.float32).tiny),
            "saturation_counts": config.saturation_counts,
            "source": "simulated by ptychopinn",
            "simulation": config.model_dump(mode="json"),
        }
    )
    return ScanDataset(
        patterns=counts,
        measurement=Measurement.COUNTS,
        positions=_recorded_positions(config, truth.positions),
        probe=truth.probe,
        object_guess=truth.object,
        patches_guess=patches,
        bad_pixels=bad,
        metadata=metadata,
        name=f"{config.object_kind}-{config.seed}",
    ).as_checked()


def simulated_truth(
    config: SimulationConfig, *, obj: ComplexArray | None = None, probe: ComplexArray | None = None
) -> SimulatedTruth:
    """What `simulate_scan`, with the same arguments, makes patterns of.

    It is for comparing found positions, flux and background with. A file of `simulate_scan` has the settings in its
    metadata: ``simulated_truth(SimulationConfig(**scan.metadata.model_extra["simulation"]))``.

    Raises
    ------
    ConfigError
        As `simulate_scan` does.
    """
    if probe is None:
        probe = simulate_probe(config.probe_kind, config.N, photons=config.nphotons, modes=config.probe_modes)
    else:
        if probe.ndim != 3 or probe.shape[1:] != (config.N, config.N):
            raise ConfigError(
                f"The probe has the shape {probe.shape}; N is {config.N}.",
                "Give a probe of shape (modes, N, N), or set N to its width.",
            )
        energy = float((np.abs(probe.astype(np.complex128)) ** 2).sum())
        probe = (probe * math.sqrt(config.nphotons / energy)).astype(np.complex64)
    shape = obj.shape if obj is not None else config.object_shape or needed_shape(config, probe)
    positions = _true_positions(config, probe, shape)
    if obj is None:
        obj = simulate_object(
            config.object_kind,
            shape,
            _Stream.OBJECT.of(config),
            amplitude=config.amplitude,
            phase_rad=config.phase_rad,
        )
    flux = draw_flux(len(positions), config.flux_deviation, _Stream.FLUX.of(config))
    truth = SimulatedTruth(obj, probe, positions, flux, np.zeros(probe.shape[1:], np.float32))
    if config.probe_variation_rad > 0:
        course = aberration_course(len(positions), config.probe_variation_rad, _Stream.ABERRATIONS.of(config))
        truth = replace(truth, aberrations=course)
    if config.background_share == 0:
        return truth
    total = sum(float(expected.sum(dtype=np.float64)) for _, expected in _exposures(config, truth))
    share = np.float32(config.background_share * total / len(positions))
    return replace(truth, background=share * background_shape(config.N))


def _true_positions(config: SimulationConfig, probe: ComplexArray, shape: tuple[int, ...]) -> FloatArray:
    """Positions in an object of that shape; refuse windows that leave it."""
    positions = scan_positions(
        config.scan_kind,
        config.rows,
        config.cols,
        step_px(config, probe),
        jitter_px=config.effective_jitter_px,
        rng=_Stream.POSITIONS.of(config),
    )
    positions = positions + (np.array(shape) - 1) / 2
    places = positions + fly_offsets(config.fly_px)[:, None]
    corners, _ = split_positions(places.reshape(-1, 2), config.N)
    if (corners < 0).any() or (corners + config.N > np.array(shape)).any():
        low, high = corners.min(axis=0), corners.max(axis=0) + config.N
        raise ConfigError(
            f"The windows of the scan span {high[0] - low[0]} x {high[1] - low[1]} pixels; the object has "
            f"{shape[0]} x {shape[1]}.",
            "Give a larger object_shape (or none), fewer rows and cols, or a smaller step_px.",
        )
    return positions


def _recorded_positions(config: SimulationConfig, true: FloatArray) -> FloatArray:
    """Positions that the scan says it has, (n, 2); their mean is that of the true ones."""
    shifts = config.position_scale_error * true
    shifts += position_errors(len(true), config.position_error_px, _Stream.POSITION_ERRORS.of(config))
    shifts -= stage_drift(len(true), config.drift_px, _Stream.DRIFT.of(config))
    recorded: FloatArray = true + (shifts - shifts.mean(axis=0))
    return recorded


def _exposures(config: SimulationConfig, truth: SimulatedTruth) -> Iterator[tuple[slice, FloatArray]]:
    """Expected counts (b, N, N) without the background, a block of patterns at a time."""
    ramp: ComplexArray | None = None
    if config.detector_offset_px is not None:
        ramp = detector_ramp(np.array(config.detector_offset_px), config.N)
    offsets = fly_offsets(config.fly_px)
    count = len(truth.positions)
    for start in range(0, count, _BLOCK):
        block = slice(start, min(start + _BLOCK, count))
        probe = truth.probes(block)
        if ramp is not None:
            probe = (probe * ramp).astype(np.complex64)
        at_points = (expected_counts(truth.object, probe, truth.positions[block] + offset) for offset in offsets)
        expected: FloatArray = reduce(np.add, at_points)
        yield block, expected * (truth.flux[block, None, None] / np.float32(len(offsets)))


def step_px(config: SimulationConfig, probe: ComplexArray) -> float:
    """The step in force: given, or from the overlap and the probe, or the default."""
    if config.step_px is not None:
        return config.step_px
    if config.overlap is not None:
        return (1 - config.overlap) * probe_width_px(probe)
    return config.default_step_px


def needed_shape(config: SimulationConfig, probe: ComplexArray) -> tuple[int, int]:
    """Height and width of an object that contains all windows and a margin of 8 px."""
    step = step_px(config, probe)
    if config.scan_kind is ScanKind.SPIRAL:
        span = [2 * step * math.sqrt(config.rows * config.cols / math.pi)] * 2
    else:
        span = [(config.rows - 1) * step, (config.cols - 1) * step]
    around = config.N + 2 * (config.effective_jitter_px + _MARGIN_PX)
    height, width = (math.ceil(s + around) for s in span)
    return height, width
