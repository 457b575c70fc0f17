"""ePIE. Requirements: specs/03-physics.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychopinn import parallel
from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.config.solver import SolverOptions
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.forward import expected_counts
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.monitor import Monitor
from ptychopinn.reconstructor import Solver
from ptychopinn.refinement import RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_object, simulate_scan
from ptychopinn.solvers import EPIE, RPIE, engine, epie, frame_of, probe_state, refine_probe
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.solvers.options import PassOptions, StepSchedule, default_batch_size


def scan(obj=None, **changes):
    config = {"N": 32, "rows": 12, "cols": 12, "nphotons": 1e6} | changes
    return simulate_scan(SimulationConfig(**config), obj=obj)


@pytest.fixture(scope="module")
def data():
    return scan()


def free_probe(passes):
    """What `refine_probe` changes, and how."""
    return PassOptions(rpie_schedule(passes), update_probe=True)


def ordered(seed):
    """The usual passes, their patterns in an order of one's own."""
    return PassOptions(rpie_schedule(2), seed=seed)


def empty(frame):
    """An object of which nothing is known."""
    return Canvas(flat_object(frame), frame)


def error(found, data, truth=None):
    """|G - R| / |G| inside the box of positions, one complex factor removed."""
    low, high = data.positions.min(axis=0).astype(int), data.positions.max(axis=0).astype(int)
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    true, found = (data.object_guess if truth is None else truth)[box], found[box]
    found = found * (np.vdot(found, true) / np.vdot(found, found))
    return np.linalg.norm(true - found) / np.linalg.norm(true)


def likeness(a, b):
    return abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b)


def wrong_probe(probe):
    """The same probe with another curvature and width, and the same energy."""
    i = np.arange(probe.shape[-1]) - (probe.shape[-1] - 1) / 2
    r2 = (i[:, None] ** 2 + i[None, :] ** 2) / (0.16 * len(i)) ** 2
    off = probe * np.exp(-(0.2 + 0.4j) * r2)
    return (off * np.linalg.norm(probe) / np.linalg.norm(off)).astype(np.complex64)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [({}, 0.02), ({"probe_modes": 3}, 0.04), ({"bad_pixel_fraction": 0.1}, 0.02), ({"scan_kind": "raster"}, 0.03)],
)
def test_the_object_comes_back(changes, limit):
    """[PHYS-030] at fractional positions, with several modes, with bad pixels."""
    data = scan(**changes)
    start = np.ones(data.object_guess.shape, np.complex64)
    result = epie(Patterns(data), data.probe, passes=20)
    assert error(result.object, data) < limit < error(start, data) / 3
    assert result.object.dtype == np.complex64


def test_bad_pixels_say_nothing():
    """[PHYS-030] whatever is written there, the object is the same."""
    data = scan(bad_pixel_fraction=0.1, rows=4, cols=4)
    patterns = data.patterns.copy()
    patterns[:, data.bad_pixels] = 1000
    spoiled = replace(data, patterns=patterns)
    clean, other = (epie(Patterns(d), data.probe, passes=2) for d in (data, spoiled))
    np.testing.assert_array_equal(clean.object, other.object)
    blind = replace(data, bad_pixels=None)  # the same zeros, believed
    good, bad = (epie(Patterns(d), data.probe, passes=10) for d in (data, blind))
    assert error(good.object, data) < 0.8 * error(bad.object, data)


def test_an_asymmetric_object_comes_back_upright():
    """[PHYS-030]"""
    obj = simulate_object("letter", (76, 76), np.random.default_rng(0))
    data = scan(obj=obj)
    found = epie(Patterns(data), data.probe, passes=20).object
    assert error(found, data) < 0.05
    for other in (obj[::-1], obj[:, ::-1], obj.T, np.rot90(obj), obj[::-1, ::-1]):
        assert error(found, data, other) > 0.2


