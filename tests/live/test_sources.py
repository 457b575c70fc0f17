"""Growing files and sockets: specs/17-streaming.md."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptychopinn.data.dataset import Measurement
from ptychopinn.errors import DataError, ResourceError, UsageError
from ptychopinn.live import Arrival, Chunk, Rejection, Setup, follow_hdf5, listen
from ptychopinn.live.messages import pack_end, pack_patterns, pack_setup

N = 32


def make(
    path: Path, *, index: bool = False, dtype: str = "u2", key: str = "diff3d", finished: bool = True
) -> h5py.File:
    file = h5py.File(path, "w", libver="latest")
    file.create_dataset(key, (0, N, N), dtype, maxshape=(None, N, N), chunks=(1, N, N))
    for name in ("xcoords", "ycoords", *(["index"] if index else [])):
        file.create_dataset(name, (0,), "i8" if name == "index" else "f8", maxshape=(None,), chunks=(64,))
    if finished:
        file.create_dataset("finished", data=np.uint8(0))
    return file


def extend(file: h5py.File, count: int, **values: Any) -> None:
    for name, dataset in file.items():
        if dataset.maxshape[:1] == (None,):
            start = len(dataset)
            dataset.resize(start + count, axis=0)
            default = np.arange(start, start + count)
            dataset[start:] = values.get(name, default if dataset.ndim == 1 else default[:, None, None])
            dataset.flush()


def patterns_of(arrivals: list[Arrival]) -> list[int]:
    return [int(p[0, 0]) for a in arrivals if isinstance(a, Chunk) for p in a.patterns]


def until(source: Iterator[Arrival], wanted: type) -> list[Arrival]:
    """Arrivals up to one of a type (None's: ``type(None)``)."""
    seen = []
    for arrival in source:
        seen.append(arrival)
        if isinstance(arrival, wanted):
            return seen
    raise AssertionError(f"{wanted} did not come")


def test_a_file_that_grows_is_followed(tmp_path: Path) -> None:
    """[STREAM-011] beside its writer (SWMR), to the end that it tells."""
    path = tmp_path / "scan.h5"
    source = follow_hdf5(path, most=4, poll_s=0.001)
    assert next(source) is None  # it is not there yet
    with make(path) as file:
        file.swmr_mode = True
        extend(file, 6)
        assert patterns_of(until(source, type(None))) == [0, 1, 2, 3, 4, 5]
        extend(file, 3)
        (chunk,) = (a for a in until(source, type(None)) if a is not None)
        assert isinstance(chunk, Chunk)
        assert chunk.indices.tolist() == [6, 7, 8]
        np.testing.assert_array_equal(chunk.positions, [[6, 6], [7, 7], [8, 8]])
        assert chunk.measurement is Measurement.COUNTS
        extend(file, 5)
        file["finished"][()] = 1
        file["finished"].flush()
        assert patterns_of(list(source)) == [9, 10, 11, 12, 13]


def test_an_archive_is_refused_at_once(tmp_path: Path) -> None:
    """[STREAM-011] It cannot grow; a file that is no HDF5 yet may become one."""
    np.savez(tmp_path / "scan.npz", diff3d=np.ones((2, N, N)))
    with pytest.raises(DataError, match="NPZ file.*cannot grow"):
        next(follow_hdf5(tmp_path / "scan.npz", poll_s=0.001))
    (tmp_path / "scan.h5").write_bytes(b"")
    assert isinstance(next(follow_hdf5(tmp_path / "scan.h5", poll_s=0.001)), Rejection)


def test_a_file_that_is_opened_for_each_addition_is_followed(tmp_path: Path) -> None:
    """[STREAM-011] by reading it in between; while a writer has it, it waits. Numbers of its own count."""
    path = tmp_path / "scan.h5"
    source = follow_hdf5(path, poll_s=0.001)
    make(path, index=True).close()
    with h5py.File(path, "a") as file:
        extend(file, 2, index=[5, 3])
    fcntl = pytest.importorskip("fcntl", reason="this system has no flock")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as a writer of another process does
        assert [next(source), next(source)] == [None, None]
    seen = until(source, Chunk)
    assert isinstance(seen[-1], Chunk)
    assert seen[-1].indices.tolist() == [5, 3]
    with h5py.File(path, "a") as file:
        extend(file, 2, index=[9, 8])
        file["finished"][()] = 1
    assert [a.indices.tolist() for a in source if isinstance(a, Chunk)] == [[9, 8]]


def test_a_row_counts_when_all_datasets_have_it(tmp_path: Path) -> None:
    """[STREAM-011]"""
    path = tmp_path / "scan.h5"
    with make(path) as file:
        extend(file, 4)
        file["xcoords"].resize(3, axis=0)
    assert patterns_of(until(follow_hdf5(path, poll_s=0.001), type(None))) == [0, 1, 2]


def test_a_file_brings_its_setup(tmp_path: Path) -> None:
    """[STREAM-007]"""
    path = tmp_path / "scan.h5"
    with make(path) as file:
        file["probeGuess"] = np.full((N, N), 1j, np.complex64)
        file["bad_pixels"] = np.eye(N, dtype=np.uint8)
        file["_metadata"] = '{"pixel_size_m": 2e-8, "measurement": "amplitude"}'
        extend(file, 1)
    setup, chunk = until(follow_hdf5(path, poll_s=0.001), Chunk)
    assert isinstance(setup, Setup)
    assert setup.probe is not None
    assert setup.probe.shape == (1, N, N)
    assert setup.bad_pixels is not None
    assert setup.bad_pixels.sum() == N
    assert setup.metadata.pixel_size_m == 2e-8
    assert isinstance(chunk, Chunk)
    assert chunk.measurement is Measurement.AMPLITUDE


def test_a_file_that_cannot_be_read_is_told_once_and_looked_at_again(tmp_path: Path) -> None:
    """[STREAM-004] and [STREAM-011]"""
    path = tmp_path / "scan.h5"
    path.write_bytes(b"no HDF5")
    source = follow_hdf5(path, poll_s=0.001)
    assert isinstance(next(source), Rejection)
    assert [next(source) for _ in range(3)] == [None] * 3
    path.unlink()
    with make(path, dtype="f4", key="diffraction") as file:
        extend(file, 1)
    refused = until(source, Rejection)[-1]
    assert isinstance(refused, Rejection)
    assert "--measurement" in refused.reason
    told = follow_hdf5(path, measurement=Measurement.AMPLITUDE, poll_s=0.001)
    chunk = until(told, Chunk)[-1]
    assert isinstance(chunk, Chunk)
    assert chunk.measurement is Measurement.AMPLITUDE


def test_a_socket_is_listened_to(tmp_path: Path) -> None:
    """[STREAM-012] whichever side waits; noise is refused, an end ends it."""
    zmq = pytest.importorskip("zmq", reason="pyzmq is not installed")
    patterns = np.ones((2, N, N), np.uint16)
    for bind in (True, False):
        address = f"ipc://{tmp_path}/{bind}"
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        if not bind:
            socket.bind(address)
        source = listen(address, bind=bind, poll_s=0.01)
        if bind:
            socket.connect(address)
        try:
            assert next(source) is None
            messages = [
                pack_setup(),
                [b"noise"],
                pack_patterns(np.array([0, 1]), np.zeros((2, 2)), patterns),
                pack_end(),
            ]
            for message in messages:
                socket.send_multipart(message)
            kinds = [type(arrival) for arrival in source if arrival is not None]
            assert kinds == [Setup, Rejection, Chunk]
        finally:
            socket.close(0)
            context.term()


def test_a_producer_that_comes_back_is_heard(tmp_path: Path) -> None:
    """[STREAM-012]"""
    zmq = pytest.importorskip("zmq", reason="pyzmq is not installed")
    address = f"ipc://{tmp_path}/socket"
    source = listen(address, poll_s=0.01)

    def produce(number: int, message: list[bytes]) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.bind(address)
        socket.send_multipart(message)
        time.sleep(0.3)
        socket.close(1000)
        context.term()

    for number in range(2):
        message = pack_patterns(np.array([number]), np.zeros((1, 2)), np.ones((1, N, N), np.uint16))
        thread = threading.Thread(target=produce, args=(number, message))
        thread.start()
        chunk = until(source, Chunk)[-1]
        assert isinstance(chunk, Chunk)
        assert chunk.indices.tolist() == [number]
        thread.join()
    source.close()  # type: ignore[attr-defined]


def test_addresses_that_are_none_are_refused(tmp_path: Path) -> None:
    """[STREAM-012]"""
    pytest.importorskip("zmq", reason="pyzmq is not installed")
    for address in ("nonsense", "tcp://", "smoke://signals"):
        with pytest.raises((UsageError, ResourceError), match="address"):
            listen(address)
    with pytest.raises(ResourceError, match="cannot be used"):
        listen(f"ipc://{tmp_path}/no/such/folder", bind=True)


def test_without_pyzmq_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """[STREAM-012]"""
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(UsageError, match=r"pip install pyzmq"):
        listen("tcp://127.0.0.1:5555")
