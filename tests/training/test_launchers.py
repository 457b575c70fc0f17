"""The place of a process in the variables of a launcher. Requirements: specs/10-training.md."""

from __future__ import annotations

import json

import pytest

from ptychopinn.errors import ConfigError
from ptychopinn.training.launchers import find_launched_place
from ptychopinn.training.processes import Place

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "1234"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "21234"}
NODES = {"SLURM_NODELIST": "node[1-2]"}
HOSTS = ["node1:99", "node1:98", "node2:99", "node2:98"]


def tf_config(kind: str, index: int, **cluster: list[str]) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM, *NODES, "TF_CONFIG", "SLURM_JOB_NAME", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, None),
        (TORCHRUN, Place(3, 4, 1, "node1", 1234)),
        ({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True"}, Place(3, 4, 1, "node1", 1235)),
        (tf_config("worker", 3, worker=HOSTS), Place(3, 4, 1, "node1", 99)),
        (tf_config("worker", 0, chief=HOSTS[:1], worker=HOSTS[1:]), Place(1, 4, 1, "node1", 99)),
        ({**SLURM, **NODES}, Place(3, 4, 1, "node1", 16234)),
        ({**SLURM, "SLURM_NODELIST": "big07,node[1-2]"}, Place(3, 4, 1, "big07", 16234)),
        ({**SLURM, "SLURM_NODELIST": "n[08,10-12]-ib"}, Place(3, 4, 1, "n08-ib", 16234)),
        ({**SLURM, **NODES, "SLURM_JOB_NAME": "interactive"}, None),
        ({**SLURM, **NODES, **TORCHRUN}, Place(3, 4, 1, "node1", 1234)),
    ],
)
def test_the_place_in_a_launcher(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: Place | None
) -> None:
    """[TRAIN-022] torchrun's before Slurm's own, in whose job it may run."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_launched_place() == place


@pytest.mark.parametrize(
    "variables",
    [
        {**TORCHRUN, "RANK": "first"},
        {"TF_CONFIG": "{"},
        tf_config("evaluator", 0, worker=HOSTS),
        tf_config("worker", 4, worker=HOSTS),
        SLURM,
    ],
    ids=["no number", "no JSON", "an evaluator", "no such worker", "no nodes"],
)
def test_variables_that_contradict_are_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """[TRAIN-022]"""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="cannot be understood"):
        find_launched_place()
