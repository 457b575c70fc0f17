"""The processes of a training in PyTorch: who starts them, and how they are connected.

A launcher (torchrun, Slurm and the others that Lightning knows) starts the same command for each; otherwise the first
process starts the others on its machine. Orders go over gloo, gradients over NCCL where the devices are GPUs. PyTorch's
DistributedDataParallel is not used: it adds gradients up inside of the backward pass, where a process that runs out of
memory, or fails, would leave the others waiting.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore, rendezvous  # type: ignore[attr-defined]

from ptychopinn.config.execution import Accelerator
from ptychopinn.errors import ConfigError, ResourceError, UsageError
from ptychopinn.jobs import JobError, JobProcess, Task
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.training.ranks import Ranks
from ptychopinn.typing import AnyArray
from ptychopinn_torch.options import TorchOptions

if TYPE_CHECKING:
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

_log = logging.getLogger("ptychopinn.torch")
_HERE = "127.0.0.1"
_JOIN_S = 300.0  # for the processes of a launcher to come together
_MAX_SILENCE_S = 1800.0  # of a process that is there: the first one may write a large checkpoint meanwhile
_WATCH_S = 0.5  # between two looks at the processes that this one started
_LAST_WORDS_S = 2.0  # for a process to end whose connection is closed
_MAX_SLEEP_S = 0.01


@dataclass(frozen=True)
class Place:
    """The place of a process among those that a launcher started."""

    rank: int
    count: int
    local_rank: int  # on its machine
    address: str  # of the first process
    port: int


def find_place(options: TorchOptions) -> Place | None:
    """The place that a launcher gave to this process; None if a training starts its processes itself.

    Raises
    ------
    ConfigError
        If the launcher started another number of processes than the options ask for.
    """
    if options.process_count == 1:
        return None
    environment = _environment(options)
    if environment is None or environment.world_size() == 1:
        if options.num_nodes > 1:
            raise ConfigError(
                f"num_nodes is {options.num_nodes}, but no launcher started this process on several nodes.",
                "Start it with torchrun or srun on each (docs/training.md), or leave num_nodes out.",
            )
        return None
    if environment.world_size() != options.process_count:
        raise ConfigError(
            f"{environment.world_size()} processes were started, but devices {options.devices} x num_nodes "
            f"{options.num_nodes} = {options.process_count}.",
            "Start one process for each device.",
        )
    return Place(
        environment.global_rank(),
        environment.world_size(),
        environment.local_rank(),
        environment.main_address,
        environment.main_port,
    )


def _environment(options: TorchOptions) -> ClusterEnvironment | None:
    """What started this process, in the order in which Lightning looks."""
    # Importing them takes a second.
    from lightning_fabric.plugins.environments.lsf import LSFEnvironment
    from lightning_fabric.plugins.environments.mpi import MPIEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    kinds: tuple[type[ClusterEnvironment], ...] = (
        TorchElasticEnvironment,
        SLURMEnvironment,
        LSFEnvironment,
        MPIEnvironment,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about srun, which a training on one machine does not need
            found = next((kind() for kind in kinds if kind.detect()), None)
        if found is not None and found.world_size() > 1:
            found.validate_settings(options.devices, options.num_nodes)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"The launcher of this process does not fit: {error}", "See docs/training.md.") from error
    return found


def device_options(options: TorchOptions, local_rank: int) -> TorchOptions:
    """The options of one process of a training, as if it were alone: its own device."""
    own: dict[str, Any] = {"devices": 1, "num_nodes": 1}
    if options.devices > 1 and options.accelerator != Accelerator.CPU and torch.cuda.is_available():
        # A scheduler may show each process one card of its own.
        own["accelerator"] = f"cuda:{0 if torch.cuda.device_count() == 1 else local_rank}"
    return options.model_copy(update=own)


class GlooChannel:
    """A `ptychopinn.training.ranks.Channel` over `torch.distributed`.

    Parameters
    ----------
    device:
        Where the tensors are that are added up.
    join:
        Waits for the other processes and returns the store where they meet.
    watch:
        Raises an error if a process that this one started has ended; called now and then while it waits.
    """

    def __init__(
        self,
        device: torch.device,
        rank: int,
        count: int,
        join: Callable[[], Store],
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self._device, self.rank, self.count, self._join, self._watch = device, rank, count, join, watch
        self.connected = self._aborted = False

    def connect(self) -> None:
        """Meet the others. Raises ResourceError if one does not come."""
        if self.connected:
            return
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if self._device.type == "cuda" else "gloo",
                store=self._join(),
                rank=self.rank,
                world_size=self.count,
                timeout=timedelta(seconds=_MAX_SILENCE_S),
            )
        except RuntimeError as error:
            raise self._lost(error) from error
        self.connected = True

    def close(self) -> None:
        """Leave the others, when the device has done what they wait for."""
        if not self.connected:
            return
        if self._device.type == "cuda" and not self._aborted:
            torch.cuda.synchronize()
        dist.destroy_process_group()
        self.connected = False

    def broadcast(self, array: AnyArray, root: int) -> None:
        """Replace an array by that of one process."""
        tensor = torch.from_numpy(array)
        self._wait(lambda: dist.broadcast(tensor, root, async_op=True))

    def maximum(self, array: AnyArray) -> None:
        """Replace an array by its elementwise maximum over the processes."""
        tensor = torch.from_numpy(array)
        self._wait(lambda: dist.all_reduce(tensor, dist.ReduceOp.MAX, async_op=True))

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the processes; on a GPU nobody waits for it here."""
        if tensor.device.type == "cuda":
            dist.all_reduce(tensor)
        else:
            self._wait(lambda: dist.all_reduce(tensor, async_op=True))

    def _wait(self, begin: Callable[[], Any]) -> None:
        """Wait for the others; signals are handled meanwhile."""
        self.connect()
        try:
            work = begin()
            start = watched = time.monotonic()
            while not work.is_completed():
                now = time.monotonic()
                if now - watched > _WATCH_S:
                    self._watch()
                    watched = now
                time.sleep(min((now - start) / 20, _MAX_SLEEP_S))
            work.wait()
        except ResourceError:  # of watch
            self._abort()
            raise
        except RuntimeError as error:
            self._abort()
            raise self._lost(error) from error

    def _abort(self) -> None:
        """Give up additions on a GPU that wait for a lost process; else all that reads the GPU would wait for them."""
        if self._device.type == "cuda" and dist.group.WORLD is not None:
            dist.group.WORLD._get_backend(self._device).abort()
            self._aborted = True

    def _lost(self, error: RuntimeError) -> ResourceError:
        until = time.monotonic() + _LAST_WORDS_S
        while time.monotonic() < until:
            self._watch()  # knows more, if it is one of them
            time.sleep(_MAX_SLEEP_S)
        return ResourceError(
            f"Process {self.rank} of the training lost another one, or got no answer from it for "
            f"{_MAX_SILENCE_S:g} s: {str(error).splitlines()[0]:.200}",
            "The output of the others may say why. A training with a run directory goes on with --resume.",
        )


