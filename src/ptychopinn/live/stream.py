"""The loop: from what arrives to updates, and at the end the object that the whole scan gives."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ptychopinn.config.infer import InferConfig
from ptychopinn.errors import ResourceError
from ptychopinn.failures import explained
from ptychopinn.live.arrivals import Arrival, Chunk, Refused, Setup
from ptychopinn.live.scan import LiveScan
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.reconstructor import Reconstructor

_log = logging.getLogger(__name__)
_MAX_WAIT_S = 0.1  # that a pattern waits for others to be predicted with
_MAX_LOGGED_REFUSALS = 5  # refusals that are each told; later ones at each power of ten


class StreamStatus(StrEnum):
    """Why a stream ended."""

    FINISHED = "finished"  # the producer said so
    TIMED_OUT = "timed_out"  # nothing usable came for too long
    CANCELLED = "cancelled"  # the monitor was cancelled
    OUT_OF_SPACE = "out_of_place"  # memory or the disk of the scratch files did not suffice


@dataclass(frozen=True, eq=False)
class Update:
    """How a stream stands.

    Attributes
    ----------
    scan:
        The scan so far; `LiveScan.stitched` gives its object.
    patterns, repeated, refused, missing:
        Patterns taken; that came again; that could not be used; and numbers that have been left out so far.
    rate:
        Patterns a second since the last update.
    latency_s:
        Mean time from a pattern's sending, or from its arrival where that is not told, until it was in the object;
        NaN without one since the last update.
    ending:
        None while it goes on.
    result:
        At the end, the object of everything.
    """

    scan: LiveScan
    patterns: int
    repeated: int
    refused: int
    missing: int
    rate: float
    latency_s: float
    ending: StreamStatus | None = None
    result: Reconstruction | None = None


def stream(
    reconstructor: Reconstructor,
    arrivals: Iterable[Arrival],
    config: InferConfig | None = None,
    *,
    timeout_s: float = 60.0,
    update_s: float = 1.0,
    name: str = "stream",
    monitor: Monitor = NULL_MONITOR,
) -> Iterator[Update]:
    """Keep an object up to date with what arrives.

    Parameters
    ----------
    reconstructor:
        A trained one.
    arrivals:
        From `follow_hdf5` or `listen`, or an iterator of your own.
    config:
        How to reconstruct; ``refine`` acts at the end.
    timeout_s:
        When nothing usable comes for so long, the producer is taken for dead, and the stream ends with what is there.
        Usable are new patterns and a first setup.
    update_s:
        Seconds between two updates.
    name:
        Of the scan.
    monitor:
        Told of progress. Cancelled, the stream ends with what is there.

    Yields
    ------
    Update
        The last one has ``ending`` and ``result``. The scan and its scratch files live as long as the iterator.

    Raises
    ------
    DataError
        At the end, if no pattern came.
    ResourceError
        If memory or disk run out before there is an object.
    """
    config = config or InferConfig()
    with LiveScan(reconstructor, config, name) as scan:
        loop = _Loop(scan, config.stream_batch_size, monitor)
        ending = StreamStatus.FINISHED
        source = iter(arrivals)
        try:
            shown = time.monotonic()
            for arrival in source:
                now = time.monotonic()
                if monitor.cancelled:
                    ending = StreamStatus.CANCELLED
                    break
                loop.take(arrival)
                if now - loop.heard > timeout_s:
                    loop.flush()  # what waits may be usable
                if now - loop.heard > timeout_s:
                    ending = StreamStatus.TIMED_OUT
                    _log.warning("Nothing usable came for %.0f s: the producer is taken for dead.", now - loop.heard)
                    break
                if now - shown >= update_s and len(scan):
                    shown = now
                    yield loop.update()
            loop.flush()
        except (ResourceError, MemoryError) as error:
            if not scan.has_object:
                if isinstance(error, ResourceError):
                    raise
                raise explained(error) from error
            ending = StreamStatus.OUT_OF_SPACE
            _log.warning("The stream ends here: %s", error)
            loop.waiting.clear()
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        result = scan.finish(monitor)
        yield loop.update(ending, result)


class _Loop:
    """Gathers patterns into batches, and counts."""

    def __init__(self, scan: LiveScan, batch_size: int, monitor: Monitor) -> None:
        self.waiting: list[tuple[Chunk, float]] = []
        self._scan, self._batch_size, self._monitor = scan, batch_size, monitor
        self._patterns = self._repeated = self._refused = self._told = 0
        self._since, self._new, self._delay = time.monotonic(), 0, 0.0
        self.heard, self._set_up = self._since, False  # when something usable came

    def take(self, arrival: Arrival) -> None:
        """One arrival; patterns wait for others as long as that costs little."""
        if isinstance(arrival, Setup):
            self.flush()
            if (refused := self._scan.set_up(arrival)) is not None:
                self._refuse(refused)
            elif not self._set_up:
                self.heard, self._set_up = time.monotonic(), True
        elif isinstance(arrival, Refused):
            self._refuse(arrival)
        elif isinstance(arrival, Chunk):
            self.waiting.append((arrival, time.time() if arrival.sent is None else arrival.sent))
        count = sum(len(chunk) for chunk, _ in self.waiting)
        old = bool(self.waiting) and time.time() - self.waiting[0][1] > _MAX_WAIT_S
        if self.waiting and (arrival is None or count >= self._batch_size or old):
            self.flush()

    def flush(self) -> None:
        """Take what waits into the object."""
        waiting, self.waiting = self.waiting, []
        while waiting:
            alike = [waiting.pop(0)]
            while waiting and _alike(alike[0][0], waiting[0][0]):
                alike.append(waiting.pop(0))
            new, repeated, refused = self._scan.add(_joined([chunk for chunk, _ in alike]))
            now = time.time()
            self._delay += sum(len(chunk) * max(now - sent, 0.0) for chunk, sent in alike)
            self._new += sum(len(chunk) for chunk, _ in alike)
            self._patterns += new
            if new:
                self.heard = time.monotonic()
            self._repeated += repeated
            for one in refused:
                self._refuse(one)

    def _refuse(self, refused: Refused) -> None:
        self._refused += refused.count
        self._told += 1
        if self._told <= _MAX_LOGGED_REFUSALS or str(self._told).strip("0") == "1":
            _log.warning("%s (refusal %d)", refused.reason, self._told)

    def update(self, ending: StreamStatus | None = None, result: Reconstruction | None = None) -> Update:
        """How it stands, and the clocks start anew."""
        now = time.monotonic()
        rate = self._new / max(now - self._since, 1e-9)
        latency = self._delay / self._new if self._new else float("nan")
        self._since, self._new, self._delay = now, 0, 0.0
        figures = {"patterns/s": rate} | ({} if np.isnan(latency) else {"latency s": latency})
        self._monitor.report("stream", self._patterns, 0 if ending is None else self._patterns, figures)
        return Update(
            self._scan,
            self._patterns,
            self._repeated,
            self._refused,
            self._scan.missing,
            rate,
            latency,
            ending,
            result,
        )


def _alike(a: Chunk, b: Chunk) -> bool:
    """Whether two chunks can be one."""
    return (
        a.measurement is b.measurement
        and a.patterns.dtype == b.patterns.dtype
        and all(c.patterns.ndim == 3 and c.positions.shape == (len(c), 2) for c in (a, b))
        and a.patterns.shape[1:] == b.patterns.shape[1:]
        and len(a.patterns) == len(a)
        and len(b.patterns) == len(b)
    )


def _joined(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(
        np.concatenate([c.indices for c in chunks]),
        np.concatenate([c.positions for c in chunks]),
        np.concatenate([c.patterns for c in chunks]),
        chunks[0].measurement,
    )
