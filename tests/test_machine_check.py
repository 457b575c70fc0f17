"""The page about a machine."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from ptychopinn_numpy.options import NumpyOptions

from ptychopinn import machine_check, system
from ptychopinn.config import ExecutionOptions
from ptychopinn.machine_check import backend_devices, check_machine
from ptychopinn.plugins import BrokenPlugin, Registry
from ptychopinn.reconstructor import ReconstructorSpec


def spec(name: str, *requires: str) -> ReconstructorSpec:
    return ReconstructorSpec(
        name=name, summary="", import_string="not_there:Here", options=ExecutionOptions, requires=requires
    )


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend whose package is missing, one that cannot be started, and a broken plugin."""
    there = {"bare": spec("bare", "surely_not_installed"), "dead": spec("dead")}
    broken = (BrokenPlugin("bad", "bad 2.0", "ImportError:\nno foo"),)
    monkeypatch.setattr(machine_check, "discover", lambda: Registry(there, dict.fromkeys(there, "toy 1"), broken))


def test_the_page_names_what_a_report_needs(plugins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-020]"""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    page = check_machine()
    assert {"python", "system", "numpy", "ptychopinn", "ptychodus", "NVIDIA driver"} <= page["versions"].keys()
    assert {"cores", "free memory", "/dev/shm"} <= page["machine"].keys()
    assert ("locks work" if system.fcntl else "no file locks") in page["places"]["TMPDIR"]
    assert page["environment"]["OMP_NUM_THREADS"] == "7"
    backends = page["backends"]
    assert backends["bare"] == "not usable: surely_not_installed missing"
    assert backends["bad"] == "broken (bad 2.0): ImportError: no foo"
    assert backends["dead"].startswith("broken: ")
    assert "There is no backend 'dead'" in backends["dead"]  # the process of its own has the installed ones
    assert backends["epie"] == "solver"


def test_a_place_without_locks_or_with_too_long_a_name_is_told_apart(
    plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[RUN-020]"""
    deep = tmp_path / ("a" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    monkeypatch.setattr(system, "fcntl", None)
    place = check_machine()["places"]["TMPDIR"]
    assert "no file locks" in place
    assert "too long for sockets" in place
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert "not writable (ENOENT)" in check_machine()["places"]["TMPDIR"]


def test_what_cannot_be_checked_leaves_the_rest(plugins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-020]"""

    def fail() -> int:
        raise RuntimeError("no such file")

    monkeypatch.setattr(machine_check, "available_mib", fail)
    page = check_machine()
    assert page["machine"] == {"could not be checked": "RuntimeError: no such file"}
    assert "python" in page["versions"]


def test_devices_of_a_backend_are_named_or_why_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-020]"""
    numpy = replace(
        spec("numpy"), import_string="ptychopinn_numpy.reconstructor:NumpyReconstructor", options=NumpyOptions
    )
    monkeypatch.setattr(machine_check, "discover", lambda: Registry({"numpy": numpy}, {"numpy": "toy 1"}))
    facts = backend_devices("numpy")
    assert facts["framework"].startswith("numpy ")
    assert facts["auto"] == "can be used"
    assert "computes on the cpu" in facts["cuda"]
