"""The worker process and what a directory holds to train on (specs/12-ptychodus.md)."""

from __future__ import annotations

import inspect
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

from bridge_scans import simulated, write_scan_folder

from ptychopinn.bundle import ArchiveKind, Manifest, TrainingSummary, Writer, write_bundle
from ptychopinn.config import ModelConfig
from ptychopinn.data.npz import write_scan
from ptychopinn.errors import ArchiveError, DataError
from ptychopinn_ptychodus.archives import load_model, with_losses
from ptychopinn_ptychodus.jobs import Job, event, parse_event
from ptychopinn_ptychodus.process import Worker
from ptychopinn_ptychodus.training_data import find_training_files, read_training_data


def _job(folder: Path, **changes: Any) -> Job:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "kind": "train",
        "backend": "no-such-backend",
        "model_type": "pinn",
        "settings": {},
        "scratch": scratch,
        "output": folder / "model.zip",
        "folder": folder,
    }
    return Job(**{**values, **changes})


def _wait(worker: Worker, limit_s: float = 30) -> list[dict[str, Any]]:
    events, end = [], time.monotonic() + limit_s
    while not worker.ended:
        assert time.monotonic() < end
        if (found := worker.next_event(0.05)) is not None:
            events.append(found)
    return events


def test_training_files(tmp_path: Path) -> None:
    """[PTY-030] NPZ files before Ptychodus's pair; several without a train_data.npz are refused by name."""
    assert find_training_files(tmp_path) is None
    scan = write_scan_folder(tmp_path)
    files = find_training_files(tmp_path)
    assert files is not None
    assert files.product == tmp_path / "product.h5"
    data, validation = read_training_data(files)
    np.testing.assert_allclose(data.positions, scan.positions, atol=1e-6)
    assert validation is None
    write_scan(tmp_path / "mine.npz", scan)
    files = find_training_files(tmp_path)
    assert files is not None
    assert files.train == tmp_path / "mine.npz"
    write_scan(tmp_path / "test_data.npz", scan)
    with pytest.raises(DataError, match=r"2 NPZ files: mine.npz, test_data.npz.*train_data.npz"):
        find_training_files(tmp_path)
    write_scan(tmp_path / "train_data.npz", scan)
    files = find_training_files(tmp_path)
    assert files is not None
    train, validation = read_training_data(files)
    assert len(train) == len(scan)
    assert validation is not None


def test_damaged_pair_is_refused(tmp_path: Path) -> None:
    """[PTY-043] Files that are not Ptychodus's are refused in words."""
    write_scan_folder(tmp_path)
    (tmp_path / "product.h5").write_bytes(b"nothing")
    files = find_training_files(tmp_path)
    assert files is not None
    with pytest.raises(DataError, match="cannot be read as a scan"):
        read_training_data(files)


def test_refusal_of_the_worker_is_told(tmp_path: Path) -> None:
    """[PTY-034] What the worker refuses comes back as problem and remedy, and its process ends."""
    with Worker(_job(tmp_path)) as worker:
        events = _wait(worker)
        pid = worker.pid
    error = next(e for e in events if e["event"] == "error")
    assert "no-such-backend" in error["problem"]
    assert not Path(f"/proc/{pid}").exists()


def test_printing_does_not_disturb_the_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[PTY-034] What a framework prints is kept as last lines, also at the level of file descriptors."""
    site = tmp_path / "site"
    site.mkdir()
    noise = "import os\nimport ptychopinn.plugins as p\nreal = p.discover\n"
    noise += (
        "def loud(*a):\n print('printed {\"event\"')\n os.write(1, b'written\\n')\n os._exit(7)\np.discover = loud\n"
    )
    (site / "sitecustomize.py").write_text(noise)
    monkeypatch.syspath_prepend(str(site))
    with Worker(_job(tmp_path)) as worker:
        events = _wait(worker)
        failure = worker.failure()
    assert [e for e in events if e["event"] != "log"] == []
    assert "exit code 7" in failure.problem
    assert "written" in failure.details


def test_worker_ends_when_its_parent_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[PTY-036] [PTY-038] The end of its standard input ends a worker in time, whatever it is busy with."""
    site = tmp_path / "site"
    site.mkdir()
    code = "import time\nimport ptychopinn.plugins as p\n"
    (site / "sitecustomize.py").write_text(code + "p.discover = lambda *a: time.sleep(600)\n")
    monkeypatch.syspath_prepend(str(site))
    worker = Worker(_job(tmp_path))
    time.sleep(1.0)
    assert worker._process.poll() is None
    assert worker._process.stdin is not None
    worker._process.stdin.close()
    assert worker._process.wait(timeout=15) == 124
    with worker:
        pass


