"""Everything that is wrong with a file, at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.checks import check_scan
from ptychopinn.data.diagnostics import Problem, Severity
from ptychopinn.data.io import read_scan
from ptychopinn.errors import DataError


@pytest.fixture
def amplitudes(scan_arrays):
    return scan_arrays()["diffraction"].copy()


def texts(path, severity, **options):
    return [str(p) for p in check_scan(path, ReadOptions(**options)) if p.severity is severity]


def test_a_good_file_has_only_notes(tiny_scan):
    """[DATA-070]"""
    assert [str(p) for p in check_scan(tiny_scan)] == [
        "note: _metadata: pixel_size_m is not given: products get a placeholder. "
        "ptychopinn convert SCAN -o NEW.npz --pixel-size METRES gives it."
    ]


def test_a_problem_is_one_line():
    """[DATA-071]"""
    assert str(Problem(Severity.ERROR, "Y", "It is wrong.", "Leave it out.")) == "error: Y: It is wrong. Leave it out."
    assert str(Problem(Severity.NOTE, "", "It is so.")) == "note: It is so."


def test_all_problems_come_at_once_errors_first(save, amplitudes):
    """[DATA-011]"""
    amplitudes[3] = np.nan
    path = save(
        diffraction=amplitudes,
        ycoords=None,
        probeGuess=np.ones((64, 64), complex),
        objectGuess=np.ones((2, 50, 50), complex),
        scan_index=np.zeros(3, int),
        bad_pixels=np.zeros((5, 5), bool),
        _metadata=np.array("broken"),
        mine=np.zeros(2),
    )
    problems = check_scan(path)
    errors = {p.key for p in problems if p.severity is Severity.ERROR}
    assert errors == {"ycoords", "probeGuess", "objectGuess", "scan_index", "bad_pixels", "_metadata"}
    assert [p.severity for p in problems] == sorted((p.severity for p in problems), key=list(Severity).index)
    assert all(p.remedy for p in problems if p.severity is Severity.ERROR)
    amplitudes[:] = np.nan
    path = save(diffraction=amplitudes, ycoords=None, probeGuess=np.ones((64, 64), complex))
    assert {p.key for p in check_scan(path) if p.severity is Severity.ERROR} == {"ycoords", "diffraction", "probeGuess"}
    path = save(diffraction=None, xcoords=None, probeGuess=None)
    assert len(texts(path, Severity.ERROR)) == 3


def test_a_file_that_cannot_be_opened_is_one_error(tmp_path):
    """[DATA-011] [DATA-021]"""
    (problem,) = check_scan(tmp_path / "missing.npz")
    assert problem.severity is Severity.ERROR
    assert "is not there" in str(problem)


def test_checksums_of_mapped_arrays_are_verified(tmp_path, scan_arrays):
    """[DATA-011] [DATA-025]"""
    path = tmp_path / "scan.npz"
    np.savez(path, **scan_arrays(), Y=np.ones((9, 32, 32), complex), more=np.ones(200_000))
    assert not texts(path, Severity.ERROR)
    content = bytearray(path.read_bytes())
    content[content.rindex(np.ones(4).tobytes())] ^= 1
    path.write_bytes(content)
    read_scan(path)
    assert any("more: " in t and "damaged" in t for t in texts(path, Severity.ERROR))


def test_what_a_careful_eye_sees_in_patterns(save, amplitudes):
    """[DATA-070]"""
    few = texts(save(diffraction=amplitudes), Severity.WARNING, nphotons=50.0)
    assert any("50 photons in a pattern" in t for t in few)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (x[[0, 0, *range(2, 9)]], y[[0, 0, *range(2, 9)]]), "1 of 9 positions are repeated"),
        (lambda x, y: (x * 30, y * 30), "do not overlap"),
        (lambda x, y: (x + 500, y), "9 of 9 positions lie outside objectGuess"),
        (lambda x, y: (y + 500, x), "Check the frame"),
    ],
)
def test_what_a_careful_eye_sees_in_positions(save, scan_arrays, change, said):
    """[DATA-070]"""
    arrays = scan_arrays()
    x, y = change(arrays["xcoords"], arrays["ycoords"])
    warnings = texts(save(xcoords=x, ycoords=y), Severity.WARNING)
    assert any(said in t for t in warnings), warnings


def test_exchanged_coordinates_are_noticed(save):
    """[DATA-070]"""
    x, y = np.linspace(20, 80, 9), np.linspace(10, 15, 9)
    path = save(xcoords=y, ycoords=x, objectGuess=np.random.default_rng(0).random((30, 100)) + 0j)
    assert any("With x and y exchanged" in t for t in texts(path, Severity.WARNING))


def test_what_a_careful_eye_sees_in_the_rest(save, scan_arrays, amplitudes):
    """[DATA-070]"""
    probe = scan_arrays()["probeGuess"]
    notes = texts(save(probeGuess=probe * np.float32(0.01), objectGuess=np.ones((60, 60), complex)), Severity.NOTE)
    assert any("rescaled to them" in t for t in notes)
    assert any("1+0j everywhere" in t for t in notes)
    shifted = np.roll(amplitudes, (3, 0), (1, 2))
    assert any("lie (+3.0, " in t for t in texts(save(diffraction=shifted), Severity.NOTE))
    far = np.roll(amplitudes, (0, 6), (1, 2))
    assert any("wrong centre or probe" in t for t in texts(save(diffraction=far), Severity.WARNING))
    index = np.array([0] * 8 + [4])
    assert any("1 scans have one pattern: 4" in t for t in texts(save(scan_index=index), Severity.WARNING))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_reading_and_checking_agree(tmp_path_factory, data):
    """[DATA-011] A file is refused exactly when there is an error in the list."""
    choose = lambda *options: data.draw(st.sampled_from(options))  # noqa: E731
    n, size = choose(0, 1, 4), choose(32, 32, 30)
    patterns = np.zeros((n, size, size), choose("u2", "f4", "c8"))
    patterns[:, size // 2, size // 2] = choose(0, 3, 2.5)
    arrays = {
        choose("diffraction", "diff3d"): patterns,
        "xcoords": np.arange(choose(n, n, 3), dtype=float),
        "ycoords": np.full(n, choose(1.0, 1.0, np.nan)),
        "probeGuess": np.full((size, size), choose(1j, 1j, 0)),
        "scan_index": np.zeros(choose(n, n, 5), choose(int, "U1")),
        "_metadata": np.array(choose("{}", '{"measurement": "counts"}', "broken")),
    }
    path = tmp_path_factory.getbasetemp() / "agree.npz"
    np.savez(path, **arrays)
    options = {"measurement": choose(None, "counts", "amplitude")}
    errors = [p for p in check_scan(path, ReadOptions(**options)) if p.severity is Severity.ERROR]
    if not errors:
        assert len(read_scan(path, **options)) == n
        return
    with pytest.raises(DataError) as caught:
        read_scan(path, **options)
    assert errors[0].message in str(caught.value)
