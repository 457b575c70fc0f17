"""Training: the loss falls, and every setting acts. Requirements: specs/10-training.md."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend_suite.fits import Fit, New, Trained, differs, patches_of, settings_of
from ptychopinn.bundle import read_bundle
from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError, DataError, TrainingError
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.reconstructor import TrainStatus
from ptychopinn.simulate import simulate_scan
from ptychopinn.training import LossReading, TrainingState

PROBE, OFFSET, SCALE = "illumination/probe", "illumination/offset_px", "illumination/log_intensity"


@pytest.fixture
def hasty_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which every look at it takes half a second."""
    ticks = iter(np.arange(0, 1e6, 0.5).tolist())
    monkeypatch.setattr("ptychopinn.schedule.time", SimpleNamespace(monotonic=lambda: next(ticks)))


# The result


def test_the_loss_falls_and_is_told(fit: Fit, scan: ScanDataset) -> None:
    """[REC-003]"""
    result = fit(train={"nepochs": 6, "n_groups": None, "batch_size": 1}).result
    assert result.status is TrainStatus.FINISHED
    assert result.history["epoch"] == [1, 2, 3, 4, 5, 6]
    assert {"seconds", "loss", "nll", "learning_rate"} <= set(result.history)
    assert {len(values) for values in result.history.values()} == {6}
    assert result.history["loss"][-1] < 0.8 * result.history["loss"][0]
    assert result.history["seconds"] == sorted(result.history["seconds"])
    assert result.seconds >= result.history["seconds"][-1] > 0
    assert result.patterns_seen == 6 * 7 * 4  # groups of 4 that see each of 25 patterns about once


def test_the_same_seed_gives_the_same_model(fit: Fit, base: Trained) -> None:
    """[REC-004] bit by bit."""
    again = fit()
    assert again.result.history["loss"] == base.result.history["loss"]
    for name, array in base.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array, err_msg=name)


def test_an_instance_goes_on_from_what_it_learned(fit: Fit, scan: ScanDataset) -> None:
    first = fit(train={"nepochs": 2})
    learned = first.arrays()
    again = first.reconstructor.train(scan, settings_of({"learning_rate": 1e-9, "seed": 5}))
    assert again.history["epoch"] == [1]
    for name, array in first.arrays().items():
        if name != OFFSET:
            np.testing.assert_allclose(array, learned[name], atol=1e-6, err_msg=name)


def test_going_on_with_the_light_of_another_scan(fit: Fit, scan: ScanDataset) -> None:
    """[TRAIN-012] The network as it was, the probe the model's or the scan's."""
    first = fit(train={"nepochs": 2})
    learned = first.arrays()
    other = replace(scan, probe=(scan.probe * np.exp(1j * np.linspace(-1, 1, 32) ** 2)).astype(np.complex64))
    rest = {"learning_rate": 1e-9, "seed": 5, "detector_offset": "none"}
    for start, given in (("model", scan), ("scan", other)):
        first.reconstructor.train(other, settings_of({**rest, "start_probe": start}))
        found = first.arrays()
        for name in learned:
            if name.startswith("network/"):
                np.testing.assert_allclose(found[name], learned[name], atol=1e-6, err_msg=name)
        expected = given.probe / np.linalg.norm(given.probe)
        assert np.abs(found[PROBE] - expected).max() < 2e-2 * np.abs(expected).max()


def test_going_on_from_no_model_is_refused(new: New, scan: ScanDataset) -> None:
    """[TRAIN-012]"""
    with pytest.raises(ConfigError, match="start_probe is scan, but this training does not continue from a model"):
        new().train(scan, settings_of({"start_probe": "scan"}))


def test_the_average_is_of_the_offset_too(fit: Fit, off_centre: ScanDataset) -> None:
    """[TRAIN-003] What an archive holds is averaged as one."""
    runs = [fit(data=off_centre, train={"nepochs": 12, "weight_averaging": decay}) for decay in (0.0, 0.5)]
    newest, averaged = (run.arrays()[OFFSET] for run in runs)
    assert runs[0].result.history["loss"] == runs[1].result.history["loss"]
    assert np.abs(averaged - newest).max() > 1e-4


# Settings


