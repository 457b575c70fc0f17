"""Diffraction patterns on the device of an array library, with DC at [0, 0]."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import cached_property, partial
from typing import Self

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary, slices_of
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.parallel import BackgroundThread
from ptychopinn.typing import AnyArray, FloatArray, IntArray

_READ = 256  # patterns prepared at a time
_MEAN_OF, _MEAN_READ = 256, 32  # patterns that a mean is computed from, and patterns read at a time
_UPLOAD_BYTES = 1 << 25  # page-locked memory per upload; allocating it is slow, so a little is reused
_HALF_RANGE = 1 << 15  # of 16 bits
_AMPLITUDE_TOLERANCE = 1e-6  # relative error of a float32 amplitude

Fetch = Callable[[slice], Array]


def stored_dtype(data: ScanDataset) -> np.dtype[np.generic]:
    """dtype of patterns on a device: their own if it is narrower than float32 and no value is bad, else float32."""
    if data.bad_values is not None:
        return np.dtype(np.float32)
    own: np.dtype[np.generic] = np.dtype(data.patterns.dtype).newbyteorder("=")
    return own if own.itemsize < 4 else np.dtype(np.float32)


class Patterns:
    """The patterns of a scan.

    On the host, amplitudes are kept in memory if they fit the budget. On a device, patterns are kept in their own dtype
    if they fit the budget of its library; else they are read for every batch, ahead of the computation.

    Bad values of single patterns (`ptychopinn.data.bad_values.BadValues`) are negative in counts and amplitudes;
    `measured` separates them from the others.
    """

    def __init__(self, data: ScanDataset, library: ArrayLibrary = NUMPY, host_budget_bytes: int = 0) -> None:
        self.data, self.library = data, library
        good = np.fft.ifftshift(~data.bad_pixels)
        # (N, N) float32 of the library, DC at [0, 0]: 0 at bad pixels, else 1; None without bad pixels.
        self.good: Array | None = None if good.all() else library.from_host(good.astype(np.float32))
        self.marked = data.bad_values is not None  # whether some values are negative because they were not measured
        level = data.metadata.saturation_counts
        # Smallest amplitude of a saturated pixel; None if none is.
        self.saturation: float | None = None if level is None else (1 - _AMPLITUDE_TOLERANCE) * math.sqrt(level)
        self._kept: Array | None = None  # amplitudes on the host, or patterns on a device
        self.spare_bytes = host_budget_bytes  # what is left of the budget after the amplitudes
        shape, pixels = (len(data), data.N, data.N), len(data) * data.N**2
        if library.on_host:
            if 4 * pixels <= host_budget_bytes:
                self._kept = np.empty(shape, np.float32)
                self.spare_bytes -= 4 * pixels
                for block in slices_of(len(data), _READ):
                    self._kept[block] = self._read_amplitudes(np.arange(block.start, block.stop))
        elif 0 < pixels * stored_dtype(data).itemsize <= library.budget_bytes:
            step = max(_UPLOAD_BYTES // (data.N**2 * stored_dtype(data).itemsize), 1)
            blocks = (self._read_raw(block) for block in slices_of(len(data), step))
            self._kept = library.from_blocks(shape, blocks, self._to_corner)

    @contextmanager
    def session(self) -> Iterator[Self]:
        """The same patterns with a session of their library."""
        with self.library.session() as library:
            patterns = copy(self)
            patterns.library = library
            yield patterns

    @cached_property
    def mean_counts(self) -> FloatArray:
        """(N, N) float64 on the host, DC at [0, 0]: mean of evenly spread patterns; 0 at bad pixels."""
        xp, chosen = self.library.xp, evenly_spread(len(self), _MEAN_OF)
        total = sum(
            xp.sum(self.counts(chosen[part]), axis=0, dtype=xp.float64) for part in slices_of(len(chosen), _MEAN_READ)
        )
        mean: FloatArray = self.library.to_host(total) / len(chosen)
        return mean

    def __len__(self) -> int:
        return len(self.data)

    def counts(self, indices: IntArray) -> Array:
        """Counts of some patterns: (b,) indices on the host to (b, N, N) float32, 0 at bad pixels.

        Bad values of single patterns are what the pixel has on average.
        """
        if self.library.on_host:
            return np.fft.ifftshift(self.data.counts(indices), axes=(-2, -1))
        counts = self._decode(self._raw(indices))
        return self.library.xp.where(counts < 0, -1 - counts, counts) if self.marked else counts

    def groups(self, members: IntArray) -> Array:
        """Counts of groups: (g, C) numbers to (g, C, N, N). -1 (missing) gives zeros; each pattern is read once."""
        if members.shape[1] == 1:
            return self.counts(members[:, 0])[:, None, ...]
        numbers, places = np.unique(members.ravel(), return_inverse=True)
        counts = self.counts(np.maximum(numbers, 0))
        there = self.library.from_host((numbers >= 0).astype(np.float32))
        counts = self.library.take(counts * there[:, None, None], places.reshape(-1))
        return self.library.xp.reshape(counts, (*members.shape, *counts.shape[1:]))

    def gather(self, numbers: Array) -> Array:
        """Counts of patterns kept on a device, for a (...,) index of the library: (..., N, N) float32.

        Bad values are as in `ScanDataset.marked_counts`.
        """
        xp = self.library.xp
        counts = self._decode(xp.take(self._kept, xp.reshape(numbers, (-1,)), axis=0))
        return xp.reshape(counts, (*numbers.shape, *counts.shape[1:]))

    def amplitudes(self, indices: IntArray) -> Array:
        """Square roots of `counts`; -1 where a value is bad."""
        if not self.library.on_host:
            return self._roots(self._decode(self._raw(indices)))
        return self._read_amplitudes(indices) if self._kept is None else self._kept[indices]

    def measured(self, amplitudes: Array) -> tuple[Array, Array | None]:
        """Amplitudes with 0 for bad values, and where they were measured.

        Parameters
        ----------
        amplitudes:
            (b, N, N) float32, from `amplitudes` or `batches`.

        Returns
        -------
        The amplitudes; and (N, N) or (b, N, N) float32, 0 where nothing was measured, else 1, or None if all was.
        """
        if not self.marked:
            return amplitudes, self.good
        xp = self.library.xp
        bad, zeros = amplitudes < 0, xp.zeros_like(amplitudes)
        there = zeros + 1 if self.good is None else zeros + self.good
        return xp.where(bad, zeros, amplitudes), xp.where(bad, zeros, there)

    def recorded(self, intensity: Array, measured: Array) -> Array:
        """Modelled counts as the detector records them: where a pixel is saturated, at most the measured counts.

        Parameters
        ----------
        intensity, measured:
            (b, N, N) float32 modelled counts and measured amplitudes, or any pixels of them.
        """
        if self.saturation is None:
            return intensity
        xp, counts = self.library.xp, measured**2
        return xp.where((measured >= self.saturation) & (intensity > counts), counts, intensity)

    def unsaturated(self, values: Array, measured: Array) -> Array:
        """Values, of the shape of some measured amplitudes, and 0 where a pixel is saturated."""
        if self.saturation is None:
            return values
        return self.library.xp.where(measured >= self.saturation, self.library.xp.zeros_like(values), values)

    def batches(self, chosen: Iterable[IntArray]) -> Iterator[tuple[IntArray, Fetch]]:
        """Iterate over batches of amplitudes.

        Yields
        ------
        The indices of a batch, and a function from a slice of them to (b, N, N) float32 amplitudes. On the host each
        thread reads its own slice.
        """
        if self.library.on_host:
            for indices in chosen:
                yield indices, partial(self._part, indices)
        elif self._kept is not None:
            for indices in chosen:
                yield indices, partial(_rows, self.amplitudes(indices))
        else:
            with BackgroundThread() as reader:
                waiting: tuple[IntArray, Callable[[], AnyArray]] | None = None
                for following in [*chosen, None]:
                    ahead = None
                    if following is not None:
                        ahead = following, reader.submit(partial(self._read_raw, following))
                    if waiting is not None:
                        counts = self._decode(self._to_corner(self.library.from_host(waiting[1]())))
                        yield waiting[0], partial(_rows, self._roots(counts))
                    waiting = ahead

    def _part(self, indices: IntArray, part: slice) -> Array:
        return self.amplitudes(indices[part])

    def _read_amplitudes(self, indices: IntArray) -> FloatArray:
        counts = self.data.counts(indices)
        roots = np.sqrt(counts, out=counts)
        if self.data.bad_values is not None:
            self.data.bad_values.put(roots, indices, -1.0)
        amplitudes: FloatArray = np.fft.ifftshift(roots, axes=(1, 2))
        return amplitudes

    def _roots(self, counts: Array) -> Array:
        """Amplitudes of the result of `_decode`."""
        xp = self.library.xp
        if not self.marked:
            return xp.sqrt(counts)
        zeros = xp.zeros_like(counts)
        return xp.where(counts < 0, zeros - 1, xp.sqrt(xp.where(counts < 0, zeros, counts)))

    def _read_raw(self, indices: IntArray | slice) -> AnyArray:
        """Patterns for a device, in a dtype that every library supports."""
        bad = self.data.bad_values
        with np.errstate(over="ignore", invalid="ignore"):  # bad pixels may hold anything
            raw = self.data.raw(indices).astype(stored_dtype(self.data), copy=bad is not None)
        if bad is not None:
            bad.put_fill(raw, indices)
            bad.put(raw, indices, lambda filled: -1 - filled)
        return raw.view(np.int16) if raw.dtype == np.uint16 else raw

    def _to_corner(self, raw: Array) -> Array:
        """`_read_raw` on the device with DC at [0, 0]; half of the range is subtracted from unsigned numbers."""
        half = self.data.N // 2
        if stored_dtype(self.data) == np.uint16:
            raw = raw ^ -_HALF_RANGE  # the bits are those of an unsigned number
        return self.library.xp.roll(raw, (-half, -half), axis=(-2, -1))  # as ifftshift, of whole numbers too

    def _raw(self, indices: IntArray) -> Array:
        if self._kept is None:
            return self._to_corner(self.library.from_host(self._read_raw(indices)))
        return self.library.take(self._kept, indices)

    def _decode(self, raw: Array) -> Array:
        """Counts from the result of `_raw`."""
        library, xp = self.library, self.library.xp
        values = library.cast(raw, "float32")
        if stored_dtype(self.data) == np.uint16:
            values += _HALF_RANGE
        if self.good is not None:
            values = xp.where(self.good > 0, values, xp.zeros_like(values))  # bad pixels may hold anything
        if not self.marked:
            return self.data.to_counts(values)
        bad = values < 0
        counts = self.data.to_counts(xp.where(bad, -1 - values, values))
        return xp.where(bad, -1 - counts, counts)


def _rows(array: Array, part: slice) -> Array:
    return array[part, ...]