def test_plain_epie_works_too(data):
    """[PHYS-030] slower, as the momentum and the denominator are for."""
    options = PassOptions(StepSchedule(alpha=1.0, momentum=0.0, settles=False))
    plain = epie(Patterns(data), data.probe, passes=5, options=options)
    ours = epie(Patterns(data), data.probe, passes=5)
    assert error(ours.object, data) < error(plain.object, data) < 0.4


def test_settling_averages_the_noise():
    """[PHYS-030] few photons, many passes."""
    data = scan(nphotons=3e3)
    settled, restless = (
        epie(Patterns(data), data.probe, passes=15, options=PassOptions(replace(rpie_schedule(15), settles=s)))
        for s in (True, False)
    )
    assert error(settled.object, data) < 0.8 * error(restless.object, data)


def test_the_first_step_is_the_formula():
    """[PHYS-030] one pattern, one step, written out."""
    data = scan(rows=1, cols=1, jitter_px=0.0)
    patterns, probe = np.sqrt(data.counts(slice(None))), data.probe.astype(complex)
    probe = np.roll(probe, (1, 0), axis=(1, 2))  # not symmetric
    options = PassOptions(StepSchedule(alpha=0.3, momentum=0.0, settles=False))
    result = epie(Patterns(data), probe, passes=1, options=options, start=empty(Frame.around(data.positions, 32)))
    moved = probe[0]
    corner = np.array(result.frame.origin)
    fraction = data.positions[0] - 15.5 - corner
    k = np.fft.fftfreq(32)
    ramp = [np.where(k == -0.5, np.cos(np.pi * f), np.exp(-2j * np.pi * f * k)) for f in fraction]
    moved = np.fft.ifft2(np.fft.fft2(moved) * ramp[0][:, None] * ramp[1][None, :])
    field = np.fft.fft2(moved, norm="ortho")
    measured = np.fft.ifftshift(patterns[0])
    weak = np.maximum(0.1 * measured, 0.3)
    change = np.fft.ifft2((measured - np.abs(field)) * field / np.maximum(np.abs(field), weak), norm="ortho")
    light = np.abs(moved) ** 2
    by_hand = 1 + moved.conj() * change / (0.7 * light + 0.3 * light.max())
    assert result.object.shape == (32, 32)
    np.testing.assert_allclose(result.object, by_hand, atol=1e-4)
    np.testing.assert_allclose(
        result.residuals, np.linalg.norm(measured - np.abs(field)) / np.linalg.norm(measured), rtol=1e-4
    )


def test_frames(data):
    """[PHYS-031]"""
    assert frame_of(data) == Frame(data.object_guess.shape)
    assert frame_of(replace(data, object_guess=None)) == Frame.around(data.positions, 32)
    whole = epie(Patterns(data), data.probe, passes=2)
    assert whole.object.shape == data.object_guess.shape
    assert whole.object[0, 0] == 1  # no window reaches the margin
    height, width = whole.object.shape
    for origin, shape in (((-7, 5), (30, 200)), ((20, 11), (9, 8)), ((500, 0), (4, 4)), ((82, 0), (30, 30))):
        frame = Frame(shape, origin)
        found = epie(Patterns(data), data.probe, passes=2, start=empty(frame))
        assert found.frame == frame
        expected = np.ones((1000, 1000), np.complex64)
        expected[100 : 100 + height, 100 : 100 + width] = whole.object
        y, x = 100 + origin[0], 100 + origin[1]
        np.testing.assert_array_equal(found.object, expected[y : y + shape[0], x : x + shape[1]])


