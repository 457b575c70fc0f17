"""Spatial split into training and validation (neighbours overlap, so a random split would leak)."""

from __future__ import annotations

import logging

import numpy as np
from scipy.spatial import cKDTree

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.grouping import members_by_scan
from ptychopinn.errors import ConfigError
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

_LOG = logging.getLogger(__name__)


def split_by_space(data: ScanDataset, fraction: float) -> tuple[IntArray, IntArray]:
    """Hold out one strip at the far end of each scan's longer axis.

    In each scan the ``fraction`` of patterns farthest along the axis of larger extent (y if equal) is held out: at
    least one, never all. A scan of one pattern is used for training. Of the other patterns, those closer to a held-out
    position than the probe's radius are dropped, the closest first, but no more than are held out and at most half:
    they show nearly the same part of the object, and would make the validation loss too low. The split is not random.

    Returns
    -------
    training, validation: sorted (k,) int64 indices of patterns; neither is empty.

    Raises
    ------
    ConfigError
        If ``fraction`` is out of bounds or no scan has two patterns.
    """
    if not 0 < fraction < 1:
        raise ConfigError(
            f"validation_fraction is {fraction}; it must lie between 0 and 1.", "Give a share such as 0.1."
        )
    radius = probe_radius_px(data.probe)
    training, validation = [], []
    for members in members_by_scan(data.scan_index):
        if len(members) == 1:
            training.append(members)
            continue
        keep, held = _split_one(data.positions[members], fraction, radius)
        training.append(members[keep])
        validation.append(members[held])
    if not validation:
        raise ConfigError(
            f"{len(data)} patterns cannot be split: no scan has two of them.",
            "Set validation_fraction to 0 or give a scan for validation.",
        )
    train, held_out = np.sort(np.concatenate(training)), np.sort(np.concatenate(validation))
    _LOG.info(
        "%d patterns for training, %d for validation, %d between them left out (probe radius %.1f px)",
        len(train),
        len(held_out),
        len(data) - len(train) - len(held_out),
        radius,
    )
    return train, held_out


def _split_one(positions: FloatArray, fraction: float, radius: float) -> tuple[IntArray, IntArray]:
    n = len(positions)
    span = np.ptp(positions, axis=0)
    axis = 0 if span[0] >= span[1] else 1
    order = np.lexsort((np.arange(n), positions[:, 1 - axis], positions[:, axis]))
    count = min(max(round(fraction * n), 1), n - 1)
    rest, held = order[:-count], order[-count:]
    distance, _ = cKDTree(positions[held]).query(positions[rest])
    nearest = np.argsort(distance, kind="stable")[: min(count, len(rest) // 2)]
    left_out = nearest[distance[nearest] < radius]
    return np.delete(rest, left_out).astype(np.int64), held.astype(np.int64)


def probe_radius_px(probe: ComplexArray) -> float:
    """Radius of a disc of the effective area ``(sum I)^2 / sum I^2`` of a (modes, N, N) probe."""
    intensity = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=0)
    energy = float((intensity**2).sum())
    return float(np.sqrt(intensity.sum() ** 2 / energy / np.pi)) if energy > 0 else 0.0
