"""A row store that spills to a temporary file beyond a memory budget."""

from __future__ import annotations

import errno
import math
import tempfile
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ptychopinn.errors import ResourceError
from ptychopinn.system import PlacedFile, allocate
from ptychopinn.typing import AnyArray, IntArray


class SpillableRows:
    """Rows of one shape, written and read by number. Use it as a context manager, or `close` it.

    The file has no name and disappears when it is closed. It is not memory-mapped, so a full disk is an error and not a
    signal, and rows do not stay in the memory of the process. Reading is thread-safe.

    Parameters
    ----------
    row_shape, dtype:
        Shape and dtype of a row.
    expected:
        Number of rows, if it is known. All rows are then in memory or all in the file, disk space is allocated at once,
        and ``len`` is this number from the start. None: rows are appended, and the first ones stay in memory.

    Raises
    ------
    ResourceError
        If the disk is full; from every method that writes.
    """

    def __init__(
        self, row_shape: tuple[int, ...], dtype: npt.DTypeLike, *, budget_bytes: int, expected: int | None = None
    ) -> None:
        self.dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._row_bytes = math.prod(row_shape) * self.dtype.itemsize
        fit = budget_bytes // self._row_bytes
        if expected is not None:
            fit = expected if expected <= fit else 0
        self._kept = np.empty((fit, *row_shape), self.dtype)  # unused pages take no memory
        self._count = expected or 0
        self._file: PlacedFile | None = None
        if self._count > fit:
            self._allocate(self._count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release memory and disk."""
        self._kept = self._kept[:0]
        self._count = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return (self._count, *self._row_shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return 1 + len(self._row_shape)

    def append(self, rows: AnyArray) -> IntArray:
        """Append rows and return their numbers."""
        numbers = np.arange(self._count, self._count + len(rows))
        self._put(numbers, rows)
        self._count += len(rows)
        return numbers

    def __setitem__(self, numbers: IntArray, rows: AnyArray) -> None:
        if len(numbers) and not 0 <= int(np.min(numbers)) <= int(np.max(numbers)) < self._count:
            raise IndexError(f"rows {np.min(numbers)} to {np.max(numbers)} of {self._count}")
        self._put(np.asarray(numbers), rows)

    def __getitem__(self, key: slice | AnyArray) -> AnyArray:
        """Rows by a slice (without a copy if they are in memory) or an array of numbers; read-only."""
        if isinstance(key, slice):
            start, stop, step = key.indices(self._count)
            if step == 1 and stop <= len(self._kept):
                return self._kept[start:stop]
            key = np.arange(start, stop, step)
        numbers = np.asarray(key, np.int64)
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < self._count:
            raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {self._count}")
        if numbers.max(initial=-1) < len(self._kept):
            return self._kept[numbers]
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        rows = np.empty((len(numbers), *self._row_shape), self.dtype)
        held = int(np.searchsorted(ordered, len(self._kept)))
        rows[:held] = self._kept[ordered[:held]]
        for low, high in _runs(ordered, held):
            self._read(rows[low:high], int(ordered[low]))
        if (order[1:] > order[:-1]).all():
            return rows
        given = np.empty_like(rows)
        given[order] = rows
        return given

    def _put(self, numbers: AnyArray, rows: AnyArray) -> None:
        inside = numbers < len(self._kept)
        if inside.all():
            self._kept[numbers] = rows
            return
        self._kept[numbers[inside]] = rows[inside]
        outside, rest = numbers[~inside], np.ascontiguousarray(rows[~inside], self.dtype)
        if self._file is None:
            self._allocate(0)
        for low, high in _runs(outside, 0):
            self._write(rest[low:high], int(outside[low]))

    def _allocate(self, expected: int) -> None:
        size = (expected - len(self._kept)) * self._row_bytes
        try:
            file = tempfile.TemporaryFile(prefix="ptychopinn-", buffering=0)  # noqa: SIM115 - close() does it
            self._file = PlacedFile(file)
            if size > 0:
                allocate(file, size)
        except OSError as error:
            self.close()
            raise _out_of_space(f"A temporary file of {max(size, 0):,} bytes cannot be made", error) from error

    def _at(self, number: int) -> int:
        return (number - len(self._kept)) * self._row_bytes

    def _write(self, rows: AnyArray, number: int) -> None:
        assert self._file is not None
        try:
            self._file.write(memoryview(rows.data).cast("B"), self._at(number))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise _out_of_space("A temporary file cannot grow", error) from error

    def _read(self, rows: AnyArray, number: int) -> None:
        assert self._file is not None
        self._file.read(memoryview(rows.data).cast("B"), self._at(number))


def read_to_memmap(what: str, size: int, chunks: Iterable[bytes]) -> AnyArray:
    """Write ``size`` bytes to a temporary file and map it read-only: (size,) uint8; the file disappears with the array.

    ``what`` names the bytes in errors.

    Raises
    ------
    ResourceError
        If the disk is full.
    """
    with tempfile.TemporaryFile(prefix="ptychopinn-", buffering=0) as file:
        try:
            allocate(file, size)
        except OSError as error:
            raise _out_of_space(
                f"{what} needs a temporary file of {size:,} bytes, which cannot be made", error
            ) from error
        for chunk in chunks:  # written, not mapped, so that a failing disk is an error and not a signal
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
        return np.asarray(np.memmap(file, np.uint8, "r", shape=(size,)))


def _runs(numbers: Any, start: int) -> list[tuple[int, int]]:
    """Bounds of the runs of consecutive numbers, from an index on."""
    if start >= len(numbers):
        return []
    breaks = np.flatnonzero(np.diff(numbers[start:]) != 1) + start + 1
    bounds = [start, *breaks.tolist(), len(numbers)]
    return list(pairwise(bounds))


def _out_of_space(what: str, error: OSError) -> ResourceError:
    return ResourceError(
        f"{what} in {tempfile.gettempdir()}: {error}.",
        "Free space there, or set TMPDIR to another folder.",
    )