def test_the_start(data):
    """[PHYS-032]"""
    truth = data.object_guess
    unchanged = epie(Patterns(data), data.probe, passes=0, start=Canvas(truth, Frame(truth.shape)))
    np.testing.assert_array_equal(unchanged.object, truth)
    assert unchanged.residuals == ()
    blurred = Canvas(0.9 * truth + 0.1, Frame(truth.shape))
    flat, near = (epie(Patterns(data), data.probe, passes=1, start=s) for s in (None, blurred))
    assert near.residuals[0] < 0.5 * flat.residuals[0]
    assert error(near.object, data) < error(flat.object, data)
    wide = np.full((truth.shape[0] + 9, truth.shape[1]), 2j, np.complex64)
    kept = epie(Patterns(data), data.probe, passes=1, start=Canvas(wide, Frame(wide.shape, (3, 0))))
    assert (kept.object[-8:] == 2j).all()


@pytest.mark.parametrize("modes", [1, 2])
def test_a_probe_that_is_off_comes_nearer(modes):
    """[PHYS-033]"""
    data = scan(rows=14, cols=14, probe_modes=modes)
    start = wrong_probe(data.probe)
    refined = refine_probe(data, start, 15)
    assert refined.dtype == np.complex64
    assert np.linalg.norm(refined) == pytest.approx(np.linalg.norm(start), rel=1e-5)
    before, after = (1 - likeness(p[0], data.probe[0]) for p in (start, refined))
    assert after < before / 4
    better, worse = (epie(Patterns(data), one, passes=10).residuals[-1] for one in (refined, start))
    assert better < 0.7 * worse


def test_object_and_probe_share_their_scale(data):
    """[PHYS-033] together they predict the counts."""
    result = epie(Patterns(data), wrong_probe(data.probe), passes=10, options=free_probe(10))
    predicted = expected_counts(result.object, result.probe, data.positions)
    amplitude = np.sqrt(data.counts(slice(None)))
    residual = np.linalg.norm(amplitude - np.sqrt(predicted)) / np.linalg.norm(amplitude)
    assert residual == pytest.approx(result.residuals[-1], rel=0.1)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (2, 3), (4, 4)])
def test_tiny_scans_do_not_run_away(rows, cols):
    """[PHYS-033] where every pattern is in every batch, too."""
    data = scan(rows=rows, cols=cols)
    for options in (None, free_probe(20)):
        residuals = epie(Patterns(data), wrong_probe(data.probe), passes=20, options=options).residuals
        assert residuals[-1] < 0.5 * residuals[0]


def test_residuals_fall(data):
    """[PHYS-034]"""
    seen = []
    monitor = Monitor(lambda p: seen.append((p.stage, p.done, p.figures)))
    result = epie(Patterns(data), data.probe, passes=6, monitor=monitor)
    assert len(result.residuals) == 6
    assert list(result.residuals) == sorted(result.residuals, reverse=True)
    assert seen == [("epie", i + 1, {"residual": r}) for i, r in enumerate(result.residuals)]
    noise = np.linalg.norm(
        np.sqrt(data.counts(slice(None))) - np.sqrt(expected_counts(data.object_guess, data.probe, data.positions))
    ) / np.sqrt(data.patterns.sum())
    assert result.residuals[-1] < 1.5 * noise


