"""Fingerprint that identifies a scan."""

from __future__ import annotations

import hashlib

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.subsampling import evenly_spread

_SAMPLE = 256  # patterns; keeps large scans quick


def fingerprint(data: ScanDataset) -> str:
    """SHA-256 of counts, positions, probe and its variation, mask and scan numbers, in hexadecimal.

    Of a larger scan, 256 evenly spread patterns are used. The same scan in another file, dtype or byte order can have
    another fingerprint if its counts differ by rounding.
    """
    digest = hashlib.sha256()
    sample = evenly_spread(len(data), _SAMPLE)
    for start in range(0, len(sample), 32):
        counts = data.counts(sample[start : start + 32])
        if data.bad_values is not None:
            data.bad_values.put(counts, sample[start : start + 32], -1)
        digest.update(counts.astype("<f4").tobytes())
    arrays = {"<f8": data.positions, "<c8": data.probe, "?": data.bad_pixels, "<i8": data.scan_index}
    for dtype, array in arrays.items():
        digest.update(f"{array.shape}".encode() + array.astype(dtype).tobytes())
    if (variation := data.probe_variation) is not None:
        digest.update(variation.modes.astype("<c8").tobytes() + variation.weights.astype("<f4").tobytes())
    return digest.hexdigest()