@contextmanager
def open_ranks(options: TorchOptions, device: torch.device) -> Iterator[Ranks]:
    """The processes of a training, for the first one.

    Raises
    ------
    ConfigError, ResourceError
        If they cannot be had.
    UsageError
        In a process that a launcher started and that is not the first.
    """
    if options.process_count == 1:
        yield Ranks()
        return
    place = find_place(options)
    if place is not None and place.rank > 0:
        raise UsageError(
            f"A launcher started this process as number {place.rank} of {place.count}, and train() was called in it.",
            "Launch the command 'ptychopinn train', or call train() once: it starts its processes itself.",
        )
    if dist.is_initialized():
        raise UsageError(
            "torch.distributed is in use in this process, by another training on several devices or a program.",
            "Train in another process.",
        )
    with ExitStack() as stack:
        channel = _join_launched(place, device) if place is not None else _start_others(options, device, stack)
        stack.callback(channel.close)
        if place is not None:
            channel.connect()
        ranks = Ranks(channel)
        try:
            yield ranks
        finally:
            with suppress(ResourceError):  # the training is over, whoever was lost
                ranks.end()


def follow_launched(
    options: TorchOptions, follow: Callable[[TorchOptions, Ranks], None], monitor: Monitor = NULL_MONITOR
) -> bool:
    """Train as another process orders, if a launcher started this one as one of several that is not the first.

    Returns
    -------
    Whether it was so.
    """
    place = find_place(options)
    if place is None or place.rank == 0:
        return False
    own = device_options(options, place.local_rank)
    channel = _join_launched(place, _device(own))
    try:
        channel.connect()
        follow(own, Ranks(channel, monitor))
    finally:
        channel.close()
    return True


