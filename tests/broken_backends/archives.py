"""Reconstructors wrong in the archives that they write or read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from numpy_backend import NumpyReconstructor
from ptychopinn_numpy.training import Model

from broken_backends.registry import broken
from broken_backends.training import Mistaught
from ptychopinn.bundle import Manifest
from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ArchiveError, UsageError
from ptychopinn.reconstructor import (
    TrainResult,
)
from ptychopinn.typing import AnyArray, StrPath


@broken("test_what_is_saved_is_the_model")
class SavesItsFirstModel(Mistaught):
    first: Model | None = None

    def after(self, result: TrainResult) -> TrainResult:
        self.first = self.first or self._model
        return result

    def _to_arrays(self, model: Model) -> dict[str, AnyArray]:
        return super()._to_arrays(self.first or model)


@broken("test_a_fresh_process_predicts_the_same", fresh=True)
class RemembersWhatItSaved(NumpyReconstructor):
    saved: ClassVar[dict[str, Model]] = {}

    def save(self, path: StrPath) -> None:
        super().save(path)
        assert self._model is not None
        self.saved[str(path)] = self._model

    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        instance = super().load(path, options)
        instance._model = cls.saved[str(path)]
        return instance


@broken("test_the_archive_says_what_it_is")
class SignsWithAnotherName(NumpyReconstructor):
    def _manifest(self) -> Manifest:
        manifest = super()._manifest()
        return manifest.model_copy(update={"writer": manifest.writer.model_copy(update={"backend": "torch"})})


@broken("test_a_loaded_model_can_be_trained_on")
class CannotGoOn(Mistaught):
    loaded = False

    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        if self.loaded:
            raise UsageError("This model is done.")
        return data, config

    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        instance = super().load(path, options)
        instance.loaded = True
        return instance


@broken("test_an_archive_that_does_not_fit_is_refused")
class TakesAnyArchive(NumpyReconstructor):
    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        try:
            return super().load(path, options)
        except ArchiveError:
            return cls(ModelConfig(), options)


@broken("test_what_is_saved_is_the_model")
class ReadsAnotherLayout(NumpyReconstructor):
    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> Model:
        model = super()._from_arrays(arrays)
        return replace(model, step=model.step * 1.1)
