"""Tests of archives of one backend in another."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.config.model import ModelType
from ptychopinn.plugins import discover, missing_requirements
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn.testing.backend import TINY_TRAIN, KitSettings
from ptychopinn.testing.processes import backend_arguments
from ptychopinn.typing import ComplexArray


class CrossBackendConformance(KitSettings):
    """Train in one backend and predict in the other, in both directions, each in its own process."""

    pair: ClassVar[tuple[str, str]]  # names of the two backends; the tests are skipped if one is not installed

    @pytest.fixture(scope="class")
    @classmethod
    def specs(cls) -> tuple[ReconstructorSpec, ReconstructorSpec]:
        """Both backends."""
        registry = discover(cls.entry_points())
        for name in cls.pair:
            if name not in registry.specs or missing_requirements(registry.specs[name]):
                pytest.skip(f"the backend '{name}' is not installed")
        one, other = (registry.specs[name] for name in cls.pair)
        return one, other

    @pytest.mark.parametrize("model_type", list(ModelType))
    @pytest.mark.parametrize("direction", ["there", "back"])
    def test_an_archive_predicts_the_same_in_the_other(
        self,
        specs: tuple[ReconstructorSpec, ReconstructorSpec],
        tmp_path: Path,
        direction: str,
        model_type: ModelType,
    ) -> None:
        """[CONF-061] [REC-008] Patch by patch, before any synchronisation."""
        for spec in specs:
            if Capability(model_type.value) not in spec.capabilities:
                pytest.skip(f"'{spec.name}' lacks the capability {model_type}")
        writer, reader = specs if direction == "there" else specs[::-1]
        written = self._run("train", writer, tmp_path, model_type)
        read = self._run("predict", reader, tmp_path, model_type)
        assert read.shape == written.shape
        assert np.abs(read - written).max() <= self.tolerances.parity * np.abs(written).mean()

    def _run(self, job: str, spec: ReconstructorSpec, folder: Path, model_type: ModelType) -> ComplexArray:
        model = {"N": 32, **self.model, "model_type": model_type.value}
        patches = folder / f"{job}.npy"
        arguments = {
            **backend_arguments(spec, self.options),
            "model": model,
            "train": {**TINY_TRAIN, **self.train},
            "scan": SimulationConfig(N=model["N"], rows=5, cols=5, seed=1).model_dump(mode="json"),
            "archive": str(folder / "model"),
            "patches": str(patches),
        }
        self.elsewhere(job, arguments, folder)
        found: ComplexArray = np.load(patches)
        return found
