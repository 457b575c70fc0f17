"""``stream_run``: a directory that is kept up to date."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy_backend import NumpyReconstructor

from ptychopinn import workflows
from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.errors import ConfigError, DataError, ResourceError, UsageError
from ptychopinn.live.messages import pack_end, pack_patterns
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan

N = 32


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=8, cols=8, seed=1, object_shape=(80, 80)))


@pytest.fixture(scope="module")
def model(scan: ScanDataset, tmp_path_factory: pytest.TempPathFactory) -> NumpyReconstructor:
    reconstructor = NumpyReconstructor(ModelConfig(N=N))
    reconstructor.train(scan, TrainConfig(nepochs=4))
    return reconstructor


@pytest.fixture
def run_folder(model: NumpyReconstructor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run").mkdir()
    model.save(tmp_path / "run" / "wts.h5.zip")
    for module in ("_stream", "_infer"):
        monkeypatch.setattr(f"ptychopinn.workflows.{module}.load_reconstructor", lambda *a, **k: model)
    return tmp_path / "run"


def write(path: Path, scan: ScanDataset, count: int, *, finished: bool = True) -> Path:
    with h5py.File(path, "w") as file:
        file["diff3d"] = np.asarray(scan.patterns[:count])
        file["xcoords"], file["ycoords"] = scan.positions[:count, 1], scan.positions[:count, 0]
        file["finished"] = int(finished)
    return path


def test_a_file_is_followed_into_a_directory(scan: ScanDataset, run_folder: Path, tmp_path: Path) -> None:
    """[CLI-031], [STREAM-001] and [STREAM-008]: the same object as of the whole scan, and what came of the stream."""
    source = write(tmp_path / "scan.h5", scan, 64)
    result = workflows.stream_run(run_folder, str(source), tmp_path / "out", interval_s=0)
    whole = tmp_path / "whole.npz"
    write_scan(whole, ScanDataset(scan.patterns, scan.measurement, scan.positions, scan.probe))
    alone = workflows.run_settings(infer={"refine": 0})  # as streams are, unless passes are asked for
    expected = workflows.infer_run(run_folder, whole, tmp_path / "expected", alone)
    found, wanted = (read_product(r.files["product"]).object for r in (result, expected))
    assert np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted)
    assert (result.figures["stream"], result.figures["patterns"]) == ("finished", 64)
    assert {"product", "phase", "amplitude", "probe", "report"} <= set(result.files)
    assert result.warnings == ()
    assert "passes of refinement kept" not in result.figures


def test_a_stream_of_other_conditions_than_the_training_is_named(run_folder: Path, tmp_path: Path) -> None:
    """[VER-007]"""
    dim = simulate_scan(SimulationConfig(N=N, rows=8, cols=8, seed=1, object_shape=(80, 80), nphotons=2e4))
    result = workflows.stream_run(run_folder, str(write(tmp_path / "dim.h5", dim, 64)), tmp_path / "out", interval_s=0)
    assert sum(text.startswith("The model was trained under other conditions") for text in result.warnings) == 1


def test_passes_follow_where_they_are_asked_for(scan: ScanDataset, run_folder: Path, tmp_path: Path) -> None:
    """[STREAM-001] Settings that need passes are refused without them."""
    source = write(tmp_path / "scan.h5", scan, 64)
    settings = workflows.run_settings(infer={"refine": 1})
    result = workflows.stream_run(run_folder, str(source), tmp_path / "out", settings, interval_s=0)
    assert result.figures["passes of refinement kept"] == 1
    with pytest.raises(ConfigError, match="refine_probe has no effect without refine"):
        workflows.stream_run(
            run_folder, str(source), tmp_path / "other", workflows.run_settings(infer={"refine_probe": True})
        )
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_object_is_written_now_and_then(
    scan: ScanDataset, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[STREAM-008] and what could not be written then is no end of it."""
    seen: list[tuple[int, ...]] = []
    write_product = workflows._outputs.write_product

    def once(path: Path, product: object) -> None:
        seen.append((len(seen),))
        if len(seen) == 2:
            raise ResourceError("The disk is full.")
        write_product(path, product)  # type: ignore[arg-type]

    monkeypatch.setattr("ptychopinn.workflows._outputs.write_product", once)
    stream = workflows._stream.stream
    monkeypatch.setattr("ptychopinn.workflows._stream.stream", lambda *a, **k: stream(*a, **{**k, "update_s": 0}))
    source = write(tmp_path / "scan.h5", scan, 64)
    arrivals = workflows._stream.follow_hdf5(source, most=16)
    monkeypatch.setattr("ptychopinn.workflows._stream.follow_hdf5", lambda *a, **k: arrivals)
    settings = workflows.run_settings(infer={"inference_batch_size": 16})
    result = workflows.stream_run(run_folder, str(source), tmp_path / "out", settings, interval_s=0)
    assert len(seen) >= 3
    assert result.files["product"].is_file()


