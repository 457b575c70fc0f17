"""Full disks, limits on files, and places that may not be written to. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hardening.kit.job_runner import JobRunner, check_whole

LIMITS = {"save": (6, 60), "train": (4, 40), "infer": (3, 30)}  # short, long
RESOURCE = 4


def told_well(ending: object, *names: str) -> None:
    """A ResourceError that names a place and a remedy."""
    status, told = ending.status, ending.told  # type: ignore[attr-defined]
    assert (status, told.get("error")) == (RESOURCE, "ResourceError"), ending
    assert told["remedy"]
    assert any(name in told["text"] for name in names), told


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems may not be mounted here; the limits on file sizes are tested all the same")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("job", LIMITS)
def test_files_may_not_grow(
    job: str, jobs: JobRunner, scan: Path, trained: Path, long: bool, figure: Callable[[str], None], tmp_path: Path
) -> None:
    """[HARD-012]"""
    rng = random.Random(f"files {job}")
    largest = max(
        path.stat().st_size for path in trained.rglob("*") if path.suffix == (".h5" if job == "infer" else ".zip")
    )
    settings = {"infer": {"model": str(trained), "overwrite": True}, "train": {"overwrite": True}, "save": {}}[job]
    if job == "train":
        shutil.copytree(trained, tmp_path / "run")
    else:
        jobs.run(job, tmp_path, scan, settings=settings, kill_after=0.5 if job == "save" else None)
    what = {"save": "scan.npz", "train": "run/wts.h5.zip", "infer": "run/reconstruction.h5"}[job]
    assert (tmp_path / what).exists()
    refused = 0
    for _ in range(LIMITS[job][long]):
        limit = int(largest ** rng.uniform(0.3, 0.98)) if job != "save" else rng.randrange(1, 15_000)
        ending = jobs.run(job, tmp_path, scan, settings=settings, file_bytes=limit)
        if ending.status == 0:  # no file was that large: an epoch's checkpoint is the largest
            continue
        told_well(ending, str(tmp_path))
        refused += 1
        check_whole(tmp_path)
        assert (tmp_path / what).exists() or list((tmp_path / "run" / "checkpoints").iterdir())
    assert refused > LIMITS[job][long] / 2
    figure(f"files may not grow, {job}: {LIMITS[job][long]} limits, {refused} refused, what was there is whole")


def test_a_full_disk(
    jobs: JobRunner, scan: Path, trained: Path, figure: Callable[[str], None], small_disk: Path
) -> None:
    """[HARD-012]"""
    run, filling = small_disk / "run", small_disk / "filling"
    refusals = begun = 0
    for kept_free in (0, 4096, 20_000, 60_000, 1_000_000):
        for job, settings in (
            ("train", {"overwrite": True}),
            ("infer", {"model": str(trained), "overwrite": True}),
        ):
            filling.unlink(missing_ok=True)
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(trained, run, ignore=shutil.ignore_patterns("checkpoints", "report.html"))
            before = {p.name: p.read_bytes() for p in run.iterdir()}
            free = shutil.disk_usage(small_disk).free
            filling.write_bytes(bytes(max(free - kept_free, 0) // 4096 * 4096))
            ending = jobs.run(job, small_disk, scan, settings=settings)
            if ending.status == 0:
                continue
            told_well(ending, str(small_disk))
            refusals += 1
            if job == "train" and kept_free > 4096 and (run / "checkpoints").is_dir():
                begun += 1  # the new run had a checkpoint, from which it goes on, before the disk was full
                check_whole(run)
                assert list((run / "checkpoints").iterdir())
            else:
                assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    assert refusals >= 4
    figure(f"disk full: {refusals} runs refused, the earlier run whole or ({begun}) the new one begun")


@pytest.mark.parametrize("job", ["train", "infer", "save"])
def test_a_place_that_may_not_be_written_to(job: str, jobs: JobRunner, scan: Path, trained: Path) -> None:
    """[HARD-012]"""
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to other users
        place = Path(name)
        for folder in ("run", "model"):
            shutil.copytree(trained, place / folder)
        shutil.copy(scan, place / "scan.npz")
        for path in (place, *place.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = {p.name: p.read_bytes() for p in place.rglob("*") if p.is_file()}
        settings = {"train": {"overwrite": True}, "infer": {"model": str(place / "model"), "overwrite": True}}
        root = os.geteuid() == 0  # who may write anywhere
        ending = jobs.run(job, place, place / "scan.npz", settings=settings.get(job, {}), nobody=root)
        told_well(ending, str(place))
        assert {p.name: p.read_bytes() for p in place.rglob("*") if p.is_file()} == before
        for path in (place, *place.rglob("*")):
            path.chmod(0o755)
