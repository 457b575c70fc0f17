"""The processes of a training: which of them this one is, and who starts the others.

A launcher starts the same command for each process; otherwise the first one starts the others on its machine. How they
are connected is the backend's choice (`ptychopinn.training.ranks.Channel`).
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ptychopinn.config.execution import Accelerator, MultiProcessOptions
from ptychopinn.errors import ConfigError, ResourceError, UsageError
from ptychopinn.jobs import JobError, JobProcess, Task
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.training.ranks import Channel, Ranks

OptionsT = TypeVar("OptionsT", bound=MultiProcessOptions)
_log = logging.getLogger(__name__)

JOIN_S = 300.0
"""How long processes wait for each other at the start."""
MAX_SILENCE_S = 1800.0
"""How long a process that is there may not answer: the first one may write a large checkpoint meanwhile."""
LAST_WORDS_S = 2.0
"""How long a process whose connection is closed has to end."""
_WATCH_S = 0.05


@dataclass(frozen=True)
class Place:
    """The place of a process among those that a launcher started."""

    rank: int
    count: int
    local_rank: int  # on its machine
    address: str  # of the first process
    port: int


def check_place(options: MultiProcessOptions, place: Place | None) -> Place | None:
    """The place that a launcher gave to this process; None if a training starts its processes itself.

    Raises
    ------
    ConfigError
        If the launcher started another number of processes than the options ask for.
    """
    if place is None or place.count == 1:
        if options.num_nodes > 1:
            raise ConfigError(
                f"num_nodes is {options.num_nodes}, but no launcher started this process on several nodes.",
                "Start it with torchrun or srun on each (docs/training.md), or leave num_nodes out.",
            )
        return None
    if place.count != options.process_count:
        raise ConfigError(
            f"{place.count} processes were started, but devices {options.devices} x num_nodes "
            f"{options.num_nodes} = {options.process_count}.",
            "Start one process for each device.",
        )
    return place


def options_of_process(options: OptionsT, local_rank: int, gpus: int) -> OptionsT:
    """The options of one process of a training, as if it were alone: its own device, of the GPUs that it sees."""
    own: dict[str, Any] = {"devices": 1, "num_nodes": 1}
    if options.devices > 1 and options.accelerator != Accelerator.CPU and gpus:
        # A scheduler may show each process one card of its own.
        own["accelerator"] = f"cuda:{0 if gpus == 1 else local_rank}"
    return options.model_copy(update=own)


@contextmanager
def open_ranks(
    options: MultiProcessOptions,
    place: Place | None,
    join_launched: Callable[[Place], Channel],
    start_others: Callable[[ExitStack], Channel],
) -> Iterator[Ranks]:
    """The processes of a training, for the first one.

    Parameters
    ----------
    place:
        See `check_place`.
    join_launched:
        Returns the channel of a process that a launcher started.
    start_others:
        Starts the other processes, which the stack ends, and returns the channel to them.

    Raises
    ------
    ResourceError
        If they cannot be had.
    UsageError
        In a process that a launcher started and that is not the first.
    """
    if options.process_count == 1:
        yield Ranks()
        return
    if place is not None and place.rank > 0:
        raise UsageError(
            f"A launcher started this process as number {place.rank} of {place.count}, and train() was called in it.",
            "Launch the command 'ptychopinn train', or call train() once: it starts its processes itself.",
        )
    with ExitStack() as stack:
        channel = start_others(stack) if place is None else join_launched(place)
        stack.callback(channel.close)
        if place is not None:
            channel.connect()
        ranks = Ranks(channel)
        try:
            yield ranks
        finally:
            with suppress(ResourceError):  # the training is over, whoever was lost
                ranks.end()


def follow_over(channel: Channel, follow: Callable[[Ranks], None], monitor: Monitor = NULL_MONITOR) -> None:
    """Train as the first process orders, in one of the others."""
    try:
        channel.connect()
        follow(Ranks(channel, monitor))
    finally:
        channel.close()


def follow_launched(
    place: Place | None, join: Callable[[Place], Channel], follow: Callable[[Place, Ranks], None], monitor: Monitor
) -> bool:
    """Train as another process orders, if a launcher started this one as one of several that is not the first.

    Returns whether it trained so.
    """
    if place is None or place.rank == 0:
        return False
    follow_over(join(place), lambda ranks: follow(place, ranks), monitor)
    return True


class StartedProcesses:
    """The other processes of a training on this machine; the stack ends them.

    Parameters
    ----------
    function:
        What they call, as in `Task`.
    arguments:
        Of each, by its number.
    """

    def __init__(self, function: str, arguments: Mapping[int, dict[str, Any]], stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptychopinn-")))
        self._jobs: dict[int, JobProcess] = {}
        for rank, given in arguments.items():
            (own := folder / str(rank)).mkdir()
            self._jobs[rank] = stack.enter_context(JobProcess(Task(function, given), own))

    def watch(self) -> None:
        """Pass warnings on; raise ResourceError if one has ended or is stopped."""
        for rank, job in self._jobs.items():
            try:
                for event in job.read(0):
                    if event["event"] == "log" and event["level"] >= logging.WARNING:
                        _log.log(event["level"], "Process %d: %s", rank, event["message"])
                if job.has_ended:
                    job.value()
            except JobError as error:
                raise ResourceError(f"Process {rank} of the training ended: {error.problem}", error.remedy) from error


def check_cards(options: MultiProcessOptions, gpus: int) -> None:
    """Raise ResourceError if there are fewer GPUs than are asked for."""
    if gpus < options.devices:
        raise ResourceError(
            f"devices is {options.devices}, but there are {gpus} GPUs.", f"Use --devices {gpus}, or free others."
        )


def watch_last_words(watch: Callable[[], None]) -> None:
    """Call ``watch`` for two seconds: it raises an error that says more, if the lost process was started here."""
    until = time.monotonic() + LAST_WORDS_S
    while time.monotonic() < until:
        watch()
        time.sleep(_WATCH_S)


def lost_process(rank: int, reason: object) -> ResourceError:
    """The error of process ``rank``, whose connection to another one is closed or silent."""
    first = (str(reason).splitlines() or [type(reason).__name__])[0]
    return ResourceError(
        f"Process {rank} of the training lost another one, or got no answer from it for "
        f"{MAX_SILENCE_S:g} s: {first:.200}",
        "The output of the others may say why. A training with a run directory goes on with --resume.",
    )


def processes_did_not_start() -> ResourceError:
    """The error where processes do not come together."""
    return ResourceError(f"The processes of the training did not start within {JOIN_S:g} s.", "Use fewer --devices.")
