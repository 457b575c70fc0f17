"""What systems and file systems do in different ways, with what others lack hidden."""

from __future__ import annotations

import errno
import gc
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from ptychopinn import hdf5_files, system
from ptychopinn.errors import ResourceError, UsageError
from ptychopinn.hdf5_files import atomic_hdf5_file, open_hdf5_file
from ptychopinn.jobs import JobProcess, Task
from ptychopinn.spill import SpillableRows, read_to_memmap
from ptychopinn.system import allocate, check_address_space, lock_file
from ptychopinn.workflows.lock import locked


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Hides functions of `os`."""

    def hide(*names: str) -> None:
        for name in names:
            monkeypatch.delattr(os, name, raising=False)

    return hide


def test_rows_are_spilled_without_reading_at_a_place(without: Any) -> None:
    """[RUN-030] As on Windows."""
    without("posix_fallocate", "pwrite", "preadv")
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    with SpillableRows((3,), np.float32, budget_bytes=24, expected=20) as store:
        store[np.arange(20)] = rows
        np.testing.assert_array_equal(store[np.array([17, 2, 3, 4])], rows[[17, 2, 3, 4]])
    found = read_to_memmap("The scan", 6, [b"abc", b"def"])
    assert bytes(found) == b"abcdef"


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_reserves_no_space_is_used(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """[RUN-030] As some of networks."""

    def refuse(*args: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with SpillableRows((3,), np.float32, budget_bytes=0, expected=5) as store:
        store[np.arange(5)] = np.ones((5, 3), np.float32)
        assert store[:].sum() == 15
    monkeypatch.setattr(system.shutil, "disk_usage", lambda path: SimpleNamespace(free=3))
    with pytest.raises(ResourceError, match="No space left"):
        SpillableRows((3,), np.float32, budget_bytes=0, expected=5)


def test_space_that_is_not_there_is_an_error_first(tmp_path: Path, without: Any) -> None:
    """[RUN-030]"""
    without("posix_fallocate")
    with (tmp_path / "file").open("w+b", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        allocate(file, 1 << 60)


@pytest.fixture
def windows_locks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Locks of one byte as Windows has them; the descriptors that hold one."""
    held: list[int] = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        if held:
            raise OSError(errno.EACCES, "Permission denied")
        held.append(descriptor)

    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))  # type: ignore[misc]
    return held


def test_a_directory_is_locked_by_a_byte_on_windows(windows_locks: list[int], tmp_path: Path) -> None:
    """[RUN-030] The second run is told who holds it."""
    with locked(tmp_path):
        assert len(windows_locks) == 1
        with pytest.raises(UsageError, match=f"in use by process {os.getpid()} on "), locked(tmp_path):
            pass


def test_without_locks_a_run_goes_on_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[HARD-030] [RUN-030]"""
    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", None)  # type: ignore[misc]
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="no file locks"):
        lock_file(file.fileno())
    with locked(tmp_path):
        pass
    assert "cannot be locked" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_hdf5_files_are_opened_without_locks_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """[RUN-031] A file that another program has locked stays refused."""
    opened = h5py.File

    def refuse(path: Path, mode: str, *, locking: bool | None = None) -> Any:
        if locking is None:
            raise OSError(f"Unable to synchronously open file (unable to lock file, errno = {number}, error message = "
                          f"'{os.strerror(number)}')")  # fmt: skip
        return opened(path, mode, locking=locking)

    monkeypatch.setattr(hdf5_files.h5py, "File", refuse)
    with open_hdf5_file(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    with open_hdf5_file(tmp_path / "a.h5") as file:
        assert file["x"][()] == 1
    number = errno.EAGAIN
    with pytest.raises(OSError, match="unable to lock"):
        open_hdf5_file(tmp_path / "a.h5")


def test_a_job_says_at_once_where_it_cannot_work(without: Any, tmp_path: Path) -> None:
    """[RUN-030] As on Windows."""
    without("killpg")
    with pytest.raises(UsageError, match="needs Linux or macOS"):
        JobProcess(Task("ptychopinn.cli:main", {}), tmp_path)


def test_a_job_works_without_waitid(without: Any, tmp_path: Path) -> None:
    """[RUN-030] As on macOS."""
    without("waitid")
    with JobProcess(Task("ptychopinn.cores:granted_cores", {}), tmp_path) as job:
        while not job.has_ended:
            job.read(0.05)
        assert job.value() >= 1


def test_an_hdf5_file_on_a_full_disk_is_refused_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """[HARD-012] The HDF5 library, which would write again at its end and crash, sees nothing of it."""
    resource = pytest.importorskip("resource")
    (tmp_path / "product.h5").write_text("earlier")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        refused = pytest.raises(ResourceError, match=r"product\.h5 could not be written: File too large")
        with refused, atomic_hdf5_file(tmp_path / "product.h5") as file:
            file["object"] = np.arange(3000)
            file.create_group("more")["text"] = "a text"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    del file
    gc.collect()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]
    assert capfd.readouterr().err == ""


def test_too_small_an_address_space_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-007] Before linear algebra waits for memory for ever."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda name: (2**20, 2**20))
    with pytest.raises(ResourceError, match=r"limited \(ulimit -v\): 0 MiB of address space are left"):
        check_address_space()
    monkeypatch.setattr(resource, "getrlimit", lambda name: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    check_address_space()