def test_schedulers_differ(fit: Fit, base: Trained) -> None:
    assert differs(fit(train={"scheduler": "exponential"}), base)
    rates = fit(train={"scheduler": "constant", "nepochs": 2}).result.history["learning_rate"]
    assert rates == pytest.approx([0.02 * 5 / 50, 0.02 * 9 / 50])  # still warming up


def test_the_seed_of_the_subsample_acts(fit: Fit) -> None:
    one, other = (fit(train={"n_subsample": 12, "subsample_seed": seed}) for seed in (0, 1))
    assert differs(one, other)


def test_accumulated_batches_make_fewer_steps(fit: Fit) -> None:
    rates = [
        fit(train={"scheduler": "constant", "accumulate_grad_batches": n}).result.history["learning_rate"][0]
        for n in (1, 2, 3)
    ]
    # four batches: 4, 2 and 2 steps
    assert rates == pytest.approx([0.02 * 5 / 50, 0.02 * 3 / 50, 0.02 * 3 / 50])


def test_the_probe_mask_is_a_circle(fit: Fit, scan: ScanDataset) -> None:
    filled = replace(scan, probe=scan.probe + 0.05 * np.abs(scan.probe).max())
    plain, masked = (fit(model={"probe_mask": mask}, data=filled).arrays()[PROBE] for mask in (False, True))
    y, x = np.indices((32, 32)) - 15.5
    outside = y**2 + x**2 > 16**2
    assert np.abs(plain[:, outside]).min() > 0
    assert np.abs(masked[:, outside]).max() == 0
    assert np.abs(masked[:, ~outside]).min() > 0


# The physics set free


def test_the_probe_moves_only_if_it_may(fit: Fit, base: Trained, scan: ScanDataset) -> None:
    """[PROBE-002]"""
    fixed, free = base.arrays()[PROBE], fit(train={"probe_trainable": True, "nepochs": 3}).arrays()[PROBE]
    unit = scan.probe / np.linalg.norm(scan.probe)
    np.testing.assert_allclose(fixed / np.linalg.norm(fixed), unit, atol=1e-6)
    assert np.abs(free / np.linalg.norm(free) - unit).max() > 1e-4


def test_the_scale_moves_only_if_it_may(fit: Fit, base: Trained) -> None:
    """[PROBE-002]"""
    assert base.arrays()[SCALE][0] == 0
    assert fit(train={"intensity_scale_trainable": True}).arrays()[SCALE][0] != 0


def test_the_detectors_offset(fit: Fit, off_centre: ScanDataset) -> None:
    """[PROBE-003]"""
    none, once, followed = (
        fit(train={"detector_offset": how, "nepochs": 2}, data=off_centre).arrays()[OFFSET]
        for how in ("none", "estimate", "train")
    )
    np.testing.assert_array_equal(none, [0, 0])
    np.testing.assert_allclose(once, [1.5, -1.0], atol=0.25)
    assert 0 < np.abs(followed - once).max() < 0.5


def test_a_wrong_probe_is_refined(fit: Fit, scan: ScanDataset) -> None:
    """[PROBE-001] Towards the true one, at the same energy; a right one stays as it is."""
    y, x = (np.indices((32, 32)) - 15.5) / 8
    wrong = replace(scan, probe=(scan.probe * np.exp(2j * (y**2 + x**2))).astype(np.complex64))
    plain, refined = (fit(train={"probe_refinement": n}, data=wrong).arrays()[PROBE] for n in (0, 12))
    assert np.linalg.norm(refined) == pytest.approx(np.linalg.norm(plain), rel=1e-3)
    likeness = [abs(np.vdot(probe, scan.probe)) / np.linalg.norm(scan.probe) for probe in (plain, refined)]
    assert likeness[0] < 0.97 < likeness[1]
    right = fit(train={"probe_refinement": 3}).arrays()[PROBE]
    np.testing.assert_allclose(right, scan.probe / np.linalg.norm(scan.probe), atol=1e-3)


# Simulated objects, known objects


def test_simulated_objects_alone(fit: Fit, base: Trained, scan: ScanDataset) -> None:
    """[TRAIN-007] No measured pattern is looked at: what they hold does not matter, only their mean."""
    found = fit(train={"simulate_objects": "only"})
    assert found.result.history["loss"] == found.result.history["simulated"]
    assert "nll" not in found.result.history
    assert found.result.patterns_seen == 4 * 2 * 4
    turned = replace(scan, patterns=np.asarray(scan.patterns)[::-1].copy())
    assert not differs(fit(train={"simulate_objects": "only"}, data=turned), found)
    assert differs(fit(train={"simulate_objects": "only", "seed": 1}), found)