def test_silence_ends_it_with_what_is_there(scan: ScanDataset, run_folder: Path, tmp_path: Path) -> None:
    """[STREAM-005]"""
    source = write(tmp_path / "scan.h5", scan, 40, finished=False)
    result = workflows.stream_run(run_folder, str(source), tmp_path / "out", timeout_s=0.3)
    assert (result.figures["stream"], result.figures["patterns"]) == ("timed_out", 40)
    assert any("No more data arrived" in warning for warning in result.warnings)
    with pytest.raises(DataError, match="No pattern has arrived"):
        workflows.stream_run(run_folder, str(tmp_path / "none.h5"), tmp_path / "out2", timeout_s=0.1)
    assert not (tmp_path / "out2").exists()


def test_cancelled_it_writes_what_is_there(scan: ScanDataset, run_folder: Path, tmp_path: Path) -> None:
    """[STREAM-005]"""
    source = write(tmp_path / "scan.h5", scan, 40, finished=False)

    def stop(progress: Progress) -> None:
        if progress.stage == "stream":
            monitor.cancel()

    monitor = Monitor(stop)
    result = workflows.stream_run(run_folder, str(source), tmp_path / "out", timeout_s=30, monitor=monitor)
    assert (result.figures["stream"], result.figures["patterns"]) == ("cancelled", 40)
    assert result.files["product"].is_file()


def test_a_socket_fills_a_directory(scan: ScanDataset, run_folder: Path, tmp_path: Path) -> None:
    """[STREAM-012]"""
    zmq = pytest.importorskip("zmq", reason="pyzmq is not installed")
    address = f"ipc://{tmp_path}/socket"

    def produce() -> None:
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.connect(address)
        for low in range(0, 64, 16):
            rows = np.arange(low, low + 16)
            socket.send_multipart(pack_patterns(rows, scan.positions[rows], np.asarray(scan.patterns[rows])))
        socket.send_multipart(pack_end())
        socket.close(5000)
        context.term()

    thread = threading.Thread(target=produce)
    thread.start()
    result = workflows.stream_run(run_folder, address, tmp_path / "out", bind=True, timeout_s=20)
    thread.join()
    assert (result.figures["stream"], result.figures["patterns"]) == ("finished", 64)


def test_the_model_that_is_used_is_not_replaced(scan: ScanDataset, run_folder: Path, tmp_path: Path) -> None:
    """[CLI-031] [HARD-013]"""
    source = write(tmp_path / "scan.h5", scan, 4)
    with pytest.raises(UsageError, match="directory of the model"):
        workflows.stream_run(run_folder / "wts.h5.zip", str(source), run_folder, overwrite=True)
    assert [path.name for path in run_folder.iterdir()] == ["wts.h5.zip"]


@pytest.mark.parametrize(
    ("source", "arguments", "said"),
    [
        ("scan.h5", {"bind": True}, "only a socket"),
        ("no/such/folder/scan.h5", {}, "folder"),
        ("scan.h5", {"timeout_s": 0}, "timeout"),
        ("scan.h5", {"interval_s": -1}, "interval"),
    ],
)
def test_what_contradicts_itself_is_refused(
    source: str, arguments: dict[str, object], said: str, run_folder: Path, tmp_path: Path
) -> None:
    """[CLI-031]"""
    call: Callable[..., object] = workflows.stream_run
    with pytest.raises(UsageError, match=said):
        call(run_folder, str(tmp_path / source), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
