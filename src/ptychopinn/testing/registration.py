"""Tests of registration: the backend is found, and finding it imports no framework."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ptychopinn.config import InferConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import PtychoPinnError, UsageError
from ptychopinn.plugins import discover
from ptychopinn.reconstructor import Capability, Reconstructor
from ptychopinn.testing.backend import BackendSuite

FRAMEWORKS = frozenset({"torch", "lightning_fabric", "tensorflow", "keras", "jax", "cupy"})


class RegistrationConformance(BackendSuite):
    """Tests of registration, signatures, and refusals of missing capabilities."""

    def test_it_is_found_by_its_name(self) -> None:
        """[CONF-010] [PLUG-001] An entry point leads to the spec."""
        assert discover(self.entry_points()).get(self.spec.name) == self.spec

    def test_listing_it_imports_no_framework(self, tmp_path: Path) -> None:
        """[CONF-010] [PLUG-002] In a fresh process."""
        entry = self._entry()
        modules = self.elsewhere("list_backend", {"name": entry.name, "value": entry.value}, tmp_path)
        own = {name.partition(".")[0] for name in self.spec.requires}
        assert not (own | FRAMEWORKS).intersection(modules)

    def _entry(self) -> EntryPoint:
        found = [entry for entry in self.entry_points() if self.spec.name in discover([entry]).specs]
        assert found, f"no entry point brings '{self.spec.name}'"
        return found[0]

    def test_the_signatures_are_those_of_the_protocol(self) -> None:
        """[CONF-011] [REC-001] Names, order and kinds of the arguments."""
        cls = self.spec.load_class()
        for name in ("__init__", "train", "infer", "save", "load"):
            ours, theirs = (inspect.signature(getattr(owner, name)).parameters for owner in (cls, Reconstructor))
            assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()], name
        assert isinstance(self.new(), Reconstructor)

    def test_it_has_the_model_that_was_asked_for(self) -> None:
        """[CONF-011] [REC-001]"""
        assert self.new().model == self.model_config()

    @pytest.mark.parametrize("act", ["infer", "save"])
    def test_untrained_it_does_nothing(self, scan: ScanDataset, tmp_path: Path, act: str) -> None:
        """[CONF-012] Inference and saving are refused, and no file is left."""
        made = self.new()
        acts: dict[str, Callable[[], object]] = {
            "infer": lambda: list(made.infer(scan, InferConfig()).batches),
            "save": lambda: made.save(tmp_path / "model"),
        }
        with pytest.raises(UsageError):
            acts[act]()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("capability", "model", "train", "options"),
        [
            (Capability.PINN, {"model_type": "pinn"}, {}, {}),
            (Capability.SUPERVISED, {"model_type": "supervised"}, {}, {}),
            (Capability.SIMULATED_OBJECTS, {}, {"simulate_objects": "only"}, {}),
            (Capability.CUDA, {}, {}, {"accelerator": "cuda"}),
        ],
    )
    def test_what_it_cannot_do_is_refused(
        self,
        scan: ScanDataset,
        capability: Capability,
        model: dict[str, str],
        train: dict[str, str],
        options: dict[str, str],
    ) -> None:
        """[CONF-013] [REC-011]"""
        if capability in self.spec.capabilities:
            pytest.skip(f"'{self.spec.name}' has the capability {capability}")
        with pytest.raises(PtychoPinnError):
            self.new(model, options).train(scan, self.train_config(**train))
