"""From a prediction by a few passes to a better object: specs/13-refinement.md."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refinement_samples import N, astray, move_positions, predicted, slow, smoothed, truth, wrong_probe

from ptychopinn.arrays import NUMPY
from ptychopinn.config import SimulationConfig
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.metrics.baselines import noise_residual
from ptychopinn.metrics.quality import RESIDUAL_PATTERNS, ForwardResidual, forward_residual
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.refinement import Refinement, RefineOptions, StartKind, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers import epie
from ptychopinn.solvers.options import StepSchedule
from ptychopinn.solvers.slow_phase import slow_phase, without_plane
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=9, cols=9, nphotons=1e6, seed=3))


def inside(scan: ScanDataset) -> tuple[slice, slice]:
    low, high = scan.positions.min(axis=0).astype(int), scan.positions.max(axis=0).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1])


def frame_of(scan: ScanDataset) -> Frame:
    height, width = truth(scan).shape
    return Frame((height, width))


def error(found: ComplexArray, scan: ScanDataset) -> float:
    """|G - R| / |G| inside the box of positions, one complex factor removed."""
    a, b = truth(scan)[inside(scan)], found[inside(scan)]
    return float(np.linalg.norm(a - b * (np.vdot(b, a) / np.vdot(b, b))) / np.linalg.norm(a))


def empty(frame: Frame) -> Canvas:
    """An object of which nothing is known."""
    return Canvas(flat_object(frame), frame)


def refine_scan(scan: ScanDataset, start: ComplexArray | None = None, passes: int = 2, **changes: Any) -> Refinement:
    start = predicted(scan) if start is None else start
    given: dict[str, Any] = {"probe": scan.probe, "frame": frame_of(scan)} | changes
    at_call = {name: given.pop(name) for name in ("kind", "monitor") if name in given}
    probe, canvas = given.pop("probe"), Canvas(start, given.pop("frame"), covered=given.pop("covered", None))
    patterns = Patterns(scan, host_budget_bytes=given.pop("host_budget_bytes", 0))
    model = ScanModel(probe, scan.positions)
    return refine(patterns, model, canvas, RefineOptions(passes, **given), **at_call)


def lacking_phase(scan: ScanDataset, obj: ComplexArray, origin: tuple[int, int]) -> AnyArray | None:
    """`slow_phase` of a whole scan."""
    return slow_phase(Patterns(scan), ScanModel(scan.probe, scan.positions), Canvas(obj, Frame(obj.shape, origin)))


@pytest.mark.parametrize("kind", ["near", "noise", "flat", "truth", "dark", "bright", "not finite"])
@pytest.mark.parametrize("strength", [0.0, 5.0])
@pytest.mark.parametrize("free", [False, True])
def test_it_never_gets_worse(scan: ScanDataset, kind: str, strength: float, free: bool) -> None:
    """[REFINE-001] [REFINE-002] from anything, with any probe; the figures are those of the result."""
    shape = truth(scan).shape
    rng = np.random.default_rng(0)
    start = {
        "near": predicted(scan),
        "noise": rng.normal(size=shape) + 1j * rng.normal(size=shape),
        "flat": np.ones(shape),
        "truth": truth(scan),
        "dark": 1e-3 * truth(scan),
        "bright": 1e3 * truth(scan),
        "not finite": np.full(shape, np.nan),
    }[kind].astype(np.complex64)
    probe = wrong_probe(scan, strength)
    found = refine_scan(scan, start, probe=probe, passes=2, update_probe=free)
    summary = found.summary
    after = forward_residual(found.object, (0, 0), found.model.probe, scan, max_patterns=RESIDUAL_PATTERNS)
    assert summary.residual_after == pytest.approx(after)
    if kind == "not finite":
        assert math.isinf(summary.residual_before)
    else:
        assert summary.residual_before == forward_residual(start, (0, 0), probe, scan, max_patterns=RESIDUAL_PATTERNS)
    assert summary.residual_after <= summary.residual_before
    flat = forward_residual(np.ones(shape, np.complex64), (0, 0), probe, scan, max_patterns=RESIDUAL_PATTERNS)
    assert summary.residual_after <= flat
    assert (summary.passes_asked, summary.passes_done, summary.probe) == (2, 2, free)
    assert 0 <= summary.passes_kept <= 2
    assert np.isfinite(found.object).all()


def test_passes_that_lower_nothing_are_not_kept(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[REFINE-001]"""
    monkeypatch.setattr("ptychopinn.refinement.passes.PassEngine.run", lambda self, *a: spoil(self))
    monkeypatch.setattr("ptychopinn.refinement.passes.slow_phase", lambda _, at, on, *a, **k: slow(on.frame.shape, 2.0))

    def spoil(engine: Any) -> float:
        engine.canvas.array[...] *= 1.1
        return 0.0

    start = truth(scan)
    found = refine_scan(scan, start)
    assert (found.summary.passes_done, found.summary.passes_kept) == (2, 0)
    assert error(found.object, scan) < 1e-3


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_it_ends_nearer_than_a_flat_start(scan: ScanDataset, passes: int) -> None:
    """[REFINE-003]"""
    start = predicted(scan)
    found = refine_scan(scan, start, passes)
    flat = epie(Patterns(scan), scan.probe, passes=passes, start=empty(frame_of(scan)))
    plain = epie(Patterns(scan), scan.probe, passes=passes, start=Canvas(start, frame_of(scan)))
    assert found.summary.passes_kept == passes
    assert error(found.object, scan) < 0.75 * min(error(start, scan), error(flat.object, scan))
    assert error(found.object, scan) < 0.9 * error(plain.object, scan)  # the slow phases are solved


