"""Scans that many workers reconstruct in tiles: specs/28-tiles.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from array_libraries import StrictLibrary
from file_limits import file_limit
from tiled_workers import ARCHIVE, InThisProcess, difference, picture

from ptychopinn.config import SimulationConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import Cancelled, UsageError
from ptychopinn.geometry import Canvas, Frame
from ptychopinn.jobs import Job, JobError
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.product import read_product, write_product
from ptychopinn.refinement import RefineOptions, StartKind, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.tiled import tiled_run
from ptychopinn.workflows import RunResult

pytestmark = pytest.mark.slow

PASSES = 3
GIVEN_PROBE: dict[str, Any] = {"may_free": []}
reconstruct = partial(tiled_run, model="none")


@pytest.fixture(scope="module", autouse=True)
def _no_pictures() -> Iterator[None]:
    """They take longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptychopinn.tiled.outputs.write_pictures", lambda *_: {})
        yield


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "scan.npz"
    write_scan(path, simulate_scan(SimulationConfig(N=32, rows=26, cols=20, nphotons=1e5, seed=3)))
    return path


def settings(tiles: int, **automatic: Any) -> AllSettings[Any, Any]:
    return AllSettings(tiles={"tiles": tiles, "passes": PASSES}, automatic={**GIVEN_PROBE, **automatic})