def _join_launched(place: Place, device: torch.device) -> GlooChannel:
    """The channel of a process that a launcher started."""

    def join() -> Store:
        address = f"tcp://{place.address}:{place.port}"
        limit = timedelta(seconds=_JOIN_S)
        store: Store = next(rendezvous(address, place.rank, place.count, timeout=limit))[0]
        return store

    return GlooChannel(device, place.rank, place.count, join)


def _device(options: TorchOptions) -> torch.device:
    """Where the tensors of these options are, without a look at the device."""
    on_cpu = options.accelerator == Accelerator.CPU or not torch.cuda.is_available()
    return torch.device("cpu" if on_cpu else "cuda")


class _StartedProcesses:
    """The other processes of a training on this machine; the stack ends them."""

    def __init__(self, options: TorchOptions, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptychopinn-")))
        self._store = TCPStore(_HERE, 0, options.devices, is_master=True, wait_for_workers=False)
        self._jobs: dict[int, JobProcess] = {}
        for rank in range(1, options.devices):
            arguments = {
                "options": device_options(options, rank).model_dump(mode="json"),
                **{"rank": rank, "count": options.devices, "port": self._store.port},
            }
            (place := folder / str(rank)).mkdir()
            task = Task("ptychopinn_torch.ranks:follow_started", arguments)
            self._jobs[rank] = stack.enter_context(JobProcess(task, place))

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

    def join(self) -> Store:
        """The store, when all are there."""
        until = time.monotonic() + _JOIN_S
        while not self._store.check([_key(rank) for rank in self._jobs]):
            self.watch()
            if time.monotonic() > until:
                raise ResourceError(
                    f"The processes of the training did not start within {_JOIN_S:g} s.", "Use fewer --devices."
                )
            time.sleep(_MAX_SLEEP_S)
        return self._store


def _start_others(options: TorchOptions, device: torch.device, stack: ExitStack) -> GlooChannel:
    """The channel of a process that starts the others."""
    cards = torch.cuda.device_count() if device.type == "cuda" else options.devices
    if cards < options.devices:
        raise ResourceError(
            f"devices is {options.devices}, but there are {cards} GPUs.", f"Use --devices {cards}, or free others."
        )
    others = _StartedProcesses(options, stack)
    return GlooChannel(device, 0, options.devices, others.join, others.watch)


def follow_started(options: dict[str, Any], rank: int, count: int, port: int) -> None:
    """The task of a process that the first one started."""
    from ptychopinn_torch.reconstructor import TorchReconstructor

    own = TorchOptions.model_validate(options)

    def join() -> Store:
        store = TCPStore(_HERE, port, count, is_master=False)
        store.set(_key(rank), "there")
        return store

    channel = GlooChannel(_device(own), rank, count, join)
    try:
        channel.connect()
        TorchReconstructor.follow(own, Ranks(channel))
    finally:
        channel.close()


def _key(rank: int) -> str:
    return f"there/{rank}"
