"""Scans to refine, and objects as a network might predict them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.typing import AnyArray, ComplexArray

N, SIZE = 32, 16


def truth(scan: ScanDataset) -> ComplexArray:
    assert scan.object_guess is not None
    return scan.object_guess


def smoothed(scan: ScanDataset, sigma_px: float) -> ComplexArray:
    """The truth as a network sees it that has learned to expect little of few photons."""
    obj = truth(scan)
    blurred: ComplexArray = gaussian_filter(obj.real, sigma_px) + 1j * gaussian_filter(obj.imag, sigma_px)
    return blurred.astype(np.complex64)


def slow(shape: tuple[int, int], depth_rad: float = 0.5) -> AnyArray:
    """A phase of about one period over the object."""
    y, x = np.indices(shape) / max(shape)
    return depth_rad * np.sin(6 * x + 1) * np.cos(5 * y)


def predicted(scan: ScanDataset) -> ComplexArray:
    """The truth as a network might see it: a little blurred, with slow phases wrong."""
    return (smoothed(scan, 1.0) * np.exp(1j * slow(truth(scan).shape))).astype(np.complex64)


def wrong_probe(scan: ScanDataset, strength: float) -> ComplexArray:
    """Another curvature and width, the same energy."""
    i = np.arange(N) - (N - 1) / 2
    off = scan.probe * np.exp(-strength * (0.2 + 0.4j) * (i[:, None] ** 2 + i**2) / (0.16 * N) ** 2)
    return (off * np.linalg.norm(scan.probe) / np.linalg.norm(off)).astype(np.complex64)


def move_positions(scan: ScanDataset, deviation_px: float) -> ScanDataset:
    """The same scan with positions that are off."""
    off = np.random.default_rng(5).normal(0, deviation_px, scan.positions.shape)
    return replace(scan, positions=scan.positions + off - off.mean(axis=0))


def astray(found: AnyArray, scan: ScanDataset) -> float:
    return float(np.sqrt(((found - scan.positions) ** 2).sum(axis=1).mean()))
