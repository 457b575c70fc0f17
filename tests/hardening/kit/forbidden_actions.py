"""Openers that do what no opener may: they show that the worker would notice."""

from __future__ import annotations

import os
import pickle
import random
import signal
import time
from pathlib import Path

from hardening.kit.mutation import Mutation
from hardening.kit.scans import Evil

from ptychopinn.errors import DataError

SUFFIX = ".txt"


def _number(rng: random.Random, path: Path) -> str:
    path.write_text("")
    return ""


MUTATIONS: tuple[Mutation, ...] = (_number,)


def open_file(path: Path, target: Path, number: int) -> None:
    """Do the forbidden action of that number."""
    deeds = (_raise, _hang, _die, _grow, _run_code, _write_elsewhere, _tell_ill, _unpickle)
    deeds[number](target)


def _raise(target: Path) -> None:
    raise KeyError("x")


def _hang(target: Path) -> None:
    time.sleep(60)


def _die(target: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _grow(target: Path) -> None:
    bytearray(4 << 30)


def _run_code(target: Path) -> None:
    exec(compile("1", "<stranger>", "exec"))


def _write_elsewhere(target: Path) -> None:
    (target.parent.parent / "elsewhere").write_text("")
    (target.parent.parent / "elsewhere").unlink()


def _tell_ill(target: Path) -> None:
    raise DataError("Something is wrong.")


def _unpickle(target: Path) -> None:
    pickle.loads(pickle.dumps(Evil()))
