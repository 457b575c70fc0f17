"""Data from a producer, from a file or a socket."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray

_MAX_VALUE = 1e15  # as in files; no measurement is larger
_MAX_DISTANCE_PX = 1e7


@dataclass(frozen=True, eq=False)
class Setup:
    """Data that a producer sends once, before its patterns."""

    probe: ComplexArray | None = None  # (modes, N, N) complex64 in any scale, or None: the model's
    bad_pixels: BoolArray | None = None  # (N, N) bool, or None
    metadata: ScanMetadata = field(default_factory=ScanMetadata)


@dataclass(frozen=True, eq=False)
class Chunk:
    """A chunk of patterns."""

    indices: IntArray  # (b,) int64, the number of each pattern in its scan, 0 or more
    positions: FloatArray  # (b, 2) float64 (y, x), object pixels
    patterns: AnyArray  # (b, N, N) real, DC at ``[N//2, N//2]``
    measurement: Measurement
    sent: float | None = None  # time of sending, seconds of ``time.time()``; None: unknown
    bad_values: BadValues | None = None  # pixels that are bad in some of the patterns

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, rows: AnyArray | slice) -> Chunk:
        """The chunk with some rows only."""
        return replace(
            self,
            indices=self.indices[rows],
            positions=self.positions[rows],
            patterns=self.patterns[rows],
            bad_values=None if self.bad_values is None else self.bad_values.select(np.arange(len(self))[rows]),
        )


@dataclass(frozen=True)
class Rejection:
    """Data that cannot be used."""

    reason: str  # one sentence
    count: int = 1  # number of lost patterns, as far as it is known


Arrival: TypeAlias = Setup | Chunk | Rejection | None
"""None: no new data. The iterator ends when the producer says so."""


def check_chunk(chunk: Chunk, size: int, bad_pixels: BoolArray) -> tuple[Chunk, Rejection | None]:
    """Check a chunk: return its usable patterns, and why the others cannot be used; what is bad may be anything."""
    b, patterns = len(chunk), chunk.patterns
    if patterns.shape != (b, size, size) or chunk.positions.shape != (b, 2):
        return chunk.select(slice(0, 0)), Rejection(
            f"{b} patterns arrived with the shape {patterns.shape} and positions {chunk.positions.shape}; "
            f"the model needs ({b}, {size}, {size}) and ({b}, 2).",
            max(b, 1),
        )
    good = ~bad_pixels if chunk.bad_values is None else ~(bad_pixels | chunk.bad_values.masks(slice(None)))
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (extreme(patterns, axis=(1, 2), where=good, initial=0) for extreme in (np.min, np.max))
        usable = np.isfinite(low) & np.isfinite(high) & (low >= 0) & (high <= _MAX_VALUE)
    checks = [(~usable, "values that are negative, not finite or too large")]
    placed = (np.abs(chunk.positions) < _MAX_DISTANCE_PX).all(axis=1)  # NaN is not
    checks += [(~placed, "positions that are not finite"), (chunk.indices < 0, "negative indices")]
    wrong = np.logical_or.reduce([rows for rows, _ in checks])
    if not wrong.any():
        return chunk, None
    reasons = " and ".join(f"{int(rows.sum())} patterns have {what}" for rows, what in checks if rows.any())
    first = int(chunk.indices[np.flatnonzero(wrong)[0]])
    return chunk.select(~wrong), Rejection(f"{reasons} (the first is pattern {first}).", int(wrong.sum()))
