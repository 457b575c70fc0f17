"""The processes of a training in TensorFlow: one for each device, connected by TCP."""

from __future__ import annotations

import secrets
import socket
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any

from ptychopinn.cores import granted_cores
from ptychopinn.training import processes
from ptychopinn.training.launchers import find_launched_place
from ptychopinn.training.processes import (
    Place,
    StartedProcesses,
    check_cards,
    check_place,
    follow_over,
    options_of_process,
)
from ptychopinn.training.ranks import Ranks
from ptychopinn.training.sockets import Entrance, SocketChannel, call, entrance_channel
from ptychopinn_tf.devices import count_gpus
from ptychopinn_tf.options import TfOptions

_HERE = "127.0.0.1"
_ANY = ""  # address


def find_place(options: TfOptions) -> Place | None:
    """The place that a launcher gave to this process; see `ptychopinn.training.processes.check_place`."""
    return None if options.process_count == 1 else check_place(options, find_launched_place())


def device_options(options: TfOptions, local_rank: int) -> TfOptions:
    """The options of one process of a training, as if it were alone: its own device."""
    return options_of_process(options, local_rank, count_gpus())


def open_ranks(options: TfOptions, *, on_gpu: bool) -> AbstractContextManager[Ranks]:
    """The processes of a training, for the first one; see `ptychopinn.training.processes.open_ranks`."""
    return processes.open_ranks(
        options, find_place(options), join_launched, lambda stack: _start_others(options, stack, on_gpu=on_gpu)
    )


def join_launched(place: Place) -> SocketChannel:
    """The channel of a process that a launcher started."""
    secret = f"{place.address}:{place.port} {place.count}"  # a launcher gives them no other one
    if place.rank == 0:
        return entrance_channel(Entrance(_ANY, place.port, secret), place.count)
    return SocketChannel(place.rank, place.count, lambda: call(place.address, place.port, secret, place.rank))


def _start_others(options: TfOptions, stack: ExitStack, *, on_gpu: bool) -> SocketChannel:
    """The channel of a process that starts the others."""
    if on_gpu:
        check_cards(options, count_gpus())
    secret = secrets.token_hex()
    entrance = stack.enter_context(closing(Entrance(_HERE, 0, secret)))
    threads = options.threads or max(granted_cores() // options.devices, 1)
    arguments = {
        rank: {
            "options": {**device_options(options, rank).model_dump(mode="json"), "threads": threads},
            **{"rank": rank, "count": options.devices, "port": entrance.port, "secret": secret},
        }
        for rank in range(1, options.devices)
    }
    others = StartedProcesses("ptychopinn_tf.ranks:follow_started", arguments, stack)
    return entrance_channel(entrance, options.devices, others.watch)


def follow_started(options: dict[str, Any], rank: int, count: int, port: int, secret: str) -> None:
    """The task of a process that the first one started."""
    from ptychopinn_tf.reconstructor import TfReconstructor

    own = TfOptions.model_validate(options)

    def join() -> list[socket.socket]:
        return call(_HERE, port, secret, rank)

    follow_over(SocketChannel(rank, count, join), lambda ranks: TfReconstructor.follow(own, ranks))
