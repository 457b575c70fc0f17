"""Simulate a scan: object, probe, positions and Poisson counts."""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.config.simulation import ScanKind, SimulationConfig
from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.data.ground_truth import true_patches
from ptychopinn.errors import ConfigError
from ptychopinn.forward import detector_ramp, expected_counts
from ptychopinn.geometry import split_positions
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.simulate.objects import simulate_object
from ptychopinn.simulate.probes import probe_width_px, simulate_probe
from ptychopinn.simulate.trajectories import scan_positions
from ptychopinn.typing import ComplexArray

_BLOCK = 256  # patterns simulated at a time
_MARGIN_PX = 8  # object beyond the outermost window


def simulate_scan(
    config: SimulationConfig,
    *,
    obj: ComplexArray | None = None,
    probe: ComplexArray | None = None,
    monitor: Monitor = NULL_MONITOR,
) -> ScanDataset:
    """Simulate a scan.

    Object, positions, noise and bad pixels have separate random streams, so a change of the dose does not change the
    object. Memory is needed for the counts, and for the true patches if they are stored.

    Parameters
    ----------
    config:
        The settings.
    obj:
        (H, W) complex to use instead of ``object_kind``.
    probe:
        (modes, N, N) complex to use instead of ``probe_kind``; scaled to ``nphotons``.
    monitor:
        Gets progress with the stage "simulate".

    Returns
    -------
    A scan of counts (uint32), with the true object as ``object_guess`` and the true probe, scaled to counts, as
    ``probe``. With ``detector_offset_px`` the patterns are shifted, but the probe is not.

    Raises
    ------
    ConfigError
        If the scan does not fit into the object, or the probe is not N pixels wide.
    """
    for_object, for_positions, for_noise, for_pixels = (
        np.random.default_rng(s) for s in np.random.SeedSequence(config.seed).spawn(4)
    )
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
    positions = scan_positions(
        config.scan_kind,
        config.rows,
        config.cols,
        step_px(config, probe),
        jitter_px=config.effective_jitter_px,
        rng=for_positions,
    )
    shape = obj.shape if obj is not None else config.object_shape or needed_shape(config, probe)
    positions = positions + (np.array(shape) - 1) / 2
    corners, _ = split_positions(positions, config.N)
    if (corners < 0).any() or (corners + config.N > np.array(shape)).any():
        low, high = corners.min(axis=0), corners.max(axis=0) + config.N
        raise ConfigError(
            f"The windows of the scan span {high[0] - low[0]} x {high[1] - low[1]} pixels; the object has "
            f"{shape[0]} x {shape[1]}.",
            "Give a larger object_shape (or none), fewer rows and cols, or a smaller step_px.",
        )
    if obj is None:
        obj = simulate_object(
            config.object_kind, shape, for_object, amplitude=config.amplitude, phase_rad=config.phase_rad
        )
    bad = for_pixels.random((config.N, config.N)) < config.bad_pixel_fraction
    lit = probe
    if config.detector_offset_px is not None:
        lit = (probe * detector_ramp(np.array(config.detector_offset_px), config.N)).astype(np.complex64)
    count = len(positions)
    counts = np.empty((count, config.N, config.N), np.uint32)
    patches = np.empty(counts.shape, np.complex64) if config.write_patches else None
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        counts[block] = for_noise.poisson(expected_counts(obj, lit, positions[block]))
        if patches is not None:
            patches[block] = true_patches(obj, positions[block], config.N)
        monitor.report("simulate", min(start + _BLOCK, count), count)
    counts[:, bad] = 0
    metadata = ScanMetadata.model_validate(
        {
            "measurement": Measurement.COUNTS,
            "nphotons": max(float(counts.sum(dtype=np.float64) / count), np.finfo(np.float32).tiny),
            "source": "simulated by ptychopinn",
            "simulation": config.model_dump(mode="json"),
        }
    )
    return ScanDataset(
        patterns=counts,
        measurement=Measurement.COUNTS,
        positions=positions,
        probe=probe,
        object_guess=obj,
        patches_guess=patches,
        bad_pixels=bad,
        metadata=metadata,
        name=f"{config.object_kind}-{config.seed}",
    )


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
