"""Scans as they are measured: patterns arrive, the object is kept up to date.

`follow_hdf5` and `listen` give what arrives from a growing file or a socket, `stream` keeps an object up to date with
it, and `ptychopinn.live.messages` is the format on the wire, for producers.
"""

from __future__ import annotations

from ptychopinn.live.arrivals import Arrival, Chunk, Refused, Setup
from ptychopinn.live.hdf5 import follow_hdf5
from ptychopinn.live.scan import LiveScan
from ptychopinn.live.socket import listen
from ptychopinn.live.stream import StreamStatus, Update, stream

__all__ = [
    "Arrival",
    "Chunk",
    "LiveScan",
    "Refused",
    "Setup",
    "StreamStatus",
    "Update",
    "follow_hdf5",
    "listen",
    "stream",
]
