"""The reconstructor: what is PyTorch's own; the rest is `backend_suite.reconstructor`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from backend_suite.fits import Trained, settings_of
from backend_suite.reconstructor import *  # noqa: F403
from torch_fits import new

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ResourceError, TrainingError
from ptychopinn.reconstructor import Capability
from ptychopinn_torch.plugin import ptychopinn_reconstructors
from ptychopinn_torch.reconstructor import TorchReconstructor, import_training_loop

(SPEC,) = ptychopinn_reconstructors()


def test_its_spec_leaves_nothing_out() -> None:
    """[REC-011] Nothing of the contract is left out, so nothing has to be refused."""
    assert SPEC.load_class() is TorchReconstructor
    assert SPEC.capabilities == frozenset(Capability)


# The device


def test_the_device_asked_for_is_the_device_used(
    scan: ScanDataset, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[TRAIN-009] The CPU, even where CUDA is: logged, and every weight is there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        made = new(options={"accelerator": "cpu"})
    assert made.device == torch.device("cpu")
    assert "Computing on cpu" in caplog.text
    monkeypatch.undo()
    made.train(scan, settings_of())
    assert {p.device.type for p in made.trained_model().parameters()} == {"cpu"}


def test_cuda_without_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-009]"""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="cuda was asked for") as caught:
        new(options={"accelerator": "cuda"})
    assert "--accelerator cpu" in caught.value.remedy


# Memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out(
    trained: Trained, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """[RECON-002] Inference goes on with smaller batches; training says what to do."""
    expected = trained.patches(scan)
    model = trained.reconstructor.trained_model()
    sizes: list[int] = []
    forward = model.network.forward

    def limited(amplitudes: torch.Tensor, *rest: Any) -> torch.Tensor:
        patterns = amplitudes.shape[0] * amplitudes.shape[1]
        sizes.append(patterns)
        if patterns > 6:
            raise error
        return forward(amplitudes, *rest)

    monkeypatch.setattr(model.network, "forward", limited)
    np.testing.assert_allclose(trained.patches(scan), expected, atol=1e-5)
    assert sizes[:3] == [25, 12, 6]

    def exhausted(*args: Any) -> Any:
        raise error

    monkeypatch.setattr("ptychopinn_torch.network.FastNetwork.forward", exhausted)
    with pytest.raises(ResourceError, match="even one group"):
        new().train(scan, settings_of())


def test_the_allocators_own_words_are_known() -> None:
    """Whatever this build of torch says when the CPU's memory does not suffice."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**16)
    assert new()._out_of_memory(caught.value)
    assert not new()._out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not new()._out_of_memory(TrainingError("The loss is nan."))


def test_a_backend_of_pictures_that_is_not_there_does_not_matter() -> None:
    """[RUN-005] As in programs that a notebook starts: Fabric may load Torchmetrics, and that Matplotlib."""
    code = "from ptychopinn_torch.reconstructor import import_training_loop; import_training_loop(); import matplotlib"
    env = os.environ | {"MPLBACKEND": "none such"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_import_that_memory_does_not_suffice_for_is_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """[HARD-021] It would abort the process, for libraries in C++ cannot say that memory ran out."""
    resource = pytest.importorskip("resource")
    import_training_loop()
    monkeypatch.setattr(resource, "getrlimit", lambda name: (2**20, 2**20))
    import_training_loop()  # what is imported needs nothing
    monkeypatch.delitem(sys.modules, "ptychopinn_torch.training")
    with pytest.raises(ResourceError, match="the libraries need 256"):
        import_training_loop()