@pytest.mark.parametrize("waves", [{"probe_modes": 3}, {"fly_px": 3.0}])
def test_many_waves_do_not_hold_passes_up(waves: dict[str, Any]) -> None:
    """[REFINE-031] With less momentum the error is a quarter larger, or more."""
    settings = {"N": N, "rows": 10, "cols": 10, "overlap": 0.75, "object_kind": "mixture", "seed": 11}
    several = simulate_scan(SimulationConfig(**settings, **waves))
    motion = (0.0, waves["fly_px"]) if "fly_px" in waves else None
    model, start = ScanModel(several.probe, several.positions, motion_px=motion), smoothed(several, 3.0)
    less = StepSchedule(momentum=0.6, probe_step=0.1)
    errors = [
        error(
            refine(
                Patterns(several), model, Canvas(start, frame_of(several)), RefineOptions(6, schedule=schedule)
            ).object,
            several,
        )
        for schedule in (None, less)
    ]
    assert 1.25 * errors[0] < errors[1]


def test_a_slow_phase_that_is_known_is_not_solved_again(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[REFINE-016] but it is before later passes, and from a flat start, which nobody has looked at."""
    solved: list[ComplexArray] = []

    def counted(patterns: Patterns, model: ScanModel, canvas: Canvas, **settings: Any) -> Any:
        solved.append(canvas.array)
        return slow_phase(patterns, model, canvas, **settings)

    monkeypatch.setattr("ptychopinn.refinement.passes.slow_phase", counted)
    noise = np.random.default_rng(0).normal(size=truth(scan).shape).astype(np.complex64)
    for start, passes, times in ((predicted(scan), 1, 0), (predicted(scan), 2, 1), (noise, 1, 1)):
        solved.clear()
        refine_scan(scan, start, passes, kind=StartKind.SYNCHRONISED)
        assert len(solved) == times
    solved.clear()
    refine_scan(scan, truth(scan), 4)  # it lacks none: looked at before the first pass and after it
    assert len(solved) == 2


def test_a_quick_refinement_looks_once_and_follows_amplitudes(
    scan: ScanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[REFINE-029] A sparse scan has no slow phase solved; no pattern is held out where photons are few."""
    judged: list[int] = []

    class Counted(ForwardResidual):
        def shares(self, canvas: Canvas) -> FloatArray:
            found = super().shares(canvas)
            judged.append(len(found))
            return found

    def solved(*args: object, **settings: object) -> None:
        raise AssertionError("a slow phase was solved")

    monkeypatch.setattr("ptychopinn.refinement.passes.ForwardResidual", Counted)
    monkeypatch.setattr("ptychopinn.refinement.passes.slow_phase", solved)
    sparse = simulate_scan(SimulationConfig(N=N, rows=9, cols=9, overlap=0.5, seed=3))
    flat = np.ones(truth(sparse).shape, np.complex64)
    found = refine_scan(sparse, flat, 5, kind=StartKind.FLAT, quick=True, probe=sparse.probe, frame=frame_of(sparse))
    assert judged == [64, 64]  # the start and the last state
    assert found.summary.passes_kept == 5
    assert error(found.object, sparse) < 0.5 * error(flat, sparse)
    dense = simulate_scan(SimulationConfig(N=N, rows=12, cols=12, step_px=2.0, seed=3))
    with pytest.raises(AssertionError, match="was solved"):
        refine_scan(dense, np.ones(truth(dense).shape, np.complex64), 2, kind=StartKind.FLAT, quick=True)
    dim = simulate_scan(SimulationConfig(N=N, rows=8, cols=8, overlap=0.5, nphotons=300, seed=1))
    start = np.ones(truth(dim).shape, np.complex64)
    summary = refine_scan(dim, start, 2, kind=StartKind.FLAT, quick=True).summary
    assert (summary.held_out, summary.likelihood, summary.judged_by) == (0, "amplitude", "amplitude")
    monkeypatch.undo()
    assert refine_scan(dim, start, 2, kind=StartKind.FLAT).summary.held_out > 0


def test_a_quick_refinement_that_spoils_the_object_is_not_kept(scan: ScanDataset) -> None:
    """[REFINE-029]"""
    far = StepSchedule(momentum=0.0, object_step=2.5, last_object_step=2.5, settles=False)
    found = refine_scan(scan, truth(scan), 4, kind=StartKind.REFINED, quick=True, schedule=far)
    assert found.summary.passes_kept == 0
    assert error(found.object, scan) < 1e-3


def test_bad_pixels_and_modes() -> None:
    """[REFINE-003]"""
    scan = simulate_scan(SimulationConfig(N=N, rows=7, cols=7, probe_modes=2, bad_pixel_fraction=0.05, seed=2))
    start = predicted(scan)
    found = refine_scan(scan, start, 3)
    assert error(found.object, scan) < 0.5 * error(start, scan)


@pytest.mark.parametrize("changes", [{}, {"bad_pixel_fraction": 0.05}, {"probe_modes": 2}, {"rows": 4, "cols": 14}])
def test_slow_phases_are_found(changes: dict[str, Any]) -> None:
    """[REFINE-010] seen from another origin too."""
    scan = simulate_scan(SimulationConfig(**({"N": N, "rows": 9, "cols": 9, "nphotons": 1e6, "seed": 3} | changes)))
    obj, lacking = truth(scan), slow(truth(scan).shape)
    bent = (obj * np.exp(-1j * lacking)).astype(np.complex64)
    found = lacking_phase(scan, bent, (0, 0))
    assert found is not None
    assert found.dtype == np.float32
    left = (found - lacking)[inside(scan)]
    assert left.std() < 0.1 * lacking[inside(scan)].std()
    wide = np.pad(bent, ((3, 0), (0, 5)), constant_values=1)
    elsewhere = lacking_phase(scan, wide, (-3, 0))
    assert elsewhere is not None
    np.testing.assert_allclose(elsewhere[3:, :-5][inside(scan)], found[inside(scan)], atol=1e-3)
    spoiled = scan.patterns.copy()  # type: ignore[union-attr]
    spoiled[:, scan.bad_pixels] = 5000
    again = lacking_phase(replace(scan, patterns=spoiled), bent, (0, 0))
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_patterns(scan: ScanDataset, count: int) -> None:
    """[REFINE-001]"""
    part = scan.select(np.arange(count))
    found = refine_scan(part, passes=3)
    assert np.isfinite(found.object).all()
    assert found.summary.residual_after < found.summary.residual_before


def test_all_of_a_dim_pattern_is_looked_at(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[REFINE-010] A quarter of its pixels is enough where photons are many, and says less where they are few."""
    lacking = slow(truth(scan).shape)
    left: dict[tuple[float, float], float] = {}
    for photons, bright in itertools.product((1e3, 1e6), (0.0, 5e4, math.inf)):
        monkeypatch.setattr("ptychopinn.solvers.slow_phase._BRIGHT", bright)
        lit = dim(scan, photons)
        found = lacking_phase(lit, truth(scan) * np.exp(-1j * lacking).astype(np.complex64), (0, 0))
        assert found is not None
        off = (found - lacking)[inside(scan)]
        left[photons, bright] = float((off - off.mean()).std() / lacking[inside(scan)].std())
    assert left[1e3, 5e4] == left[1e3, math.inf] < left[1e3, 0]
    assert left[1e6, 5e4] == left[1e6, 0] < 1.1 * left[1e6, math.inf]


def test_a_dark_object_has_no_slow_phase(scan: ScanDataset) -> None:
    dark = np.zeros(truth(scan).shape, np.complex64)
    assert lacking_phase(scan, dark, (0, 0)) is None


@pytest.mark.parametrize(("top", "left", "height", "width"), [(-9, -4, 90, 110), (12, 9, 40, 44), (30, 30, 5, 6)])
def test_the_frame_stays(scan: ScanDataset, top: int, left: int, height: int, width: int) -> None:
    """[REFINE-004] wider than the windows' box, or narrower."""
    frame = Frame((height, width), (top, left))
    wide = np.pad(predicted(scan), 120, constant_values=1)
    start = wide[120 + top : 120 + top + height, 120 + left : 120 + left + width]
    found = refine_scan(scan, start, frame=frame)
    assert found.object.shape == frame.shape
    assert found.object.dtype == np.complex64
    assert found.summary.residual_after <= found.summary.residual_before


def test_what_is_not_covered_stays(scan: ScanDataset) -> None:
    """[REFINE-004]"""
    covered = np.zeros(truth(scan).shape, bool)
    covered[inside(scan)] = True
    start = predicted(scan)
    found = refine_scan(scan, start, covered=covered)
    np.testing.assert_array_equal(found.object[~covered], start[~covered])
    assert found.summary.passes_kept > 0
    assert (found.object[covered] != start[covered]).mean() > 0.99


@pytest.mark.parametrize("factor", [0.5, 1.6, 1.2j])
def test_the_scale_is_fitted(scan: ScanDataset, factor: complex) -> None:
    """[REFINE-005] no pass is spent on it."""
    start = (factor * predicted(scan)).astype(np.complex64)
    seen: list[Progress] = []
    found = refine_scan(scan, start, 1, monitor=Monitor(seen.append))
    first = seen[0].figures["residual"]
    unscaled = forward_residual(predicted(scan), (0, 0), scan.probe, scan)
    assert first == pytest.approx(unscaled, rel=0.05)
    assert error(found.object, scan) == pytest.approx(error(refine_scan(scan, passes=1).object, scan), rel=0.1)


def test_the_probe_changes_only_when_asked(scan: ScanDataset) -> None:
    """[REFINE-006] and comes nearer to the true one."""
    probe = wrong_probe(scan, 0.5)
    held = refine_scan(scan, probe=probe, passes=3)
    np.testing.assert_array_equal(held.model.probe, probe)
    free = refine_scan(scan, probe=probe, passes=5, update_probe=True)
    assert np.linalg.norm(free.model.probe) == pytest.approx(np.linalg.norm(probe), rel=1e-5)
    before, after = (
        1 - abs(np.vdot(p, scan.probe)) / np.linalg.norm(p) / np.linalg.norm(scan.probe)
        for p in (probe, free.model.probe)
    )
    assert after < 0.5 * before
    assert free.summary.residual_after < 0.7 * held.summary.residual_after


def test_progress_and_cancellation(scan: ScanDataset) -> None:
    """[REFINE-007]"""
    seen: list[Progress] = []
    refine_scan(scan, passes=3, monitor=Monitor(seen.append))
    assert [(p.stage, p.done, p.total) for p in seen] == [("refine", k, 3) for k in range(4)]
    monitor = Monitor(lambda progress: monitor.cancel() if progress.done == 1 else None)
    found = refine_scan(scan, passes=9, monitor=monitor)
    assert (found.summary.passes_asked, found.summary.passes_done, found.summary.passes_kept) == (9, 1, 1)
    assert error(found.object, scan) < error(predicted(scan), scan)
    untouched = refine_scan(scan, truth(scan), passes=9, monitor=monitor)
    assert (untouched.summary.passes_done, untouched.summary.passes_kept) == (0, 0)
    assert error(untouched.object, scan) < 1e-3


def test_little_memory(scan: ScanDataset) -> None:
    """[REFINE-008] the object does not depend on it."""
    roomy, tight = (refine_scan(scan, host_budget_bytes=budget) for budget in (1 << 30, 0))
    np.testing.assert_allclose(tight.object, roomy.object, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"passes": -1}, ConfigError, "-1 passes"),
        ({"probe": np.ones((1, 8, 8), np.complex64)}, DataError, r"\(1, 8, 8\)"),
        ({"start": np.ones((3, 3), np.complex64)}, DataError, r"\(3, 3\)"),
        ({"covered": np.ones((3, 4), bool)}, DataError, r"\(3, 4\)"),
    ],
)
def test_refusals(scan: ScanDataset, changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        refine_scan(scan, **changes)
    with pytest.raises(DataError, match="no patterns"):
        refine_scan(scan.select(np.zeros(0, int)), predicted(scan))


def test_a_free_probe_takes_the_ramp(scan: ScanDataset) -> None:
    """[REFINE-015] else the object would turn against what is not covered."""
    y, x = np.indices(truth(scan).shape)
    ramp = np.exp(0.01j * (y - 2 * x)).astype(np.complex64)
    held, free = (refine_scan(scan, truth(scan) * ramp, 3, update_probe=how) for how in (False, True))
    assert held.summary.passes_kept == free.summary.passes_kept == 3

    def slope(found: Refinement) -> float:
        turned = found.object[inside(scan)] * truth(scan)[inside(scan)].conj()
        return float(np.angle((turned[:, 1:] * turned[:, :-1].conj()).sum()))

    assert abs(slope(held)) < 0.004
    assert slope(free) == pytest.approx(-0.02, abs=0.006)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (5, 8)])