def test_simulated_and_measured_patterns_mixed(fit: Fit) -> None:
    """[TRAIN-007]"""
    result = fit(train={"simulate_objects": "mixed"}).result
    (total,), (nll,), (simulated,) = (result.history[name] for name in ("loss", "nll", "simulated"))
    assert total == pytest.approx(nll + simulated, rel=1e-5)
    assert result.patterns_seen == 2 * 4 * 2 * 4


def test_the_probes_of_simulated_patterns(fit: Fit, scan: ScanDataset) -> None:
    """[TRAIN-011] The scan's, around it, or any; the scan's does not matter to a family."""

    def trained(probes: str, data: ScanDataset = scan) -> Trained:
        return fit(train={"simulate_objects": "only", "simulate_probes": probes, "detector_offset": "none"}, data=data)

    own, around, family = (trained(probes) for probes in ("scan", "around", "family"))
    assert differs(own, around)
    assert differs(around, family)
    other = replace(scan, probe=(scan.probe * np.exp(1j * np.linspace(-1, 1, 32) ** 2)).astype(np.complex64))
    assert differs(trained("around", other), around, "network/")
    assert not differs(trained("family", other), family, "network/")


def test_simulated_objects_need_no_known_object(fit: Fit, scan: ScanDataset) -> None:
    """[TRAIN-007]"""
    bare = replace(scan, object_guess=None)
    result = fit(model={"model_type": "supervised"}, train={"simulate_objects": "only"}, data=bare).result
    assert result.status is TrainStatus.FINISHED


def test_supervised_training_learns_the_known_object(fit: Fit) -> None:
    settings = {"nepochs": 5, "n_groups": None, "batch_size": 1}
    history = fit(model={"model_type": "supervised"}, train=settings).result.history
    assert history["loss"] == history["realspace_mae"]
    assert history["loss"][-1] < 0.9 * history["loss"][0]


@pytest.mark.parametrize("constant", [None, 1.0])
def test_supervised_training_without_a_known_object_is_refused(
    fit: Fit, scan: ScanDataset, constant: float | None
) -> None:
    """[TRAIN-008] A constant objectGuess is a placeholder."""
    assert scan.object_guess is not None
    guess = None if constant is None else np.full_like(scan.object_guess, constant)
    with pytest.raises(DataError, match="neither objectGuess nor Y" if constant is None else "placeholder"):
        fit(model={"model_type": "supervised"}, data=replace(scan, object_guess=guess))
    with pytest.raises(DataError, match="known object"):
        fit(train={"realspace_mae_weight": 1.0}, data=replace(scan, object_guess=guess))


# When it ends


@pytest.mark.usefixtures("hasty_clock")
def test_the_time_ends_a_training(fit: Fit) -> None:
    """[TRAIN-002] Without nepochs there is no other end; both are looked at after every step."""
    result = fit(train={"max_time": 20.0, "nepochs": None}).result
    assert result.status is TrainStatus.TIMED_OUT
    assert 20 <= result.seconds < 25
    assert len(result.history["epoch"]) >= 1


def test_cancelling_ends_a_training_at_the_next_step(fit: Fit, scan: ScanDataset) -> None:
    """[TRAIN-002] [REC-009] with status, history and a model that predicts."""
    seen: list[Progress] = []

    def listen(progress: Progress) -> None:
        seen.append(progress)
        if progress.done == 6:
            monitor.cancel()

    monitor = Monitor(listen)
    found = fit(train={"nepochs": 5}, monitor=monitor)
    assert found.result.status is TrainStatus.CANCELLED
    assert [p.done for p in seen] == [1, 2, 3, 4, 5, 6]
    assert {(p.stage, p.total) for p in seen} == {("train", 20)}
    assert set(seen[0].figures) == {"epoch", "loss"}
    assert found.result.history["epoch"] == [1, 2]
    assert np.isfinite(found.patches(scan)).all()