def test_events_are_json_lines() -> None:
    """[PTY-035] Events go through pipes as JSON, numbers that are not finite as null; other lines are none."""
    assert parse_event(event("loss", batches=1, value=float("nan"))) == {"event": "loss", "batches": 1, "value": None}
    assert parse_event(b"Epoch 1\n") is None
    assert parse_event(b"[1]\n") is None


def _archive(path: Path, **changes: Any) -> Path:
    manifest = Manifest(
        writer=Writer(ptychopinn="0", backend="b"), model=ModelConfig(N=32), training=TrainingSummary(status="finished")
    ).model_copy(update=changes)
    write_bundle(path, with_losses(manifest, [[1, 0.5], [2, 0.25]]), {"a": np.ones(3, np.float32)})
    return path


def test_only_whole_models_of_the_type_are_loaded(tmp_path: Path) -> None:
    """[PTY-031] [PTY-046] Damaged files, checkpoints and models of another type are refused; losses are found again."""
    good = _archive(tmp_path / "good.zip")
    model = load_model(good, "pinn")
    assert model.losses == [(1, 0.5), (2, 0.25)]
    assert "N = 32, pinn, written by b, finished after 0 epochs" in model.summary
    with pytest.raises(ArchiveError, match="of the type pinn; this entry takes supervised"):
        load_model(good, "supervised")
    with pytest.raises(ArchiveError, match="checkpoint of a training"):
        load_model(_archive(tmp_path / "c.zip", kind=ArchiveKind.CHECKPOINT), "pinn")
    content = bytearray(good.read_bytes())
    content[-300] ^= 255
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(bytes(content))
    with pytest.raises(ArchiveError):
        load_model(damaged, "pinn")
    with pytest.raises(ArchiveError):
        load_model(tmp_path / "absent.zip", "pinn")


def test_exported_scan_is_read_again(tmp_path: Path) -> None:
    """[PTY-033] Exported training data are a scan file to the contract; a name without a suffix gets one."""
    from bridge_scans import make_input
    from ptychodus.api.settings import SettingsRegistry

    from ptychopinn.data.npz import read_scan
    from ptychopinn_ptychodus.reconstructor import BridgeReconstructor
    from ptychopinn_ptychodus.runs import Host
    from ptychopinn_ptychodus.settings import EntrySettings

    scan = simulated(bad_pixel_fraction=0.02)
    entry = BridgeReconstructor("b", "pinn", EntrySettings(SettingsRegistry(), "g", []), Host())
    entry.export_training_data(tmp_path / "out", make_input(scan, bad=scan.bad_pixels))
    data = read_scan(tmp_path / "out.npz")
    np.testing.assert_allclose(data.counts(slice(None)), scan.counts(slice(None)), rtol=1e-5)
    np.testing.assert_allclose(data.positions, scan.positions, atol=1e-6)
    assert os.path.getsize(tmp_path / "out.npz") > 0


def test_ptychodus_own_export_is_read(tmp_path: Path) -> None:
    """[PTY-030] Training data that Ptychodus itself exported are read as the same scan."""
    from bridge_scans import make_input
    from ptychodus.api.io import save_ptychopinn_training_data

    scan = simulated(bad_pixel_fraction=0.01)
    asked = inspect.signature(save_ptychopinn_training_data).parameters
    modes = {"multimodal_probe": True} if "multimodal_probe" in asked else {}  # 1.6 asks for it
    save_ptychopinn_training_data(tmp_path / "train_data.npz", make_input(scan, bad=scan.bad_pixels), **modes)
    files = find_training_files(tmp_path)
    assert files is not None
    data, _ = read_training_data(files)
    np.testing.assert_allclose(data.positions, scan.positions, atol=1e-6)
    np.testing.assert_array_equal(data.counts(slice(None)), scan.counts(slice(None)))
    with np.load(tmp_path / "train_data.npz") as exported:
        if "bad_pixels" in exported:  # 1.6 exports none
            np.testing.assert_array_equal(data.bad_pixels, scan.bad_pixels)