def test_a_plane_is_taken_off(shape: tuple[int, int]) -> None:
    """[REFINE-015] whatever the positions span."""
    y, x = (k.ravel() + 20 for k in np.indices(shape))
    phase = (0.01 * np.arange(64)[None, :] * np.ones((64, 1)) + 0.3).astype(np.float32)
    at = np.stack([y, x], axis=1)
    level, values = without_plane(phase, phase[y, x], at, NUMPY)
    np.testing.assert_allclose(values, 0, atol=1e-5)
    np.testing.assert_allclose(level[y, x], 0, atol=1e-5)
    assert np.abs(level).max() < 0.5


def test_positions_are_found(scan: ScanDataset) -> None:
    """[REFINE-011]"""
    wrong = move_positions(scan, 0.7)
    held, free = (refine_scan(wrong, predicted(scan), passes=20, update_positions=how) for how in (False, True))
    np.testing.assert_array_equal(held.model.positions, wrong.positions)
    assert held.summary.moved_px is None
    assert astray(free.model.positions, scan) < 0.5 * astray(wrong.positions, scan)
    assert free.summary.moved_px == pytest.approx(astray(free.model.positions, wrong))
    assert error(free.object, scan) < 0.8 * error(held.object, scan)
    assert free.summary.residual_after < 0.8 * held.summary.residual_after
    np.testing.assert_allclose(free.model.positions.mean(axis=0), wrong.positions.mean(axis=0), atol=1e-9)
    assert np.abs(free.model.positions - wrong.positions).max() < 4


