"""Training patterns made on the device. Requirements: specs/02-simulation.md, specs/10-training.md."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from backend_suite.fits import Fit

from ptychopinn.simulate import ObjectStream, ObjectStreamOptions, simulate_probe
from ptychopinn.simulate.random_probes import draw_probe
from ptychopinn.training import EpochSource
from ptychopinn.training.sources import Batch, BatchLoader
from ptychopinn_torch.simulation import SimulatedPatterns

N, BATCHES, SIZE = 32, 5, 6
CPU = torch.device("cpu")


def source(mean_counts: float = 1e8, modes: int = 1, *, probes: bool = False, **options: Any) -> EpochSource:
    bad = np.zeros((N, N), bool)
    bad[N // 2, N // 2 + 3] = True
    draw = partial(draw_probe, N, modes) if probes else None
    settings: dict[str, Any] = {"object_size_px": 48, "pool_size": 4, "batches_an_object": 2, **options}
    probe = simulate_probe("disc", N, photons=1.0, modes=modes)
    stream = ObjectStream(probe, mean_counts, bad, 3, options=ObjectStreamOptions(draw_probe=draw, **settings))
    return EpochSource(None, stream, BATCHES, SIZE)


def load_batches(given: EpochSource, *epochs: int, workers: int = 0) -> list[Batch]:
    loader = BatchLoader([SimulatedPatterns(given, CPU)], len(given), workers)
    return [batch for epoch in epochs for batch in loader.batches(epoch)]


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("probes", [False, True])
def test_they_are_those_of_the_host_but_for_the_noise(modes: int, probes: bool) -> None:
    """[SIM-050] Objects, places, turns, probes: bit by bit, while the pool is renewed."""
    given, other = source(modes=modes, probes=probes), source(modes=modes, probes=probes)
    for found, expected in zip(load_batches(given, 0, 1, 7), [*other(0), *other(1), *other(7)], strict=True):
        assert found.patterns == SIZE
        assert found.tensors.keys() == expected.keys()
        for name, array in expected.items():
            tensor = found.tensors[name].numpy()
            assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype), name
            if name == "simulated_counts":
                assert np.abs(tensor - array).sum() < 3e-3 * array.sum()
                assert not tensor[:, 0, 3].any()  # the bad pixel, DC at [0, 0]
            else:
                np.testing.assert_allclose(tensor, array, rtol=1e-6, atol=1e-7, err_msg=name)


def test_the_noise_is_that_of_the_batch_alone() -> None:
    """[SIM-042] [SIM-050] It depends on the seed and the number of the batch, however one got there."""
    walked = load_batches(source(1e4), 0, 1, 2)
    jumped = load_batches(source(1e4), 2, workers=2)
    for one, other in zip(walked[-BATCHES:], jumped, strict=True):
        assert torch.equal(one.tensors["simulated_counts"], other.tensors["simulated_counts"])
    assert not torch.equal(walked[0].tensors["simulated_counts"], walked[1].tensors["simulated_counts"])


def test_counts_are_poisson_distributed_at_each_dose() -> None:
    """[SIM-044] [SIM-050] Their variance is the mean over the dose."""
    pure = load_batches(source(1e9), *range(40))
    for factor in (1.0, 0.1):
        noisy = load_batches(source(1e5, dose_range=(factor, factor)), *range(40))
        mean = torch.cat([batch.tensors["simulated_counts"] for batch in pure]) * 1e-4
        counts = torch.cat([batch.tensors["simulated_counts"] for batch in noisy])
        assert float(counts.sum() / mean.sum()) == pytest.approx(1, abs=3e-3)
        assert float(((counts - mean) ** 2).sum() / mean.sum()) == pytest.approx(1 / factor, rel=0.05)


@pytest.mark.parametrize(
    ("train", "probe", "noise"),
    [
        ({"simulate_objects": "only"}, "scan", 0.02),
        ({"simulate_objects": "mixed", "n_groups": 7}, "around", 0.02),
        ({"simulate_objects": "mixed", "validation_fraction": 0.3}, "family", 0.1),  # some patterns have few photons
    ],
)
def test_trainings_on_them(fit: Fit, train: dict[str, Any], probe: str, noise: float) -> None:
    """[TRAIN-007] [TRAIN-015] As on those of the host, but for the noise; the same seed gives the same model."""
    settings = {"train": {**train, "simulate_probes": probe, "nepochs": 3}}
    host = fit(**settings).result
    device, again = (fit(**settings, options={"device_memory_budget_mb": 256}).result for _ in range(2))
    assert device.history.keys() == host.history.keys()
    assert device.history["loss"] == again.history["loss"]
    assert device.history["loss"] != host.history["loss"]
    assert device.history["loss"] == pytest.approx(host.history["loss"], rel=noise)
    assert device.patterns_seen == host.patterns_seen
    assert all(map(math.isfinite, device.history["simulated"]))


def test_pools_count_towards_the_budget() -> None:
    stream = source(probes=True).stream
    assert stream is not None
    assert stream.probes is not None
    assert SimulatedPatterns.bytes_of(stream) == 8 * (4 * 48**2 + 1024 * N**2)
