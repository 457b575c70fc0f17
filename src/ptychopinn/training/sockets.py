"""Processes of a training that are connected by TCP, for frameworks whose own collective operations do not serve.

Those of TensorFlow must be configured before a process computes anything, and never work again once a process is lost.
Here the first process is connected to each of the others. It adds up what they send, in their order, and sends the sum
back, which is the same in all, to the bit. Nobody waits without a limit. The connections of a process that ends are
closed, which the others notice at once.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress

import numpy as np

from ptychopinn.errors import ResourceError
from ptychopinn.training.processes import JOIN_S, MAX_SILENCE_S, lost_process, processes_did_not_start, watch_last_words
from ptychopinn.typing import AnyArray

_TICK_S = 0.5  # between two looks at the other processes
_RETRY_S = 0.05
_HELLO_S = 5.0  # for a new connection to say who it is
_SECRET_BYTES, _RANK_BYTES = 32, 4


class Entrance:
    """Where the first process waits for the others, and lets in who knows the secret.

    ``address`` and ``port`` are those to listen at; an empty address is any of this machine, port 0 a free one.

    Raises
    ------
    ResourceError
        If the port is in use.
    """

    def __init__(self, address: str, port: int, secret: str) -> None:
        both = address == "" and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            self._server = socket.create_server((address, port), family=family, dualstack_ipv6=both)
        except OSError as error:
            raise ResourceError(
                f"The first process of the training cannot listen at port {port}: {error}.",
                "Give the launcher another port.",
            ) from error
        self._server.settimeout(_RETRY_S)
        self._secret = _digest(secret)
        self.port: int = self._server.getsockname()[1]

    def close(self) -> None:
        """Let nobody in any more."""
        self._server.close()

    def meet(self, count: int, watch: Callable[[], None]) -> list[socket.socket]:
        """The connections to the ``count - 1`` others, in their order; ``watch`` is called now and then.

        Raises ResourceError if one does not come.
        """
        there: dict[int, socket.socket] = {}
        until = time.monotonic() + JOIN_S
        while len(there) < count - 1:
            watch()
            if time.monotonic() > until:
                raise processes_did_not_start()
            with suppress(TimeoutError):
                caller = self._server.accept()[0]
                rank = self._rank_of(caller)
                if rank is None or not 0 < rank < count or rank in there:
                    caller.close()
                else:
                    there[rank] = caller
        return [there[rank] for rank in sorted(there)]

    def _rank_of(self, caller: socket.socket) -> int | None:
        """The number of a process that calls; None if it is none of this training."""
        caller.settimeout(_HELLO_S)
        size, hello = _SECRET_BYTES + _RANK_BYTES, b""
        with suppress(OSError):
            while len(hello) < size and (more := caller.recv(size - len(hello))):
                hello += more
        known = len(hello) == size and hmac.compare_digest(hello[:_SECRET_BYTES], self._secret)
        return int.from_bytes(hello[_SECRET_BYTES:], "big") if known else None


def call(address: str, port: int, secret: str, rank: int) -> list[socket.socket]:
    """Connect process ``rank`` to the first one, which may not listen yet. Raises ResourceError if it does not come."""
    until = time.monotonic() + JOIN_S
    while True:
        try:
            connection = socket.create_connection((address, port), timeout=_HELLO_S)
            if connection.getsockname() == connection.getpeername():  # nobody listens, and it met itself
                connection.close()
                raise ConnectionRefusedError
            connection.sendall(_digest(secret) + rank.to_bytes(_RANK_BYTES, "big"))
            return [connection]
        except OSError as error:
            if time.monotonic() > until:
                raise processes_did_not_start() from error
            time.sleep(_RETRY_S)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


class SocketChannel:
    """A `ptychopinn.training.ranks.Channel` over TCP; its tensors are NumPy arrays.

    Parameters
    ----------
    join:
        Returns the connections: of the first process to all others, in their order; of another one to the first.
    watch:
        Raises an error if a process that this one started has ended; called now and then while it waits.
    """

    def __init__(
        self, rank: int, count: int, join: Callable[[], list[socket.socket]], watch: Callable[[], None] = lambda: None
    ) -> None:
        self.rank, self.count, self._join, self._watch = rank, count, join, watch
        self._peers: list[socket.socket] = []
        self.connected = False

    def connect(self) -> None:
        """Meet the others. Raises ResourceError if one does not come."""
        if self.connected:
            return
        self._peers = self._join()
        for peer in self._peers:
            peer.settimeout(_TICK_S)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connected = True

    def close(self) -> None:
        """Leave the others."""
        for peer in self._peers:
            peer.close()
        self._peers, self.connected = [], False

    def broadcast(self, array: AnyArray, root: int) -> None:
        """Replace an array by that of one process."""
        self.connect()
        data = _bytes_of(array)
        if self.rank == 0:
            if root > 0:
                self._receive(self._peers[root - 1], data)
            for rank, peer in enumerate(self._peers, 1):
                if rank != root:
                    self._send(peer, data)
        elif self.rank == root:
            self._send(self._peers[0], data)
        else:
            self._receive(self._peers[0], data)

    def maximum(self, array: AnyArray) -> None:
        """Replace an array by its elementwise maximum over the processes."""
        self._combine(array, np.maximum)

    def add(self, tensor: AnyArray) -> None:
        """Replace an array by its sum over the processes."""
        self._combine(tensor, np.add)

    def _combine(self, array: AnyArray, combine: np.ufunc) -> None:
        self.connect()
        if self.rank > 0:
            self._send(self._peers[0], _bytes_of(array))
        else:
            other = np.empty_like(array)
            for peer in self._peers:
                self._receive(peer, _bytes_of(other))
                combine(array, other, out=array)
        self.broadcast(array, 0)

    def _send(self, peer: socket.socket, data: memoryview) -> None:
        self._move(data, peer.send)

    def _receive(self, peer: socket.socket, data: memoryview) -> None:
        self._move(data, peer.recv_into)

    def _move(self, data: memoryview, some: Callable[[memoryview], int]) -> None:
        """Send or receive all of the data, as much as ``some`` can at once; signals are handled meanwhile."""
        until = time.monotonic() + MAX_SILENCE_S
        while len(data):
            try:
                count = some(data)
            except TimeoutError as error:
                self._watch()
                if time.monotonic() > until:
                    raise lost_process(self.rank, error) from error
                continue
            except OSError as error:
                raise self._lost(error) from error
            if count == 0:
                raise self._lost("it closed the connection")
            data, until = data[count:], time.monotonic() + MAX_SILENCE_S

    def _lost(self, reason: object) -> ResourceError:
        watch_last_words(self._watch)
        return lost_process(self.rank, reason)


def _bytes_of(array: AnyArray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def entrance_channel(entrance: Entrance, count: int, watch: Callable[[], None] = lambda: None) -> SocketChannel:
    """The channel of the first process, which waits at an entrance."""

    def join() -> list[socket.socket]:
        with closing(entrance):
            return entrance.meet(count, watch)

    return SocketChannel(0, count, join, watch)
