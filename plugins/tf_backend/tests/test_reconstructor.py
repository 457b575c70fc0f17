"""The reconstructor: what is TensorFlow's own; the rest is `backend_suite.reconstructor`."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from backend_suite.fits import Fit, New, Trained, settings_of
from backend_suite.reconstructor import *  # noqa: F403

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ResourceError, TrainingError
from ptychopinn_tf.network import FastNetwork

NO_GPU = pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="a GPU is there")


def test_the_device_asked_for_is_the_device_used(new: New, scan: ScanDataset, caplog: pytest.LogCaptureFixture) -> None:
    """[TRAIN-009] Logged, and every weight is there."""
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        made = new(options={"accelerator": "cpu"})
    assert str(made.device) == "/CPU:0"
    assert "Computing on /CPU:0" in caplog.text
    made.train(scan, settings_of())
    assert {v.device[-6:] for v in made.trained_model().variables().values()} == {":CPU:0"}


@NO_GPU
def test_cuda_without_cuda_is_refused(new: New) -> None:
    """[TRAIN-009]"""
    with pytest.raises(ResourceError, match="cuda was asked for") as caught:
        new(options={"accelerator": "cuda"})
    assert "--accelerator cpu" in caught.value.remedy


OUT_OF_MEMORY = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[99]")


@pytest.mark.parametrize(
    ("xla", "error"),
    [
        (False, OUT_OF_MEMORY),
        (
            False,
            tf.errors.InternalError(None, None, "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes."),
        ),
        (False, MemoryError()),
        (True, OUT_OF_MEMORY),
    ],
)
def test_memory_that_runs_out(
    fit: Fit, new: New, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, error: Exception, xla: bool
) -> None:
    """[RECON-002] Inference goes on with smaller batches, filled up no more than those; training says what to do."""
    found = fit(options={"xla": xla})
    expected = found.patches(scan)
    compiled = found.reconstructor._compiled(found.reconstructor.trained_model())  # type: ignore[attr-defined]
    sizes: list[int] = []

    def limited(counts: Any, *rest: Any) -> Any:
        sizes.append(len(counts))
        if len(counts) > (10 if len(sizes) < 2 else 6):
            raise error
        return compiled(counts, *rest)

    monkeypatch.setattr(found.reconstructor, "_compiled", lambda model: limited)
    np.testing.assert_allclose(found.patches(scan, inference_batch_size=10), expected, atol=1e-5)
    assert sizes == [10, 10, 5, 5, 5]  # after one batch of ten memory is short

    def exhausted(*args: Any) -> Any:
        raise error

    monkeypatch.setattr("ptychopinn.training.objective.poisson_deviance", exhausted)
    with pytest.raises(ResourceError, match="even one group"):
        new(options={"xla": xla}).train(scan, settings_of())


def test_the_allocators_own_words_are_known(new: New) -> None:
    """Whatever this build of TensorFlow says when the CPU's memory does not suffice."""
    with pytest.raises(tf.errors.OpError) as caught:
        tf.zeros((2**25, 2**25))
    assert new()._out_of_memory(caught.value)
    assert not new()._out_of_memory(tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [2] vs. [3]"))
    assert not new()._out_of_memory(TrainingError("The loss is nan."))


def test_a_model_is_traced_once(trained: Trained, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sizes of batches, and for every scan after the first."""
    traced: list[int] = []
    original = FastNetwork.__call__
    trained.reconstructor._function = None  # type: ignore[attr-defined]

    def spy(self: FastNetwork, *args: Any) -> Any:
        traced.append(1)
        return original(self, *args)

    monkeypatch.setattr(FastNetwork, "__call__", spy)
    for batch in (25, 7, 1):
        trained.patches(scan, inference_batch_size=batch)
    trained.patches(scan.select(np.arange(5)), probe_source="scan")
    assert len(traced) == 1


def test_compiled_by_xla_it_predicts_the_same(fit: Fit, scan: ScanDataset, tmp_path: Any) -> None:
    """[REC-006] Smaller batches are filled up to the first one's size."""
    found = fit()
    found.reconstructor.save(tmp_path / "model")
    cls, options = type(found.reconstructor), type(found.reconstructor._options)
    loaded = Trained(cls.load(tmp_path / "model", options(accelerator="cpu", xla=True)), found.result)
    for batch in (7, 40):
        compiled = loaded.patches(scan, inference_batch_size=batch)
        np.testing.assert_allclose(compiled, found.patches(scan, inference_batch_size=batch), atol=1e-5)
