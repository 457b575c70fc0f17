"""Reconstruct a scan while it is measured.

`follow_hdf5` and `listen` yield the data of a growing file or a socket, `stream` updates an object with them, and
`ptychopinn.live.messages` is the message format for producers.
"""

from __future__ import annotations

from ptychopinn.live.arrivals import Arrival, Chunk, Rejection, Setup
from ptychopinn.live.hdf5 import follow_hdf5
from ptychopinn.live.scan import LiveScan
from ptychopinn.live.socket import listen
from ptychopinn.live.stream import StreamStatus, Update, stream

__all__ = [
    "Arrival",
    "Chunk",
    "LiveScan",
    "Rejection",
    "Setup",
    "StreamStatus",
    "Update",
    "follow_hdf5",
    "listen",
    "stream",
]