def test_seeds_and_caches(data):
    """[PHYS-035]"""
    first, again, other = (epie(Patterns(data), data.probe, passes=2, options=ordered(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.object, again.object)
    assert not np.array_equal(first.object, other.object)
    cached = Patterns(data, host_budget_bytes=1 << 30)
    kept = epie(cached, data.probe, passes=2, options=ordered(1))
    np.testing.assert_allclose(kept.object, first.object, atol=1e-4)


def test_cancelling(data):
    """[PHYS-036] after the first pass, and before anything."""
    monitor = Monitor(lambda progress: monitor.cancel())
    result = epie(Patterns(data), data.probe, passes=20, monitor=monitor)
    assert len(result.residuals) == 1
    assert error(result.object, data) < error(np.ones_like(result.object), data)
    untouched = epie(Patterns(data), data.probe, passes=3, monitor=monitor)
    assert (untouched.object == 1).all()


def test_rounding_does_not_decide_on_the_object():
    """[PHYS-039]"""
    data = scan(N=128, rows=8, cols=8, nphotons=1e5)
    assert (data.counts(slice(None)) == 0).mean() > 0.9
    frame = Frame.around(data.positions, 128)
    noise = 1e-6 * np.random.default_rng(0).normal(size=frame.shape)
    starts = (Canvas((1 + some).astype(np.complex64), frame) for some in (0 * noise, noise))
    one, other = (epie(Patterns(data), data.probe, passes=4, start=start).object for start in starts)
    assert np.linalg.norm(one - other) < 1e-4 * np.linalg.norm(one)


def test_dose_leaves_the_object(data):
    """[PHYS-037]"""
    brighter = replace(data, patterns=data.patterns * 9)
    probes = [probe_in_counts(d, fit_scaling(d), follow_offset=False) for d in (data, brighter)]
    np.testing.assert_allclose(probes[1], 3 * probes[0], rtol=1e-4)
    a, b = (epie(Patterns(d), p, passes=2) for d, p in zip((data, brighter), probes, strict=True))
    np.testing.assert_allclose(a.object, b.object, atol=3e-3)


def test_the_solver(data):
    """[PHYS-030] the same as the function with the scan's own probe; a `Solver`."""
    solver = RPIE(SolverOptions(passes=3, follow_offset=False))
    assert isinstance(solver, Solver)
    off = replace(data, probe=5 * data.probe)  # any scale will do
    probe = probe_in_counts(off, fit_scaling(off), follow_offset=False)
    found, expected = solver.reconstruct(off), epie(Patterns(off), probe, passes=3)
    np.testing.assert_array_equal(found.object, expected.object)
    np.testing.assert_array_equal(found.probe, expected.probe)
    assert found.residuals == expected.residuals


def test_plain_epie(data):
    """[PHYS-030] no regularisation, no momentum, equal steps."""
    probe = probe_in_counts(data, fit_scaling(data), follow_offset=False)
    schedule = StepSchedule(alpha=1, momentum=0, probe_step=0.5, probe_momentum=0, settles=False)
    for free in (False, True):
        plain = epie(Patterns(data), probe, passes=3, options=PassOptions(schedule, update_probe=free))
        found = EPIE(SolverOptions(passes=3, update_probe=free)).reconstruct(data)
        np.testing.assert_array_equal(found.object, plain.object)


def test_scans_of_a_file_are_one_object(data, caplog):
    """[DATA-065] which is told."""
    several = replace(data, scan_index=np.arange(len(data)) % 3)
    with caplog.at_level("INFO", logger="ptychopinn"):
        one, found = (EPIE(SolverOptions(passes=1)).reconstruct(scan).object for scan in (data, several))
    assert [r.getMessage() for r in caplog.records if "(scan_index) are reconstructed as one" in r.getMessage()] != []
    np.testing.assert_array_equal(one, found)


def test_an_offset_can_be_followed():
    """[PHYS-030] patterns off the centre of the detector cost little when the probe is told."""
    data = scan(detector_offset_px=(2.0, -1.0))
    followed, ignored = (RPIE(SolverOptions(passes=5, follow_offset=f)).reconstruct(data) for f in (True, False))
    assert followed.residuals[-1] < 0.6 * ignored.residuals[-1]


def test_a_probe_is_prepared_for_shifts_once_where_it_stays(data, monkeypatch):
    """[PHYS-030] A free one changes with every batch."""
    prepared = []
    original = probe_state.ShiftedProbe
    monkeypatch.setattr(probe_state, "ShiftedProbe", lambda probe, *a: prepared.append(probe) or original(probe, *a))
    for options, expected in ((None, 1), (free_probe(2), 0)):
        prepared.clear()
        epie(Patterns(data), data.probe, passes=2, options=options)
        assert len(prepared) == expected


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("moving", [False, True])
def test_a_probe_that_stays_is_shifted_once_where_memory_allows_it(data, monkeypatch, passes, moving):
    """[REFINE-008] with the same result; a single pass keeps nothing."""
    amplitudes, shifts = 4 * len(data) * data.N**2, 8 * data.probe.size * len(data)
    shifted = []
    original = probe_state.ShiftedProbe.__call__
    monkeypatch.setattr(
        probe_state.ShiftedProbe, "__call__", lambda self, at: shifted.append(len(at)) or original(self, at)
    )
    options = PassOptions(rpie_schedule(passes), update_positions=moving)
    found = []
    for budget, times in ((amplitudes + shifts - 1, passes), (amplitudes + shifts, passes if moving else 1)):
        shifted.clear()
        patterns = Patterns(data, host_budget_bytes=budget)
        found.append(epie(patterns, data.probe, passes=passes, options=options).object)
        assert sum(shifted) == times * len(data)
    np.testing.assert_allclose(*found, atol=1e-4)


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(10, 64, 8), (516, 128, 16), (2025, 64, 32), (4096, 64, 64), (100_000, 64, 128), (100_000, 128, 32)],
)
def test_the_usual_batch(count, size, expected):
    """[PHYS-030] Its patterns seldom meet, and its exit waves take 4 MiB."""
    assert default_batch_size(count, size) == expected


