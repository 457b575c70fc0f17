"""Tests of saving and loading, in this process and in another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptychopinn.bundle import ArchiveKind, Manifest, Writer, read_bundle, write_bundle
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ArchiveError
from ptychopinn.reconstructor import TrainStatus
from ptychopinn.testing.backend import BackendSuite, Trained, difference
from ptychopinn.testing.processes import backend_arguments


class ArchiveConformance(BackendSuite):
    """Tests of `save` and `load`."""

    def test_what_is_saved_is_the_model(self, scan: ScanDataset, tmp_path: Path) -> None:
        """[CONF-050] [ARC-008] Each save is read back and predicts as the instance does, also one over another."""
        found = self.fit(scan)
        before = found.patches(scan)
        for seed in (0, 5):
            if seed:
                found.reconstructor.train(self.make_scan(seed=seed), self.train_config(seed=seed, nepochs=4))
            found.reconstructor.save(tmp_path / "any name")
            loaded = Trained(self.load(tmp_path / "any name"), found.result)
            assert difference(loaded.patches(scan), found.patches(scan)) <= self.tolerances.rounding
        assert difference(found.patches(scan), before) > 0, "the second training changed nothing"
        assert [path.name for path in tmp_path.iterdir()] == ["any name"]

    def test_the_archive_says_what_it_is(self, trained: Trained, tmp_path: Path) -> None:
        """[CONF-050] [ARC-002] The core reads it without the backend."""
        trained.reconstructor.save(tmp_path / "model")
        bundle = read_bundle(tmp_path / "model")
        assert bundle.manifest.kind is ArchiveKind.MODEL
        assert bundle.manifest.writer.backend == self.spec.name
        assert bundle.manifest.model == self.model_config()
        assert bundle.manifest.training is not None
        assert bundle.manifest.training.epochs == len(trained.result.history["epoch"])
        assert bundle.weights

    def test_a_fresh_process_predicts_the_same(self, scan: ScanDataset, trained: Trained, tmp_path: Path) -> None:
        """[CONF-051] [REC-008] From the path alone."""
        trained.reconstructor.save(tmp_path / "model")
        here = Trained(self.load(tmp_path / "model"), trained.result).patches(scan)
        arguments = {
            **backend_arguments(self.spec, self.options),
            "archive": str(tmp_path / "model"),
            "scan": self.scan_config().model_dump(mode="json"),
            "patches": str(tmp_path / "patches.npy"),
        }
        self.elsewhere("predict", arguments, tmp_path)
        assert difference(np.load(tmp_path / "patches.npy"), here) <= self.tolerances.rounding

    def test_a_loaded_model_can_be_trained_on(self, scan: ScanDataset, trained: Trained, tmp_path: Path) -> None:
        """[CONF-052] And saved again."""
        trained.reconstructor.save(tmp_path / "one")
        loaded = self.load(tmp_path / "one")
        loaded.save(tmp_path / "two")
        one, two = (read_bundle(tmp_path / name) for name in ("one", "two"))
        unsigned = [bundle.manifest.model_copy(update={"sha256": {}}) for bundle in (one, two)]
        assert unsigned[0] == unsigned[1]
        assert one.weights.keys() == two.weights.keys()
        assert loaded.train(scan, self.train_config()).status is TrainStatus.FINISHED

    @pytest.mark.parametrize("what", ["none", "cut short", "another network's", "a checkpoint"])
    def test_an_archive_that_does_not_fit_is_refused(self, trained: Trained, tmp_path: Path, what: str) -> None:
        """[CONF-053] [ARC-010]"""
        path = tmp_path / "model"
        trained.reconstructor.save(path)
        bundle = read_bundle(path)
        if what == "none":
            path.unlink()
        elif what == "cut short":
            path.write_bytes(path.read_bytes()[:-100])
        elif what == "another network's":
            manifest = Manifest(writer=Writer(ptychopinn="0", backend="other"), model=self.model_config())
            write_bundle(path, manifest, {"network/nobody/knows/this": np.ones(1, np.float32)})
        else:
            write_bundle(path, bundle.manifest.model_copy(update={"kind": ArchiveKind.CHECKPOINT}), bundle.weights)
        with pytest.raises(ArchiveError):
            self.load(path)
