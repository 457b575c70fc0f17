"""Rows that wait: in memory up to a budget, in a scratch file beyond it."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Iterable
from itertools import pairwise
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from ptychopinn.errors import ResourceError
from ptychopinn.typing import AnyArray, IntArray


class SpillableRows:
    """Arrays of one shape, written and read by their numbers; a context manager, or `close` it.

    The file has no name and is gone when it is closed. It is written and read, not mapped: a full disk is an error and
    no signal, and what is read does not stay in the memory of the process. Reading is safe from several threads.

    Parameters
    ----------
    row_shape, dtype:
        Of one row.
    budget_bytes:
        What rows may take in memory.
    expected:
        Rows there will be, if that is known: then they are all in memory or all in the file, the disk is asked for its
        place at once, and ``len`` is this number from the start. None: rows are appended, the first ones stay in
        memory.

    Raises
    ------
    ResourceError
        If the disk has no place; from every method that writes.
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
        self._kept = np.empty((fit, *row_shape), self.dtype)  # pages that are not written to take no memory
        self._count = expected or 0
        self._file: IO[bytes] | None = None
        if self._count > fit:
            self._allocate(self._count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give memory and disk back."""
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
        """Add rows at the end; returns their numbers."""
        numbers = np.arange(self._count, self._count + len(rows))
        self._put(numbers, rows)
        self._count += len(rows)
        return numbers

    def __setitem__(self, numbers: IntArray, rows: AnyArray) -> None:
        if len(numbers) and not 0 <= int(np.min(numbers)) <= int(np.max(numbers)) < self._count:
            raise IndexError(f"rows {np.min(numbers)} to {np.max(numbers)} of {self._count}")
        self._put(np.asarray(numbers), rows)

    def __getitem__(self, key: slice | AnyArray) -> AnyArray:
        """Rows of a slice (without a copy where they are in memory) or of an array of numbers; not to be written to."""
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
            self._file = tempfile.TemporaryFile(prefix="ptychopinn-", buffering=0)  # noqa: SIM115 - close() does it
            if size > 0:
                os.posix_fallocate(self._file.fileno(), 0, size)
        except OSError as error:
            self.close()
            raise _out_of_space(f"A scratch file of {max(size, 0):,} bytes cannot be made", error) from error

    def _at(self, number: int) -> int:
        return (number - len(self._kept)) * self._row_bytes

    def _write(self, rows: AnyArray, number: int) -> None:
        assert self._file is not None
        view, at = memoryview(rows.data).cast("B"), self._at(number)
        try:
            while view:
                done = os.pwrite(self._file.fileno(), view, at)
                view, at = view[done:], at + done
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise _out_of_space("A scratch file cannot grow", error) from error

    def _read(self, rows: AnyArray, number: int) -> None:
        assert self._file is not None
        view, at = memoryview(rows.data).cast("B"), self._at(number)
        while view:
            done = os.preadv(self._file.fileno(), [view], at)
            if done == 0:
                raise OSError(errno.EIO, "the scratch file ends early")
            view, at = view[done:], at + done


def read_to_memmap(what: str, size: int, chunks: Iterable[bytes]) -> AnyArray:
    """Bytes in a scratch file of their own, mapped read-only; it is gone with the array.

    Parameters
    ----------
    what:
        Whose bytes they are, for errors.
    size:
        How many.
    chunks:
        The bytes.

    Returns
    -------
    (size,) uint8.

    Raises
    ------
    ResourceError
        If the disk has no place.
    """
    with tempfile.TemporaryFile(prefix="ptychopinn-", buffering=0) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise _out_of_space(
                f"{what} needs a scratch file of {size:,} bytes, which cannot be made", error
            ) from error
        for chunk in chunks:  # written, not mapped: a disk that fails is an error and no signal
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
        return np.asarray(np.memmap(file, np.uint8, "r", shape=(size,)))


def _runs(numbers: Any, start: int) -> list[tuple[int, int]]:
    """Bounds of the stretches, from an index on, in which numbers follow each other."""
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
