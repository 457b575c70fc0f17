"""Receive patterns from a socket (ZeroMQ)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ptychopinn.errors import ResourceError, UsageError
from ptychopinn.live.arrivals import Arrival
from ptychopinn.live.messages import End, unpack

if TYPE_CHECKING:
    import zmq

_log = logging.getLogger(__name__)
_MAX_WAITING = 256  # messages in memory; beyond it the producer waits
_MAX_BYTES = 1 << 30  # of one part of a message


def listen(address: str, *, bind: bool = False, poll_s: float = 0.05) -> Iterator[Arrival]:
    """Yield the data from a PULL socket, until the producer ends the stream.

    The socket is open when this function returns, and closed with the iterator.

    Parameters
    ----------
    address:
        ``tcp://host:port`` or ``ipc://path``.
    bind:
        Bind the address and wait for producers; else connect to one, and reconnect if it goes away.
    poll_s:
        Seconds to wait for a message before yielding None.

    Raises
    ------
    UsageError
        If pyzmq is not installed, or the address is wrong.
    ResourceError
        If the address is taken.
    """
    try:
        import zmq
    except ImportError as error:
        raise UsageError(
            "Sockets need pyzmq, which is not installed.", "Install it: python -m pip install pyzmq."
        ) from error
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.linger = 0
    socket.rcvhwm = _MAX_WAITING
    socket.maxmsgsize = _MAX_BYTES
    try:
        (socket.bind if bind else socket.connect)(address)
    except zmq.ZMQError as error:
        socket.close()
        context.term()
        if error.errno in (zmq.EINVAL, zmq.EPROTONOSUPPORT, zmq.ENOCOMPATPROTO):
            raise UsageError(
                f"'{address}' is not an address: {error}.", "Give one such as tcp://127.0.0.1:5555."
            ) from error
        raise ResourceError(
            f"'{address}' cannot be used: {error}.", "Give another address, or end the program that uses it."
        ) from error
    _log.info("%s %s.", "Waiting at" if bind else "Connected to", address)
    return _Received(context, socket, poll_s)


class _Received(Iterator[Arrival]):
    """Messages of an open socket."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], poll_s: float) -> None:
        self._context, self._socket, self._poll_ms = context, socket, round(1000 * poll_s)

    def __next__(self) -> Arrival:
        if self._socket.closed:
            raise StopIteration
        if not self._socket.poll(self._poll_ms):
            return None
        message = unpack(self._socket.recv_multipart())
        if isinstance(message, End):
            self.close()
            raise StopIteration
        return message

    def close(self) -> None:
        self._socket.close()
        self._context.term()
