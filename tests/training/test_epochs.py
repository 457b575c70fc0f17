"""Batches of one epoch after another. Requirements: specs/02-simulation.md, specs/10-training.md."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from ptychopinn.simulate import ObjectStream, simulate_probe
from ptychopinn.simulate.random_probes import draw_probe
from ptychopinn.training import EpochSource
from ptychopinn.typing import AnyArray

N, BATCHES = 32, 5


def source(*, probes: bool = False) -> EpochSource:
    probe = simulate_probe("disc", N, photons=1e4)
    draw = partial(draw_probe, N, 1) if probes else None
    stream = ObjectStream(probe, 1e4, None, 1, object_size_px=48, pool_size=4, batches_an_object=2, draw_probe=draw)
    return EpochSource(None, stream, BATCHES, 2)


def batches(made: EpochSource, epoch: int) -> list[dict[str, AnyArray]]:
    return list(made(epoch))


def same(one: list[dict[str, AnyArray]], other: list[dict[str, AnyArray]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a) for a, b in zip(one, other, strict=True)
    )


def test_objects_are_kept_from_epoch_to_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """[SIM-048] Each is made once, whatever the epochs' length."""
    made: list[int] = []
    original = ObjectStream._make

    def count(self: ObjectStream, number: int) -> AnyArray:
        made.append(number)
        return original(self, number)

    monkeypatch.setattr(ObjectStream, "_make", count)
    running = source()
    for epoch in range(6):
        batches(running, epoch)
    assert made == list(range((6 * BATCHES - 1) // 2 + 1))


@pytest.mark.parametrize("probes", [False, True])
def test_an_epoch_depends_on_its_number_alone(probes: bool) -> None:
    """[SIM-042] [SIM-048] In order, resumed, back again."""
    running = source(probes=probes)
    walked = [batches(running, epoch) for epoch in range(4)]
    assert not same(walked[0], walked[1])
    for epoch in (3, 0, 2):
        assert same(batches(running, epoch), walked[epoch])
        assert same(batches(source(probes=probes), epoch), walked[epoch])


def test_threads_share_the_objects() -> None:
    """[SIM-042] [SIM-048] Threads of one source give what one alone gives, bit by bit."""
    alone = [batches(source(probes=True), epoch) for epoch in range(3)]
    running = source(probes=True)
    with ThreadPoolExecutor(3) as pool:
        for epoch in range(3):
            assert same(list(pool.map(partial(running.batch, epoch), range(BATCHES))), alone[epoch])


def test_every_pattern_has_a_probe_of_its_own() -> None:
    """[SIM-049] (b, modes, N, N) in root mean counts."""
    found = np.concatenate([batch["simulated_probe"] for batch in batches(source(probes=True), 0)])
    assert (found.shape, found.dtype) == ((2 * BATCHES, 1, N, N), np.complex64)
    np.testing.assert_allclose((np.abs(found) ** 2).sum(axis=(1, 2, 3)), 1, rtol=1e-3)
    assert len({probe.tobytes() for probe in found}) > BATCHES
    assert "simulated_probe" not in batches(source(), 0)[0]
