"""The processes of a training in PyTorch: who starts them, and how they are connected.

A launcher (torchrun, Slurm and the others that Lightning knows) starts the same command for each; otherwise the first
process starts the others on its machine. Orders go over gloo, gradients over NCCL where the devices are GPUs. PyTorch's
DistributedDataParallel is not used: it adds gradients up inside of the backward pass, where a process that runs out of
memory, or fails, would leave the others waiting.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore, rendezvous  # type: ignore[attr-defined]

from ptychopinn.config.execution import Accelerator
from ptychopinn.errors import ConfigError, ResourceError, UsageError
from ptychopinn.training import processes
from ptychopinn.training.processes import (
    JOIN_S,
    MAX_SILENCE_S,
    Place,
    StartedProcesses,
    check_cards,
    check_place,
    follow_over,
    lost_process,
    options_of_process,
    processes_did_not_start,
    watch_last_words,
)
from ptychopinn.training.ranks import Ranks
from ptychopinn.typing import AnyArray
from ptychopinn_torch.options import TorchOptions

if TYPE_CHECKING:
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

_HERE = "127.0.0.1"
_WATCH_S = 0.5  # between two looks at the processes that this one started
_MAX_SLEEP_S = 0.01


def find_place(options: TorchOptions) -> Place | None:
    """The place that a launcher gave to this process; see `ptychopinn.training.processes.check_place`."""
    if options.process_count == 1:
        return None
    found = _environment(options)
    place = None
    if found is not None:
        numbers = found.global_rank(), found.world_size(), found.local_rank()
        place = Place(*numbers, found.main_address, found.main_port)
    return check_place(options, place)


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
    return options_of_process(options, local_rank, torch.cuda.device_count() if torch.cuda.is_available() else 0)


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
                timeout=timedelta(seconds=MAX_SILENCE_S),
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
        watch_last_words(self._watch)
        return lost_process(self.rank, error)


def open_ranks(options: TorchOptions, device: torch.device) -> AbstractContextManager[Ranks]:
    """The processes of a training, for the first one; see `ptychopinn.training.processes.open_ranks`."""
    return processes.open_ranks(
        options,
        find_place(options),
        lambda place: join_launched(place, device),
        lambda stack: _start_others(options, device, stack),
    )


def join_launched(place: Place, device: torch.device) -> GlooChannel:
    """The channel of a process that a launcher started."""

    def join() -> Store:
        address = f"tcp://{place.address}:{place.port}"
        limit = timedelta(seconds=JOIN_S)
        store: Store = next(rendezvous(address, place.rank, place.count, timeout=limit))[0]
        return store

    _check_unused()
    return GlooChannel(device, place.rank, place.count, join)


def _check_unused() -> None:
    if dist.is_initialized():
        raise UsageError(
            "torch.distributed is in use in this process, by another training on several devices or a program.",
            "Train in another process.",
        )


def device_of(options: TorchOptions) -> torch.device:
    """Where the tensors of these options are, without a look at the device."""
    on_cpu = options.accelerator == Accelerator.CPU or not torch.cuda.is_available()
    return torch.device("cpu" if on_cpu else "cuda")


def _start_others(options: TorchOptions, device: torch.device, stack: ExitStack) -> GlooChannel:
    """The channel of a process that starts the others."""
    _check_unused()
    if device.type == "cuda":
        check_cards(options, torch.cuda.device_count())
    count = options.devices
    store = TCPStore(_HERE, 0, count, is_master=True, wait_for_workers=False)
    arguments = {
        rank: {
            "options": device_options(options, rank).model_dump(mode="json"),
            **{"rank": rank, "count": count, "port": store.port},
        }
        for rank in range(1, count)
    }
    others = StartedProcesses("ptychopinn_torch.ranks:follow_started", arguments, stack)

    def join() -> Store:
        until = time.monotonic() + JOIN_S
        while not store.check([_key(rank) for rank in arguments]):
            others.watch()
            if time.monotonic() > until:
                raise processes_did_not_start()
            time.sleep(_MAX_SLEEP_S)
        return store

    return GlooChannel(device, 0, count, join, others.watch)


def follow_started(options: dict[str, Any], rank: int, count: int, port: int) -> None:
    """The task of a process that the first one started."""
    from ptychopinn_torch.reconstructor import TorchReconstructor

    own = TorchOptions.model_validate(options)

    def join() -> Store:
        store = TCPStore(_HERE, port, count, is_master=False)
        store.set(_key(rank), "there")
        return store

    channel = GlooChannel(device_of(own), rank, count, join)
    follow_over(channel, lambda ranks: TorchReconstructor.follow(own, ranks))


def _key(rank: int) -> str:
    return f"there/{rank}"
