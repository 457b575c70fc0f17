"""Killed at random moments: files are the old or the new ones, trainings go on. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hardening.kit.job_runner import GONE_SECONDS, KILLED, JobRunner, check_whole, outcome, wait_for_the_end

from ptychopinn.batch import batch_run, read_plan
from ptychopinn.bundle import read_bundle
from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.jobs.memory import descendants
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan

KILLS = {  # short, long
    "save": (6, 120),
    "train": (3, 30),
    "replace": (2, 30),
    "infer": (2, 40),
    "stream": (2, 20),
    "compare": (0, 10),
}
BATCH_SCANS, BATCH_KILL_S = 60, 10.0


def leftovers(folder: Path) -> list[str]:
    """Hidden files, of writers and runs."""
    return sorted(p.name for p in folder.rglob(".*"))


def test_killed_while_saving(
    jobs: JobRunner, scan: Path, long: bool, figure: Callable[[str], None], tmp_path: Path
) -> None:
    """[HARD-010] [ARC-007]"""
    rng = random.Random(10)
    kills = KILLS["save"][long]
    seen, longest, files = 0, 0.3, {"model.zip", "product.h5", "scan.npz", "config.yaml"}
    while not files <= {path.name for path in tmp_path.iterdir()}:  # until the first of each is there
        longest *= 2
        assert jobs.run("save", tmp_path, scan, kill_after=longest).status == KILLED
        assert longest < 60
    for _ in range(kills):
        ending = jobs.run("save", tmp_path, scan, kill_after=rng.uniform(0.01, longest / 2))
        assert ending.status == KILLED, ending
        seen += check_whole(tmp_path)
    assert files <= {path.name for path in tmp_path.iterdir()}
    figure(
        f"killed while saving: {kills}, {seen} files looked at, all whole; {len(leftovers(tmp_path))} half ones aside"
    )


def test_killed_while_training(
    jobs: JobRunner,
    scan: Path,
    trained: Path,
    seconds: float,
    long: bool,
    figure: Callable[[str], None],
    tmp_path: Path,
) -> None:
    """[HARD-010] [HARD-011] [TRAIN-005]"""
    rng = random.Random(11)
    left, resumed, trainings = KILLS["train"][long], 0, 0
    history, weights = outcome(trained)
    while left > 0:
        trainings += 1
        folder = tmp_path / str(trainings)
        for _ in range(rng.choice((1, 1, 2))):  # some are killed again while they resume
            begun = (folder / "run" / "config.yaml").exists()
            again = {"resume": True} if begun else {"overwrite": True}
            ending = jobs.run("train", folder, scan, kill_after=rng.uniform(0, 1) * seconds, settings=again)
            left -= ending.status == KILLED
            if (folder / "run").exists():
                check_whole(folder)
        begun = (folder / "run" / "config.yaml").exists()
        resumed += begun
        ending = jobs.run("train", folder, scan, settings={"resume": True} if begun else {"overwrite": True})
        assert ending.status == 0, ending
        assert leftovers(folder) == []
        found_history, found = outcome(folder / "run")
        assert found_history == history
        assert found.keys() == weights.keys()
        assert all(np.array_equal(found[name], weights[name]) for name in weights), "other weights"
        shutil.rmtree(folder)
    kills = KILLS["train"][long] - left
    figure(
        f"killed while training: {kills}, {trainings} trainings, {resumed} resumed; all with the same end, bit by bit"
    )


def test_killed_while_replacing_a_run(
    jobs: JobRunner,
    scan: Path,
    trained: Path,
    seconds: float,
    long: bool,
    figure: Callable[[str], None],
    tmp_path: Path,
) -> None:
    """[HARD-010] [HARD-013]"""
    rng = random.Random(12)
    old, new = read_bundle(trained / "wts.h5.zip").weights, 0
    for k in range(KILLS["replace"][long]):
        folder = tmp_path / str(k)
        shutil.copytree(trained, folder / "run")
        # most refusals and file moves are at the beginning
        after = rng.uniform(0, 1) ** 2 * seconds
        changed = {"overwrite": True, "train": {"seed": 77}}
        ending = jobs.run("train", folder, scan, kill_after=after, settings=changed)
        check_whole(folder)
        places = [folder / "run" / part / "wts.h5.zip" for part in (".", ".replaced", ".moving")]
        models = [read_bundle(path).weights for path in places if path.exists()]
        is_old = any(all(np.array_equal(m[name], old[name]) for name in old) for m in models)
        begun = list((folder / "run" / "checkpoints").glob("epoch*"))
        assert is_old or begun or models, "the old run is gone and the new one is not there"
        if ending.status == KILLED:  # whatever there is, a run in the same place brings order
            refused = jobs.run("train", folder, scan)
            assert (refused.status, refused.told["error"]) == (2, "UsageError"), refused
            assert leftovers(folder) == []
            assert (folder / "run" / "config.yaml").exists()
            check_whole(folder)
        new += not is_old
        shutil.rmtree(folder)
    figure(f"killed while replacing a run: {KILLS['replace'][long]}, the old one whole or ({new}) the new one begun")


def test_killed_while_inferring(
    jobs: JobRunner, scan: Path, trained: Path, long: bool, figure: Callable[[str], None], tmp_path: Path
) -> None:
    """[HARD-010]"""
    rng = random.Random(13)
    settings = {"model": str(trained), "overwrite": True}
    plain = jobs.run("infer", tmp_path, scan, settings=settings, pictures=True)
    assert plain.status == 0, plain
    kills, whole = 0, read_product(tmp_path / "run" / "reconstruction.h5").object
    while kills < KILLS["infer"][long]:
        after = rng.uniform(0, 1) * plain.seconds
        ending = jobs.run("infer", tmp_path, scan, kill_after=after, settings=settings, pictures=True)
        kills += ending.status == KILLED
        check_whole(tmp_path)
        products = [p for p in tmp_path.rglob("reconstruction.h5") if ".part" not in p.name]
        assert products
        assert all(np.array_equal(read_product(p).object, whole) for p in products)
    assert jobs.run("infer", tmp_path, scan, settings=settings).status == 0
    assert leftovers(tmp_path) == []
    figure(f"killed while inferring: {kills}, the earlier reconstruction always whole")


def test_killed_while_streaming(
    jobs: JobRunner, scan: Path, trained: Path, long: bool, figure: Callable[[str], None], tmp_path: Path
) -> None:
    """[HARD-010]"""
    rng = random.Random(16)
    settings = {"model": str(trained)}
    plain = jobs.run("stream", tmp_path, scan, settings=settings, pictures=True)
    assert plain.status == 0, plain
    kills = files = 0
    while kills < KILLS["stream"][long]:
        after = rng.uniform(0, 1) * plain.seconds
        ending = jobs.run("stream", tmp_path, scan, kill_after=after, settings=settings, pictures=True)
        kills += ending.status == KILLED
        files += check_whole(tmp_path)
    assert jobs.run("stream", tmp_path, scan, settings=settings).status == 0
    assert leftovers(tmp_path) == []
    figure(f"killed while streaming: {kills}, {files} files looked at, all whole")


def test_killed_while_comparing(
    jobs: JobRunner, scan: Path, long: bool, figure: Callable[[str], None], tmp_path: Path
) -> None:
    """[HARD-010] [HARD-031]"""
    if not long:
        pytest.skip("in the long form")
    rng = random.Random(17)
    plain = jobs.run("compare", tmp_path / "plain", scan, settings={"resume": False})
    assert plain.status == 0, plain
    kills, processes = 0, 0
    while kills < KILLS["compare"][long]:
        begun = (tmp_path / "killed" / "run").exists()
        after = rng.uniform(0, 0.6) * plain.seconds
        ending = jobs.run("compare", tmp_path / "killed", scan, kill_after=after, settings={"resume": begun})
        if ending.status != KILLED:
            assert ending.status == 0, ending
            shutil.rmtree(tmp_path / "killed")
            continue
        kills += 1
        processes += len(ending.others)
        assert wait_for_the_end(ending.others) < GONE_SECONDS
        if (tmp_path / "killed" / "run").exists():
            check_whole(tmp_path / "killed")
    assert processes > 0, "no candidate was at work"
    ending = jobs.run("compare", tmp_path / "killed", scan, settings={"resume": True})
    assert ending.status == 0, ending
    tables = [(tmp_path / name / "run" / "comparison_metrics.csv").read_text() for name in ("plain", "killed")]
    assert len({text.count("\n") for text in tables}) == 1
    figure(f"killed while comparing: {kills}, with {processes} of its processes, which ended too; resumed to the end")


def test_killed_workers_of_a_batch(long: bool, figure: Callable[[str], None], tmp_path: Path) -> None:
    """[HARD-010] [JOB-007] A worker every ten seconds: each result is that of a quiet batch, byte by byte."""
    if not long:
        pytest.skip("in the long form")
    for seed in range(BATCH_SCANS):
        write_scan(tmp_path / f"s{seed}.npz", simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=seed)))
    batch = {"start": "none", "workers": 2, "retries": 100}
    plan = read_plan(tmp_path / "s*.npz", batch=batch, automatic={"may_free": []})
    assert not batch_run(plan, tmp_path / "quiet").failed
    kills, ended = 0, threading.Event()

    def kill() -> None:
        nonlocal kills
        rng = random.Random(18)
        while not ended.wait(BATCH_KILL_S):
            for pid in descendants(os.getpid()):
                with contextlib.suppress(OSError):  # it has just ended
                    if b"ptychopinn.jobs.worker" in Path(f"/proc/{pid}/cmdline").read_bytes() and rng.random() < 0.7:
                        os.kill(pid, signal.SIGKILL)
                        kills += 1
                        break

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = batch_run(plan, tmp_path / "killed")
    finally:
        ended.set()
        killer.join()
    assert kills > 2
    assert not result.failed
    for one in result.scans:
        quiet = tmp_path / "quiet/scans" / one.name / "reconstruction.h5"
        assert (one.folder / "reconstruction.h5").read_bytes() == quiet.read_bytes(), one.name
    assert leftovers(tmp_path / "killed") == []
    figure(f"killed workers of a batch of {BATCH_SCANS}: {kills}; every result as of a quiet batch")


def test_a_half_file_is_noticed(jobs: JobRunner, trained: Path, tmp_path: Path) -> None:
    """What looks at the files would see one that is cut."""
    for name in ("wts.h5.zip", "reconstruction.h5", "config.yaml", "scan.json", "report.html"):
        folder = tmp_path / name
        shutil.copytree(trained, folder)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2] + b"\n" * (name == "config.yaml") + b"{")
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever its reader says
            check_whole(folder)


def test_a_resumed_training_does_not_choose_its_probe_again(jobs: JobRunner, scan: Path, tmp_path: Path) -> None:
    """[HARD-015]"""
    for nepochs, resume in ((2, False), (4, True)):
        changed = {"resume": resume, "train": {"nepochs": nepochs, "probe_trainable": True}}
        ending = jobs.run("train", tmp_path, scan, settings=changed)
        assert ending.status == 0, ending
    log = (tmp_path / "run" / "run.log").read_text()
    assert log.count("Probe: forward residual") == 1
    assert "Resuming after epoch 2" in log