def test_positions_that_are_right_stay(scan: ScanDataset) -> None:
    """[REFINE-011]"""
    assert astray(refine_scan(scan, passes=5, update_positions=True).model.positions, scan) < 0.1


def dim(scan: ScanDataset, photons: float) -> ScanDataset:
    counts = np.random.default_rng(6).poisson(scan.counts(slice(None)) * (photons / 1e6)).astype(np.uint32)
    factor = np.float32(math.sqrt(photons / 1e6))
    return replace(scan, patterns=counts, probe=scan.probe * factor)


def test_the_likelihoods_agree_where_there_are_many_counts(scan: ScanDataset) -> None:
    """[REFINE-012] and differ where there are few."""
    apart = []
    for photons in (1e8, 1e5):
        lit = dim(scan, photons)
        one, other = (refine_scan(lit, passes=1, likelihood=likelihood).object for likelihood in Likelihood)
        apart.append(float(np.linalg.norm(one - other) / np.linalg.norm(one)))
        assert error(other, scan) < 0.8 * error(predicted(scan), scan)
    assert apart[0] < 0.5 * apart[1]


@pytest.mark.parametrize(("photons", "sigma_px"), [(1e3, 2.0), (1e3, 3.0), (1.5e3, 3.0)])
def test_few_photons_are_counted(scan: ScanDataset, photons: float, sigma_px: float) -> None:
    """[REFINE-012] [REFINE-013] the passes follow the counts, and end nearer than from flat."""
    lit, start = dim(scan, photons), smoothed(scan, sigma_px)
    found = refine_scan(lit, start, passes=3)
    by_amplitudes = refine_scan(lit, start, passes=3, likelihood=Likelihood.AMPLITUDE)
    assert found.summary.likelihood is Likelihood.POISSON
    assert found.summary.held_out == len(scan) // 8
    assert refine_scan(scan, passes=1).summary.likelihood is Likelihood.AMPLITUDE
    assert found.summary.passes_kept > 0
    assert error(found.object, scan) < 0.9 * min(error(start, scan), error(by_amplitudes.object, scan))
    flat = epie(Patterns(lit), lit.probe, passes=3, start=empty(frame_of(scan)))
    assert error(found.object, scan) < 0.9 * error(flat.object, scan)


def test_noise_is_not_taken_for_the_object(scan: ScanDataset) -> None:
    """[REFINE-013] A start that is better than what few photons can teach stays."""
    start = predicted(scan) * np.exp(-1j * slow(truth(scan).shape)).astype(np.complex64)
    dark, bright = dim(scan, 40), dim(scan, 1e6)
    assert noise_residual(Patterns(bright)) < 0.15 < noise_residual(Patterns(dark))
    for passes, likelihood in itertools.product((3, 10), (None, *Likelihood)):
        found = refine_scan(dark, start, passes=passes, likelihood=likelihood)
        assert error(found.object, scan) < 1.02 * error(start, scan)
    assert error(refine_scan(bright, start, passes=3).object, scan) < 0.5 * error(start, scan)


@pytest.mark.parametrize("photons", [1e2, 1e4])
def test_the_noise_is_that_of_the_true_model(scan: ScanDataset, photons: float) -> None:
    """[REFINE-013] to a third: what fades in the mean pattern is not known."""
    lit = dim(scan, photons)
    true = forward_residual(truth(scan), (0, 0), lit.probe, lit)
    assert noise_residual(Patterns(lit)) == pytest.approx(true, rel=0.34)