def test_cancelled_before_it_began(fit: Fit, scan: ScanDataset) -> None:
    """[REC-009] [REC-003] The columns are there, and the model is the untrained one."""
    monitor = Monitor()
    monitor.cancel()
    found = fit(monitor=monitor)
    assert found.result.status is TrainStatus.CANCELLED
    assert {name: found.result.history[name] for name in ("epoch", "seconds", "loss")} == {
        "epoch": [],
        "seconds": [],
        "loss": [],
    }
    assert found.result.patterns_seen == 0
    assert np.abs(found.patches(scan) - 1).max() < 0.2


@pytest.mark.parametrize(
    ("figure", "mode", "epochs"),
    [("seconds", "min", 3), ("seconds", "max", 5), ("learning_rate", "min", 5), ("learning_rate", "max", 3)],
)
def test_early_stopping_watches_its_figure(fit: Fit, figure: str, mode: str, epochs: int) -> None:
    """[TRAIN-002] Two epochs without a better one end it. Seconds only rise, this learning rate only falls."""
    settings = {
        "nepochs": 5,
        "early_stopping_patience": 2,
        "checkpoint_monitor": figure,
        "checkpoint_mode": mode,
        "scheduler": "exponential",
    }
    result = fit(train=settings).result
    assert len(result.history["epoch"]) == epochs
    assert result.status is (TrainStatus.STOPPED_EARLY if epochs < 5 else TrainStatus.FINISHED)


def test_the_loss_is_watched_when_nothing_else_is_said(fit: Fit) -> None:
    """At a rate that learns nothing the loss of the same groups stays where it is."""
    settings = {"nepochs": 9, "early_stopping_patience": 1, "learning_rate": 1e-12, "weight_averaging": 0.0}
    result = fit(train=settings).result
    losses = result.history["loss"]
    worse = next(i for i in range(1, 9) if losses[i] >= min(losses[:i]))
    assert len(losses) == worse + 1
    assert result.status is TrainStatus.STOPPED_EARLY


def test_the_model_kept_is_the_best_one(fit: Fit) -> None:
    """[TRAIN-003] By the monitored figure, where one is asked for: the first epoch's or the last's."""
    settings = {"nepochs": 2, "early_stopping_patience": 9, "checkpoint_monitor": "seconds", "seed": 4}
    first, last = (fit(train={**settings, "checkpoint_mode": mode}) for mode in ("min", "max"))
    newest = fit(train={"nepochs": 2, "seed": 4})
    assert differs(first, last)
    assert not differs(last, newest)


@pytest.mark.parametrize("simulated", ["off", "only"])
def test_a_figure_that_is_not_there_is_refused_before_any_work(fit: Fit, simulated: str) -> None:
    seen: list[Progress] = []
    settings = {"checkpoint_monitor": "validation_loss", "simulate_objects": simulated}
    with pytest.raises(ConfigError, match=r"'validation_loss' is not a figure .* auto, epoch, .*loss, (nll|simulated)"):
        fit(train=settings, monitor=Monitor(seen.append))
    assert seen == []


# Validation


def test_validation_by_a_region_of_the_scan(fit: Fit) -> None:
    """[TRAIN-004]"""
    history = fit(train={"validation_fraction": 0.3, "nepochs": 2}).result.history
    assert len(history["validation_loss"]) == 2
    assert all(math.isfinite(value) for value in history["validation_loss"])


def test_validation_by_another_scan(fit: Fit, base: Trained) -> None:
    """It judges, and moves no weight: the model kept is the best by its loss."""
    other = simulate_scan(SimulationConfig(N=32, rows=4, cols=4, seed=9))
    found = fit(validation=other)
    assert len(found.result.history["validation_loss"]) == 1
    assert not differs(found, base)
    with pytest.raises(DataError, match="64 x 64; this model has N = 32"):
        fit(validation=simulate_scan(SimulationConfig(N=64, rows=3, cols=3)))


def test_a_validation_that_ends_in_the_middle(fit: Fit) -> None:
    """Cancelled in an epoch, the figure that ranks it is still there."""
    monitor = Monitor(lambda progress: monitor.cancel() if progress.done == 6 else None)
    settings = {"validation_fraction": 0.3, "nepochs": 5, "checkpoint_monitor": "validation_loss"}
    result = fit(train=settings, monitor=monitor).result
    assert result.status is TrainStatus.CANCELLED
    assert len(result.history["validation_loss"]) == 2
    assert all(math.isfinite(value) for value in result.history["validation_loss"])


