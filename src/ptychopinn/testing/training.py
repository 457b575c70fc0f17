"""Tests of training: learning, progress, cancellation, resuming, and independence of instances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychopinn.config import InferConfig
from ptychopinn.config.model import ModelType
from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import DataError
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.reconstructor import Capability, TrainStatus
from ptychopinn.testing.backend import BackendSuite, Trained, difference

COLUMNS = ("epoch", "seconds", "loss")


class _KilledError(Exception):
    """Ends a training like a kill."""


class TrainingConformance(BackendSuite):
    """Tests of `train`."""

    def test_the_loss_falls(self, learned: Trained) -> None:
        """[CONF-020] [REC-003]"""
        losses = learned.result.history["loss"]
        assert losses[-1] < self.tolerances.fall * losses[0]

    def test_the_history_has_its_columns(self, trained: Trained) -> None:
        """[CONF-020] [REC-003] One entry an epoch, all of them numbers."""
        history = trained.result.history
        assert set(COLUMNS) <= set(history)
        assert trained.result.status is TrainStatus.FINISHED
        epochs = self.train_config().nepochs
        assert epochs is not None
        assert history["epoch"] == list(range(1, epochs + 1))
        assert {len(column) for column in history.values()} == {epochs}
        assert all(np.isfinite(column).all() for column in history.values())
        assert trained.result.patterns_seen > 0

    @pytest.mark.parametrize("model_type", list(ModelType))
    def test_it_trains_each_model_type(self, scan: ScanDataset, model_type: ModelType) -> None:
        """[CONF-020]"""
        self.needs(Capability(model_type.value))
        found = self.fit(scan, model={"model_type": model_type})
        assert found.result.status is TrainStatus.FINISHED
        assert np.isfinite(found.patches(scan)).all()

    def test_it_trains_on_every_size(self, size: int) -> None:
        """[CONF-021] [REC-005] Nine patterns of each N."""
        scan = self.make_scan(N=size, rows=3, cols=3)
        found = self.fit(scan, model={"N": size, "gridsize": 2}, train={"nepochs": 1, "batch_size": 3})
        prediction = found.reconstructor.infer(scan, InferConfig())
        batches = list(prediction.batches)
        assert 0 < prediction.patch_size <= size
        assert {tuple(b.patches.shape[1:]) for b in batches} == {(prediction.patch_size, prediction.patch_size)}
        assert all(np.isfinite(prediction.library.to_host(b.patches)).all() for b in batches)

    def test_the_same_training_gives_the_same_model(self, scan: ScanDataset, trained: Trained) -> None:
        """[CONF-022] [REC-004]"""
        again = self.fit(scan)
        assert difference(again.patches(scan), trained.patches(scan)) <= self.tolerances.repeated
        assert again.result.history["loss"] == pytest.approx(
            trained.result.history["loss"], rel=self.tolerances.repeated, abs=0
        )

    def test_two_instances_do_not_disturb_each_other(self, scan: ScanDataset) -> None:
        """[CONF-023] [REC-002] One is trained while the other predicts."""
        one = self.fit(scan)
        before = one.patches(scan, inference_batch_size=10)
        prediction = one.reconstructor.infer(scan, InferConfig(inference_batch_size=10))
        stream, to_host = prediction.batches, prediction.library.to_host
        after = np.zeros_like(before)
        first = next(stream)
        after[first.indices] = to_host(first.patches)
        other = self.fit(self.make_scan(seed=9), train={"seed": 5, "nepochs": 3})
        for batch in stream:
            after[batch.indices] = to_host(batch.patches)
        assert difference(other.patches(scan, inference_batch_size=10), before) > 1e-4, "both are the same"
        assert difference(after, before) <= self.tolerances.rounding
        assert difference(one.patches(scan, inference_batch_size=10), before) <= self.tolerances.rounding

    # Progress and cancellation

    def test_training_tells_how_far_it_is(self, scan: ScanDataset) -> None:
        """[CONF-024] [REC-009] [MON-001] Reports only go forward, and the last is the end."""
        seen: list[Progress] = []
        self.fit(scan, monitor=Monitor(seen.append))
        _check_progress([p for p in seen if p.stage == "train"])

    def test_a_cancelled_training_can_be_used(self, scan: ScanDataset, tmp_path: Path) -> None:
        """[CONF-025] [REC-009] It ends at the step at which it was cancelled, and its model is saved and predicts."""
        seen: list[Progress] = []

        def listen(progress: Progress) -> None:
            if progress.stage == "train":
                seen.append(progress)
                if len(seen) == 3:
                    monitor.cancel()

        monitor = Monitor(listen)
        found = self.fit(scan, train={"nepochs": 200}, monitor=monitor)
        assert found.result.status is TrainStatus.CANCELLED
        assert len(seen) == 3
        found.reconstructor.save(tmp_path / "model")
        assert np.isfinite(Trained(self.load(tmp_path / "model"), found.result).patches(scan)).all()

    def test_cancelled_before_it_begins_it_can_be_used(self, scan: ScanDataset, tmp_path: Path) -> None:
        """[CONF-025] [REC-009] No epoch is in its history."""
        monitor = Monitor()
        monitor.cancel()
        found = self.fit(scan, monitor=monitor)
        assert found.result.status is TrainStatus.CANCELLED
        assert [list(found.result.history[name]) for name in COLUMNS] == [[], [], []]
        found.reconstructor.save(tmp_path / "model")
        assert np.isfinite(found.patches(scan)).all()

    def test_a_killed_training_is_resumed(self, scan: ScanDataset, tmp_path: Path) -> None:
        """[CONF-026] [TRAIN-005] From its last checkpoint, with the history of a training that was not killed."""
        self.needs(Capability.RESUME)
        settings = {"nepochs": 4, "checkpoint_every": 1}

        def kill(progress: Progress) -> None:
            if progress.stage == "train" and progress.done > progress.total / 2:
                raise _KilledError

        with pytest.raises(_KilledError):
            self.fit(scan, train=settings, checkpoint_dir=tmp_path, monitor=Monitor(kill))
        seen: list[Progress] = []
        resumed = self.fit(scan, train=settings, checkpoint_dir=tmp_path, monitor=Monitor(seen.append))
        first = next(p for p in seen if p.stage == "train")
        assert first.done > first.total / 2, "it began anew"
        whole = self.fit(scan, train=settings)
        assert resumed.result.history["epoch"] == [1, 2, 3, 4]
        assert resumed.result.history["loss"] == pytest.approx(whole.result.history["loss"], rel=1e-4)
        assert resumed.result.patterns_seen == whole.result.patterns_seen
        assert difference(resumed.patches(scan), whole.patches(scan)) < 1e-3

    # The data

    @pytest.mark.parametrize("act", ["train", "infer"])
    def test_the_scan_is_left_as_it_was(self, scan: ScanDataset, pristine_scan: ScanDataset, act: str) -> None:
        """[CONF-027] [DATA-001]"""
        if act == "train":
            self.fit(scan)
        else:
            self.fit(self.make_scan(seed=2)).patches(scan)
        for name in ("patterns", "positions", "probe", "object_guess", "bad_pixels", "scan_index"):
            np.testing.assert_array_equal(getattr(scan, name), getattr(pristine_scan, name), err_msg=name)

    def test_a_validation_is_told_of(self, scan: ScanDataset) -> None:
        """[CONF-020] [TRAIN-004] By another scan, and by a region of the same."""
        for settings, other in (({}, self.make_scan(rows=3, cols=4, seed=4)), ({"validation_fraction": 0.3}, None)):
            history = self.fit(scan, train=settings, validation=other).result.history
            assert len(history["validation_loss"]) == len(history["epoch"])
            assert np.isfinite(history["validation_loss"]).all()

    def test_what_stands_at_bad_pixels_does_not_matter(self, scan: ScanDataset) -> None:
        """[CONF-028] [LOSS-003] Neither in training nor in prediction."""
        bad = np.zeros((scan.N, scan.N), bool)
        bad[scan.N // 3, :] = bad[scan.N // 2 + 1, scan.N // 4 : scan.N // 2 + 2] = True
        patterns = np.array(scan.patterns)
        patterns[:, bad] = 60_000
        clean, dirty = (replace(scan, bad_pixels=bad, patterns=p) for p in (scan.patterns, patterns))
        one, other = self.fit(clean), self.fit(dirty)
        assert other.result.history["loss"] == pytest.approx(one.result.history["loss"], rel=1e-6)
        assert difference(other.patches(dirty), one.patches(clean)) <= self.tolerances.rounding
        assert np.isfinite(one.patches(clean)).all()

    def test_what_stands_at_bad_values_does_not_matter(self, scan: ScanDataset) -> None:
        """[CONF-028] [LOSS-003] Bad pixels of single patterns; and their record itself does not leave the loss."""
        masks = np.zeros((len(scan), scan.N, scan.N), bool)
        masks[::2, scan.N // 2 + 1 : scan.N // 2 + 3] = masks[1, scan.N // 2] = True
        scans = []
        for garbage in (60_000, np.nan):
            patterns = np.array(scan.patterns, np.float32)
            patterns[masks] = garbage
            scans.append(replace(scan, bad_values=BadValues.of_masks(masks), patterns=patterns))
        one, other = map(self.fit, scans)
        assert other.result.history["loss"] == pytest.approx(one.result.history["loss"], rel=1e-6)
        assert difference(other.patches(scans[1]), one.patches(scans[0])) <= self.tolerances.rounding
        assert np.isfinite(one.patches(scans[0])).all()
        first, whole = one.result.history["loss"][0], self.fit(scan).result.history["loss"][0]
        assert first < whole, "bad values cost as others do"

    def test_a_placeholder_is_no_known_object(self, scan: ScanDataset) -> None:
        """[CONF-029] [TRAIN-008] Supervised training refuses a constant objectGuess, and none."""
        self.needs(Capability.SUPERVISED)
        assert scan.object_guess is not None
        for guess in (np.ones_like(scan.object_guess), None):
            with pytest.raises(DataError):
                self.fit(replace(scan, object_guess=guess), model={"model_type": "supervised"})

    def test_an_empty_scan_is_refused(self, scan: ScanDataset) -> None:
        """[CONF-029]"""
        with pytest.raises(DataError):
            self.fit(scan.select(np.zeros(0, np.int64)))


def _check_progress(seen: list[Progress]) -> None:
    assert seen, "nothing was reported"
    done = [p.done for p in seen]
    assert done == sorted(done)
    assert {p.total for p in seen} == {done[-1]}
