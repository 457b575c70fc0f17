"""The loop of a live reconstruction: takes arriving data, yields updates, and ends with the full reconstruction."""

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
from ptychopinn.live.arrivals import Arrival, Chunk, Rejection, Setup
from ptychopinn.live.scan import LiveScan, live_config
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.reconstructor import Reconstructor

_log = logging.getLogger(__name__)
_MAX_WAIT_S = 0.1  # maximum time that a pattern waits for its batch
_MAX_LOGGED_REFUSALS = 5  # refusals logged one by one; later ones at each power of ten


class StreamStatus(StrEnum):
    """Why a stream ended."""

    FINISHED = "finished"  # the producer said so
    TIMED_OUT = "timed_out"  # no usable data for too long
    CANCELLED = "cancelled"  # the monitor was cancelled
    OUT_OF_SPACE = "out_of_space"  # memory or disk ran out


@dataclass(frozen=True, eq=False)
class Update:
    """State of a stream."""

    scan: LiveScan  # the scan so far; `LiveScan.stitched` gives its object
    # Numbers of patterns used, repeated, unusable, and missing so far.
    patterns: int
    repeated: int
    refused: int
    missing: int
    rate: float  # patterns per second since the last update
    # Mean time from sending a pattern (or from its arrival, if unknown) until it is in the object; NaN if there was
    # none since the last update.
    latency_s: float
    ending: StreamStatus | None = None  # why it ended; None while it runs
    result: Reconstruction | None = None  # the full reconstruction, at the end


def stream(  # noqa: PLR0913
    reconstructor: Reconstructor,
    arrivals: Iterable[Arrival],
    config: InferConfig | None = None,
    *,
    timeout_s: float = 60.0,
    update_s: float = 1.0,
    name: str = "stream",
    monitor: Monitor = NULL_MONITOR,
) -> Iterator[Update]:
    """Update an object with arriving data.

    Parameters
    ----------
    arrivals:
        From `follow_hdf5` or `listen`, or any other iterator.
    config:
        Settings. Passes of refinement are made at the end, and only if ``refine`` is given
        (`ptychopinn.config.infer.StreamConfig`).
    timeout_s:
        Seconds without usable data (new patterns, or the first setup) after which the stream ends.
    monitor:
        Gets progress. If it is cancelled, the stream ends with the data so far.

    Yields
    ------
    Update
        The last one has ``ending`` and ``result``. The scan and its temporary files live as long as the iterator.

    Raises
    ------
    ConfigError
        As `ptychopinn.live.scan.live_config`.
    DataError
        At the end, if no pattern arrived.
    ResourceError
        If memory or disk run out before there is an object.
    """
    settings = live_config(config)
    with LiveScan(reconstructor, settings, name) as scan:
        loop = _Loop(scan, settings.stream_batch_size, monitor)
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
                if now - loop.last_usable > timeout_s:
                    loop.flush()  # waiting patterns may be usable
                if now - loop.last_usable > timeout_s:
                    ending = StreamStatus.TIMED_OUT
                    _log.warning("No usable data for %.0f s; the stream ends.", now - loop.last_usable)
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
    """Collects patterns into batches, and counts them."""

    def __init__(self, scan: LiveScan, batch_size: int, monitor: Monitor) -> None:
        self.waiting: list[tuple[Chunk, float]] = []
        self._scan, self._batch_size, self._monitor = scan, batch_size, monitor
        self._patterns = self._repeated = self._refused = self._refusals = 0
        self._since, self._new, self._delay = time.monotonic(), 0, 0.0
        self.last_usable, self._set_up = self._since, False  # time of the last usable data

    def take(self, arrival: Arrival) -> None:
        """Take one arrival; patterns wait briefly for others in their batch."""
        if isinstance(arrival, Setup):
            self.flush()
            if (refused := self._scan.set_up(arrival)) is not None:
                self._refuse(refused)
            elif not self._set_up:
                self.last_usable, self._set_up = time.monotonic(), True
        elif isinstance(arrival, Rejection):
            self._refuse(arrival)
        elif isinstance(arrival, Chunk):
            self.waiting.append((arrival, time.time() if arrival.sent is None else arrival.sent))
        count = sum(len(chunk) for chunk, _ in self.waiting)
        old = bool(self.waiting) and time.time() - self.waiting[0][1] > _MAX_WAIT_S
        if self.waiting and (arrival is None or count >= self._batch_size or old):
            self.flush()

    def flush(self) -> None:
        """Add waiting patterns to the object."""
        waiting, self.waiting = self.waiting, []
        while waiting:
            group = [waiting.pop(0)]
            while waiting and _can_join(group[0][0], waiting[0][0]):
                group.append(waiting.pop(0))
            new, repeated, refused = self._scan.add(_join([chunk for chunk, _ in group]))
            now = time.time()
            self._delay += sum(len(chunk) * max(now - sent, 0.0) for chunk, sent in group)
            self._new += sum(len(chunk) for chunk, _ in group)
            self._patterns += new
            if new:
                self.last_usable = time.monotonic()
            self._repeated += repeated
            for one in refused:
                self._refuse(one)

    def _refuse(self, refused: Rejection) -> None:
        self._refused += refused.count
        self._refusals += 1
        if self._refusals <= _MAX_LOGGED_REFUSALS or str(self._refusals).strip("0") == "1":
            _log.warning("%s (refusal %d)", refused.reason, self._refusals)

    def update(self, ending: StreamStatus | None = None, result: Reconstruction | None = None) -> Update:
        """The state now; restarts rate and latency."""
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


def _can_join(a: Chunk, b: Chunk) -> bool:
    """Whether two chunks can be joined."""
    return (
        a.measurement is b.measurement
        and a.patterns.dtype == b.patterns.dtype
        and all(c.patterns.ndim == 3 and c.positions.shape == (len(c), 2) for c in (a, b))
        and a.patterns.shape[1:] == b.patterns.shape[1:]
        and len(a.patterns) == len(a)
        and len(b.patterns) == len(b)
    )


def _join(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(
        np.concatenate([c.indices for c in chunks]),
        np.concatenate([c.positions for c in chunks]),
        np.concatenate([c.patterns for c in chunks]),
        chunks[0].measurement,
    )
