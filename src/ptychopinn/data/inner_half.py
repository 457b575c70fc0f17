"""The scan on the inner half of its patterns, where passes cost less and object pixels are twice as wide.

The large scales of an object scatter to small angles, so the first passes need no more of a pattern.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import mean_pattern, scaling_of
from ptychopinn.data.sizes import place_centred, resample_placed, resample_probe
from ptychopinn.geometry import Frame, flat_object
from ptychopinn.typing import ComplexArray

FACTOR = 2
"""How much wider its object pixels are."""
MIN_LIGHT = 0.96
"""Share of the counts in the inner half. With 0.97 passes there led to a better object at every time; with 0.955, on a
Siemens star, six of them delayed a good one."""
_MIN_SIZE = 64  # N of the whole patterns; passes over less than half of it cost hardly less


def inner_half(data: ScanDataset) -> ScanDataset | None:
    """The scan with its patterns cropped to N/2, without a copy; None if they are too small, or too much light is lost.

    Probe and positions are those of the wider object pixels. There is no object guess. Patterns that are read only when
    they are needed are not cropped, nor are those of a probe that varies over the scan.
    """
    size = data.N // FACTOR
    if data.N < _MIN_SIZE or data.probe_variation is not None or not isinstance(data.patterns, np.ndarray):
        return None
    mean = mean_pattern(data)
    inner_mean = place_centred(mean, (size, size))
    if inner_mean.sum() < MIN_LIGHT * mean.sum():
        return None
    first = data.N // 2 - size // 2
    inner = slice(first, first + size)
    bad, probe = data.bad_pixels[inner, inner], resample_probe(data.probe, (size, size))
    values = data.bad_values
    if values is not None:
        values = values.changed(lambda masks: place_centred(masks, (size, size)), (size, size))
    found = replace(
        data,
        patterns=data.patterns[:, inner, inner],
        probe=probe,
        positions=data.positions / FACTOR,
        bad_pixels=bad,
        bad_values=values,
        object_guess=None,
        patches_guess=None,
        scaling=scaling_of(inner_mean, probe, bad),
    )
    return found if data.checked is None else found.as_checked()


def object_on_whole(obj: ComplexArray, frame: Frame, whole: Frame) -> ComplexArray:
    """An object of `inner_half` and its frame, on the pixels of the whole patterns in a frame there; 1 outside."""
    fine, origin = resample_placed(obj, frame.origin, (FACTOR, FACTOR))
    found = flat_object(whole)
    whole.paste(found, fine, Frame(fine.shape, origin))
    return found


def probe_on_whole(probe: ComplexArray, given: ComplexArray) -> ComplexArray:
    """A probe of `inner_half` on the pixels of the whole patterns, with the far field of ``given`` outside of the half.

    (modes, N/2, N/2) and (modes, N, N) complex, both in counts; (modes, N, N) complex64.
    """
    small, large = probe.shape[1:], given.shape[1:]
    change = probe - resample_probe(given, small)
    found: ComplexArray = (given + resample_probe(change, large)).astype(np.complex64)
    return found