def test_threads_change_nothing(data, monkeypatch):
    """[PHYS-030] however many cores there are, and whether patterns of a batch are looked at together or apart."""
    found, frame = [], frame_of(data)
    flat = np.ones(frame.shape, np.complex64)
    for cores, values in ((1, 1 << 17), (1, 1 << 12), (4, 1 << 12)):
        monkeypatch.setattr(parallel, "granted_cores", lambda cores=cores: cores)
        monkeypatch.setattr(engine, "_THREAD_VALUES", values)
        options = RefineOptions(passes=2, update_probe=True, update_positions=True)
        found.append(refine(Patterns(data), ScanModel(data.probe, data.positions), Canvas(flat, frame), options))
    together, apart, threads = found
    np.testing.assert_array_equal(threads.object, apart.object)
    for name in ("probe", "positions"):
        np.testing.assert_array_equal(getattr(threads.model, name), getattr(apart.model, name))
    assert threads.summary == apart.summary
    np.testing.assert_allclose(apart.object, together.object, atol=1e-3)
    np.testing.assert_allclose(apart.model.positions, together.model.positions, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"probe": np.ones((1, 8, 8))}, DataError, r"\(1, 8, 8\)"),
        ({"probe": np.zeros((1, 32, 32))}, DataError, "no energy"),
        ({"start": Canvas(np.ones((3, 3), np.complex64), Frame((3, 4)))}, DataError, r"\(3, 3\)"),
        ({"passes": -1}, ConfigError, "-1 passes"),
    ],
)
def test_refusals(data, change, kind, words):
    """[PHYS-038]"""
    given = {"probe": data.probe} | change
    with pytest.raises(kind, match=words):
        epie(Patterns(data), given.pop("probe"), **given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alpha": 1.5}, "alpha 1.5"),
        ({"probe_step": -1.0}, "probe_step -1"),
        ({"momentum": 1.0}, "momenta of 1.0"),
        ({"probe_momentum": 1.0}, "momenta of 0.5 and 1.0"),
    ],
)
def test_steps_out_of_bounds_are_refused(change, words):
    """[PHYS-038] where they are given."""
    with pytest.raises(ConfigError, match=words):
        StepSchedule(**change)


def test_an_empty_batch_is_refused():
    """[PHYS-038]"""
    with pytest.raises(ConfigError, match="batch_size 0"):
        PassOptions(StepSchedule(), batch_size=0)


def test_an_empty_scan_is_refused(data):
    """[PHYS-038]"""
    with pytest.raises(DataError, match="no patterns"):
        epie(Patterns(data.select(np.zeros(0, np.int64))), data.probe)