# Execution


def test_low_precision_trains_nearly_the_same(fit: Fit, base: Trained, scan: ScanDataset) -> None:
    """[TRAIN-010]"""
    low = fit(options={"precision": "bf16"})
    assert low.result.history["loss"] != base.result.history["loss"]
    assert low.result.history["loss"] == pytest.approx(base.result.history["loss"], rel=0.1)
    np.testing.assert_allclose(low.patches(scan), base.patches(scan), atol=0.15)


def test_workers_change_nothing(fit: Fit, trained: Trained) -> None:
    shared = fit(train={"nepochs": 3}, options={"num_workers": 2})
    assert not differs(shared, trained)
    assert shared.result.history["loss"] == trained.result.history["loss"]


# What goes wrong


@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_loss_that_is_not_finite_ends_it_with_the_last_good_weights(
    new: New, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """[TRAIN-006]"""
    original, calls = TrainingState.record, itertools.count()

    def broken(self: TrainingState, reading: LossReading) -> None:
        number = next(calls)
        original(self, reading if number < step else replace(reading, not_finite=(number, math.nan)))

    monkeypatch.setattr(TrainingState, "record", broken)
    made = new()
    with pytest.raises(TrainingError, match=rf"The loss is nan at step {step} of epoch {step // 4};.*--learning-rate"):
        made.train(scan, settings_of({"nepochs": 3}))
    assert np.isfinite(patches_of(made, scan)).all()


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ({}, {"nll_weight": 0}, "ignores the data"),
        ({"model_type": "supervised"}, {"nll_weight": 1, "realspace_mae_weight": 0}, "realspace_mae_weight above 0"),
        ({}, {"simulate_objects": "only", "probe_trainable": True}, "probe_trainable has no effect"),
        ({}, {"neighbor_count": 2}, "neighbor_count is 2"),
        ({}, {"n_subsample": 26}, "n_subsample is 26"),
        ({"group_size": 26}, {}, "A group has 26 patterns"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    fit: Fit, model: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    """[CFG-005] [CFG-010]"""
    with pytest.raises(ConfigError, match=message) as caught:
        fit(model=model, train=settings)
    assert caught.value.remedy


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_patterns_are_refused(fit: Fit, scan: ScanDataset, count: int) -> None:
    with pytest.raises(DataError, match=f"has {count} pattern"):
        fit(data=scan.select(np.arange(count)))


def test_bad_pixels_carry_no_loss(fit: Fit, scan: ScanDataset) -> None:
    """[LOSS-003]"""
    bad = np.zeros((32, 32), bool)
    bad[10:14, 12:20] = True
    harmed = np.asarray(scan.patterns).copy()
    harmed[:, bad] = 60000
    clean, dirty = (fit(data=replace(scan, bad_pixels=bad, patterns=p)) for p in (scan.patterns, harmed))
    assert not differs(clean, dirty)
    assert clean.result.history["loss"] == dirty.result.history["loss"]


def test_probes_of_several_modes_train(fit: Fit) -> None:
    scan = simulate_scan(SimulationConfig(N=32, rows=4, cols=4, seed=1, probe_modes=3))
    found = fit(train={"probe_trainable": True}, data=scan)
    assert found.arrays()[PROBE].shape == (3, 32, 32)
    assert np.isfinite(found.patches(scan)).all()


def test_nothing_is_written_without_a_folder(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit()
    assert list(tmp_path.iterdir()) == []


def test_the_device_says_what_nobody_else_does(
    new: New, scan: ScanDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[CFG-011] Logged, and in the summary of the archive; no batch is larger than an epoch."""
    made = new()
    monkeypatch.setattr(type(made), "on_gpu", True)
    with caplog.at_level("INFO", logger="ptychopinn"):
        made.train(scan, settings_of({"batch_size": None, "learning_rate": None}))
    assert f"Training in batches of 8 groups at a learning rate of 0.003 on {made.device}." in caplog.text
    made.save(tmp_path / "model.zip")
    summary = read_bundle(tmp_path / "model.zip").manifest.training
    assert summary is not None
    assert summary.config is not None
    assert (summary.config["batch_size"], summary.config["learning_rate"]) == (64, 3e-3)
