"""The place of a process, from the environment variables that a launcher sets."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from ptychopinn.errors import ConfigError
from ptychopinn.training.processes import Place

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_INTERACTIVE = ("bash", "interactive")  # jobs of Slurm in which a user types commands
_FIRST_PORT = 15000  # the job's number gives another one


def find_launched_place() -> Place | None:
    """The place that torchrun, TF_CONFIG or Slurm gives to this process, asked in this order; None without them.

    Raises
    ------
    ConfigError
        If the variables cannot be understood.
    """
    try:
        return _from_torchrun() or _from_tf_config() or _from_slurm()
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"The environment variables of the launcher of this process cannot be understood: {error!r}.",
            "See docs/training.md.",
        ) from error


def _from_torchrun() -> Place | None:
    found = [os.environ.get(name) for name in _TORCHRUN]
    if None in found:
        return None
    rank, count, local_rank, address, port = map(str, found)
    # torchrun's own process may listen at its port.
    taken = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Place(int(rank), int(count), int(local_rank), address, int(port) + taken)


def _from_tf_config() -> Place | None:
    """From the variable that `tf.distribute` reads: the addresses of all, and the number of this one."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    config: dict[str, Any] = json.loads(text)
    cluster, task = config["cluster"], config["task"]
    names = [(kind, index) for kind in ("chief", "worker") for index in range(len(cluster.get(kind, ())))]
    addresses = [cluster[kind][index] for kind, index in names]
    rank = names.index((task["type"], int(task["index"])))
    hosts = [address.rpartition(":")[0] for address in addresses]
    port = int(addresses[0].rpartition(":")[2])
    return Place(rank, len(names), hosts[:rank].count(hosts[rank]), hosts[0], port)


def _from_slurm() -> Place | None:
    """Of the tasks of a job step; they meet on its first node."""
    count = os.environ.get("SLURM_NTASKS")
    if count is None or os.environ.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODELIST", "SLURM_JOB_ID")
    rank, local_rank, nodes, job = (os.environ[name] for name in names)
    first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes).split(",")[0]  # node[1-2,7] is node1 and others
    return Place(int(rank), int(count), int(local_rank), first, _FIRST_PORT + int(job[-4:]))