@pytest.fixture(scope="module")
def whole(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """In one tile."""
    return reconstruct(scan, tmp_path_factory.mktemp("whole") / "out", settings(1), workers=InThisProcess())


@pytest.fixture(scope="module")
def tiled(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """In three tiles."""
    return reconstruct(scan, tmp_path_factory.mktemp("tiled") / "out", settings(3), workers=InThisProcess())


def test_tiles_give_the_picture_of_one_process(whole: RunResult, tiled: RunResult) -> None:
    """[TILE-003] To 1e-3, with the same residual."""
    assert tiled.figures["tiles"] == 3
    assert difference(picture(tiled), picture(whole)) < 1e-3
    assert tiled.figures["passes kept"] == whole.figures["passes kept"] == PASSES
    assert tiled.figures["forward residual R"] == pytest.approx(whole.figures["forward residual R"], rel=1e-4)
    assert not (whole.folder / "tiles").exists()


def test_tiles_explain_the_patterns_as_passes_over_the_whole_scan_do(tiled: RunResult, scan: Path) -> None:
    """[TILE-003] With the same probe and start; the residual is within 1%, the picture as near as noise allows."""
    product, data = read_product(tiled.files["product"]), read_scan(scan)
    frame = Frame.around(data.positions, data.N)
    start = Canvas(np.ones(frame.shape, np.complex64), frame)
    options = RefineOptions(PASSES, schedule=rpie_schedule(PASSES))
    found = refine(Patterns(data), ScanModel(product.probe, data.positions), start, options, kind=StartKind.FLAT)
    assert tiled.figures["forward residual R"] == pytest.approx(found.summary.residual_after, rel=1e-2)
    assert product.coverage is not None
    well = product.coverage > 1
    assert difference(product.object[well], np.asarray(found.object)[well]) < 2e-2


def test_a_device_makes_the_passes(
    tiled: RunResult, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[TILE-003] With batches of its own."""
    monkeypatch.setattr("ptychopinn.tiled.worker.device_library", lambda *_: StrictLibrary())
    found = reconstruct(scan, tmp_path / "out", settings(3), workers=InThisProcess())
    assert found.figures["forward residual R"] == pytest.approx(tiled.figures["forward residual R"], rel=1e-2)
    assert found.figures["forward residual R"] != tiled.figures["forward residual R"]


def test_patterns_that_cannot_be_mapped_are_copied(tiled: RunResult, scan: Path, tmp_path: Path) -> None:
    """[TILE-004]"""
    write_scan(tmp_path / "packed.npz", read_scan(scan), compress=True)
    packed = reconstruct(tmp_path / "packed.npz", tmp_path / "out", settings(3), workers=InThisProcess())
    np.testing.assert_array_equal(picture(packed), picture(tiled))


def test_a_large_picture_is_written_in_chunks(
    tiled: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[TILE-004] It is read as any other."""
    monkeypatch.setattr("ptychopinn.product._write._LARGE_BYTES", 1)
    monkeypatch.setattr("ptychopinn.product._write._CHUNK_PX", 50)
    product = read_product(tiled.files["product"])
    write_product(tmp_path / "chunks.h5", product)
    with h5py.File(tmp_path / "chunks.h5") as file:
        assert file["object"].chunks == (1, 50, 50)
    np.testing.assert_array_equal(read_product(tmp_path / "chunks.h5").object, product.object)


def test_workers_that_die_do_not_change_the_picture(tiled: RunResult, scan: Path, tmp_path: Path) -> None:
    """[TILE-005] Each job is lost once."""
    lost: set[str] = set()

    def dies(job: Job) -> bool:
        first = job.name not in lost
        lost.add(job.name)
        return first

    workers = InThisProcess(dies)
    found = reconstruct(scan, tmp_path / "out", settings(3), workers=workers)
    assert len(lost) == len(workers.done) >= 1 + 3 * (PASSES + 1)
    np.testing.assert_array_equal(picture(found), picture(tiled))


def test_a_reconstruction_that_ended_early_goes_on(tiled: RunResult, scan: Path, tmp_path: Path) -> None:
    """[TILE-005] [TILE-006] After a job that could not be done, and after a cancellation; no job is done twice."""
    workers = InThisProcess(lambda job: job.name == "pass-002, tile 3")
    with pytest.raises(JobError, match=r"pass-002, tile 3: The process was killed(.|\n)*--resume"):
        reconstruct(scan, tmp_path / "out", settings(3), workers=workers)
    monitor = Monitor(lambda event: monitor.cancel() if event.done > len(workers.done) else None)
    again = InThisProcess()
    with pytest.raises(Cancelled, match=r"of 13 jobs are done\. Continue with --resume"):
        reconstruct(scan, tmp_path / "out", settings(3), resume=True, workers=again, monitor=monitor)
    events: list[Progress] = []
    last = InThisProcess()
    found = reconstruct(scan, tmp_path / "out", settings(3), resume=True, workers=last, monitor=Monitor(events.append))
    np.testing.assert_array_equal(picture(found), picture(tiled))
    assert not set(workers.done) & {*again.done, *last.done}
    assert len(set(again.done) & set(last.done)) <= 3, "but for the round that was cancelled"
    assert events[-1].done == events[-1].total == len({*workers.done, *again.done, *last.done})


def test_other_settings_start_again(scan: Path, tmp_path: Path) -> None:
    """[TILE-006]"""
    with pytest.raises(JobError):
        reconstruct(scan, tmp_path / "out", settings(2), workers=InThisProcess(lambda job: "pass" in job.name))
    workers = InThisProcess()
    reconstruct(scan, tmp_path / "out", settings(3), resume=True, workers=workers)
    assert "start, tile 1" in workers.done


def test_the_middle_gives_probe_and_background(tmp_path: Path) -> None:
    """[TILE-002] A probe that is wrong at first; its energy is that of the whole scan."""
    data = simulate_scan(SimulationConfig(N=32, rows=14, cols=12, nphotons=1e5, seed=3))
    blurred = np.fft.ifft2(np.fft.fft2(data.probe) * np.exp(-0.5 * np.fft.fftfreq(32)[:, None] ** 2 * 36))
    write_scan(tmp_path / "wrong.npz", replace(data, probe=blurred.astype(np.complex64)))
    given, found = (
        reconstruct(
            tmp_path / "wrong.npz",
            tmp_path / name,
            AllSettings(tiles={"tiles": 2, "passes": 4}, automatic=automatic),
            workers=InThisProcess(),
        )
        for name, automatic in (("given", GIVEN_PROBE), ("found", {"may_free": ["probe"]}))
    )
    assert float(found.figures["forward residual R"]) < 0.9 * float(given.figures["forward residual R"])
    counts = data.counts(slice(None)).sum() / len(data)
    assert (np.abs(read_product(found.files["product"]).probe) ** 2).sum() == pytest.approx(counts, rel=1e-2)
    assert "Freed probe" in found.files["story"].read_text()


def test_a_full_disk_is_said(scan: Path, tmp_path: Path) -> None:
    """[TILE-005]"""
    with file_limit(40_000), pytest.raises(JobError, match="could not be written"):
        reconstruct(scan, tmp_path / "out", settings(2), workers=InThisProcess())


@pytest.mark.parametrize(
    ("tiles", "automatic", "words"),
    [
        ({"tiles": 0}, {}, "give 1 or more"),
        ({"workers": 2}, {}, "workers has no effect without tiles"),
        ({"passes": 2}, {}, "passes has no effect without tiles"),
        ({"tiles": 2}, {"max_time": 5}, "takes no max_time"),
        ({"tiles": 2}, {"uncertainty": True}, "takes no uncertainty"),
        ({"tiles": 10_000}, {}, "cannot be cut into"),
    ],
)
def test_what_is_refused_before_any_work(
    tiles: dict[str, Any], automatic: dict[str, Any], words: str, scan: Path, tmp_path: Path
) -> None:
    """[TILE-001] [TILE-007]"""
    with pytest.raises((UsageError, ValueError), match=words):
        reconstruct(scan, tmp_path / "out", AllSettings(tiles=tiles, automatic=automatic), workers=InThisProcess())
    assert not (tmp_path / "out").exists()


def test_a_network_for_patterns_of_another_width_is_refused(scan: Path, tmp_path: Path) -> None:
    """[TILE-007]"""
    with pytest.raises(UsageError, match="patterns of 64 x 64 pixels, the scan has 32 x 32"):
        tiled_run(scan, tmp_path / "out", settings(1), model=ARCHIVE)
    assert not (tmp_path / "out").exists()
