"""Pictures and the report: files that open, titles that cannot break them, one page that needs nothing else."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ptychopinn.errors import DataError, ResourceError, UsageError
from ptychopinn.metrics import ScanBox, align, remove_linear_phase, score
from ptychopinn.report import (
    ObjectView,
    ReportContent,
    Table,
    amplitude_picture,
    attempt,
    comparison_picture,
    history_picture,
    phase_picture,
    probe_picture,
    report_html,
    write_pictures,
    write_report,
)
from ptychopinn.report._axes import complex_colours, history_columns
from ptychopinn.report._figure import colour_range, printable, round_length
from ptychopinn.report._pictures import flat_phase

BOX = ScanBox(6, 50, 4, 40)


def make_object(shape=(60, 48)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (1 + 0.1 * np.sin(x / 5)) * np.exp(0.5j * np.cos(y / 7 + x / 11))


def make_probe(modes=2):
    y, x = np.mgrid[:16, :16] - 7.5
    return np.stack([np.exp(-(y**2 + x**2) / 20 + 0.1j * m * y) for m in range(1, modes + 1)])


def pixels(png: bytes) -> np.ndarray:
    """(H, W, 3) uint8 of a PNG that opens."""
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def test_pictures_of_a_run(tmp_path):
    """[REP-001] Amplitude, phase, probe and, with a history, its curve: pictures that are not blank."""
    history = {"epoch": [1, 2, 3], "seconds": [1, 2, 3], "loss": [3, 2, 1.5], "validation_loss": [np.nan, 2.5, 2]}
    written = write_pictures(tmp_path, make_object(), make_probe(), ObjectView(BOX, title="star"), history=history)
    assert {name: path.name for name, path in written.items()} == {
        name: f"{name}.png" for name in ("amplitude", "phase", "probe", "history")
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in written.values())
    for path in written.values():
        assert len(np.unique(pixels(path.read_bytes()).reshape(-1, 3), axis=0)) > 20
    assert "history" not in write_pictures(tmp_path, make_object(), make_probe(), history={"loss": [np.nan]})
    with pytest.raises(UsageError, match="does not exist"):
        write_pictures(tmp_path / "no", make_object(), make_probe())


def test_the_scan_box_is_what_is_shown():
    """[REP-001] Nothing outside the box has a say; an empty box shows everything."""
    obj = make_object()
    spoiled = np.full_like(obj, 50j)
    spoiled[BOX.slices] = obj[BOX.slices]
    for picture in (amplitude_picture, phase_picture):
        assert picture(spoiled, ObjectView(BOX)) == picture(obj, ObjectView(BOX))
        assert picture(obj, ObjectView(ScanBox(3, 3, 0, 9))) == picture(obj) != picture(obj, ObjectView(BOX))


def test_scales_ignore_a_few_wild_pixels():
    """[REP-002] Limits are the 0.5 and 99.5 percentiles of what is finite; a flat picture is not blown up."""
    values = np.linspace(0, 1, 10001)
    values[5] = 1e9
    assert colour_range(values) == pytest.approx((0.005, 0.995), abs=1e-3)
    assert colour_range(np.array([np.nan, 1.0, 2.0, np.inf])) == pytest.approx((1, 2), abs=0.01)
    low, high = colour_range(np.ones(9) + 1e-9 * np.arange(9))
    assert high - low == pytest.approx(0.01)
    assert low < 1 < high
    assert colour_range(np.full(3, np.nan)) == (0, 1)


def test_phase_is_shown_without_mean_and_ramp():
    """[REP-003] What intensities cannot tell is taken off, and told."""
    obj = make_object()
    phase, ramp = flat_phase(obj)
    changed = remove_linear_phase(obj, np.array([-0.4, 0.25])) * 3 * np.exp(2j)
    again, more = flat_phase(changed)
    assert np.allclose(again, phase, atol=0.02)
    assert more - ramp == pytest.approx((0.4, -0.25), abs=1e-3)
    holed = np.where(np.arange(48) > 40, np.nan, obj)
    assert np.isnan(flat_phase(holed)[0]).sum() == 60 * 7


@pytest.mark.parametrize(
    ("obj", "probe"),
    [
        (np.ones((20, 20), complex), np.zeros((1, 8, 8), complex)),
        (np.full((20, 20), np.nan, complex), np.full((1, 8, 8), np.nan, complex)),
        (np.ones((1, 1), complex), np.ones((1, 2, 2), complex)),
        (make_object((100, 12)), make_probe(9)),
        (np.exp(1j * np.random.default_rng(0).uniform(-3, 3, (20, 200))).astype(np.complex64), make_probe(1)),
    ],
)
def test_odd_objects_are_drawn(tmp_path, obj, probe):
    """[REP-002] Flat, not finite, tiny, narrow, wrapping: a picture, no warning, no error."""
    for path in write_pictures(tmp_path, obj, probe, ObjectView(origin=(-7, 9), pixel_size_m=5e-9)).values():
        assert pixels(path.read_bytes()).shape[2] == 3


@pytest.mark.parametrize("title", ["$\\bad{$", "a\nb\t\x07", "<b>&", "x" * 500, "雪"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_titles_of_strangers(title):
    """[REP-004] A scan's name is text, whatever it holds."""
    assert pixels(history_picture({"loss": [1.0]}, title=title)).size
    if "$" in title:  # what would be typeset, and fail
        assert pixels(amplitude_picture(make_object(), ObjectView(title=title))).size
        assert pixels(probe_picture(make_probe(1), title=title)).size
    assert len(printable(title)) <= 60
    assert printable(title).isprintable()


def test_all_phases_of_one_amplitude_look_equally_bright():
    """[REP-012]"""
    colours = complex_colours(np.exp(1j * np.linspace(-np.pi, np.pi, 90))[None], 1.0)[0]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert luminance.max() / luminance.min() < 1.4  # 13 for HSV
    assert np.linalg.norm(np.diff(colours, axis=0), axis=1).max() < 0.1  # and no jump, at the ends neither
    assert (complex_colours(np.array([[0, np.nan, 2]]), 1.0)[0, 0] == 0).all()


def test_the_length_of_a_scale_bar_is_round():
    """[REP-012]"""
    assert [round_length(most) for most in (9.9, 4.999, 2, 0.013)] == [5, 2, 2, 0.01]


def test_history_columns():
    """[REP-001] Losses are drawn, epochs and seconds are not."""
    history = {"epoch": [1], "seconds": [3.0], "loss": [1.0], "poisson_loss": [2.0], "lr": [1e-3], "mae_loss": [np.nan]}
    assert list(history_columns(history)) == ["loss", "poisson_loss"]
    assert pixels(history_picture({"loss": [-1.0, 0.0, 2.0]})).size


def test_same_input_same_picture():
    """[REP-005] Pictures are reproducible byte by byte, and no setting of the process is touched."""
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    assert phase_picture(make_object(), ObjectView(BOX)) == phase_picture(make_object(), ObjectView(BOX))
    assert dict(mpl.rcParams) == before


def test_matplotlib_is_imported_when_a_picture_is_drawn():
    """[REP-005] Importing the report imports no Matplotlib; drawing imports no pyplot."""
    code = (
        "import sys, numpy as np\n"
        "from ptychopinn.report import amplitude_picture, report_html, ReportContent\n"
        "report_html(ReportContent('t'))\n"
        "assert not any(m.split('.')[0] == 'matplotlib' for m in sys.modules)\n"
        "amplitude_picture(np.ones((4, 4), complex))\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_comparison():
    """[REP-006] Reference, reconstruction, difference and FRC, with and without figures."""
    obj = make_object()
    aligned = align(obj, obj + 0.05 * np.random.default_rng(0).normal(size=obj.shape), BOX)
    bare = comparison_picture(aligned, title="star")
    told = comparison_picture(aligned, score(aligned), title="star", pixel_size_m=1e-8)
    assert pixels(bare).shape[1] > 1500
    assert bare != told
    flat = align(obj, np.zeros_like(obj), BOX)
    assert pixels(comparison_picture(flat, score(flat))).size


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report_is_one_file(tmp_path):
    """[REP-007] [REP-013] Everything is in the page; nothing is fetched; it may run nothing."""
    png = amplitude_picture(make_object())
    (tmp_path / "a.png").write_bytes(png)
    content = ReportContent(
        title="scan 12",
        summary={"residual R": "0.19"},
        tables={"Configuration": {"N": "64"}, "Scores": {"phase_ssim": "0.71"}},
        figures=[("Amplitude", tmp_path / "a.png"), ("Again", png)],
        warnings=["Nearly flat."],
        verdict="It explains <nothing>.",
        verdict_kind="bad",
        sliders=[("Move it", png, png)],
        figure_widths={"Again": 30},
    )
    path = write_report(tmp_path / "report.html", content)
    assert path == tmp_path / "report.html"
    text = path.read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert [tags["class"] for tag, tags in page.tags if tag == "p"] == ["verdict bad"]
    assert [tags.get("class") for tag, tags in page.tags if tag == "div" and "class" in tags][-3:] == [
        "figures",
        "slider",
        "top",
    ]
    assert [tags["style"] for tag, tags in page.tags if tag == "figure" and "style" in tags] == ["width: 30%"]
    for words in (
        "It explains <nothing>.",
        "Move it",
        "scan 12",
        "residual R",
        "0.19",
        "Configuration",
        "phase_ssim",
        "0.71",
        "Again",
        "Nearly flat.",
    ):
        assert words in page.text
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert [attrs["alt"] for attrs in images] == ["Move it", "Move it", "Amplitude", "Again"]
    for attrs in images:
        head, data = attrs["src"].split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data, validate=True) == png
        assert (int(attrs["height"]), int(attrs["width"])) == pixels(png).shape[:2]
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert not re.search(r"https?:|url\(|@import", text)
    assert "default-src 'none'" in text
    assert "@media print" in text


@pytest.mark.parametrize(("value", "text"), [(0.123456, "0.1235"), (36, "36"), ("on", "on"), (None, "-")])
def test_values_are_shown_as_a_person_would_write_them(value, text):
    content = ReportContent("t", {"k": value}, {"T": {"k": value}}, grids={"G": Table(["a", "b"], [["k", value]])})
    page = report_html(content)
    assert f"<dd>{text}</dd>" in page
    assert page.count(f'<th scope="row">k</th><td>{text}</td>') == 2


def test_report_escapes_everything():
    """[REP-007] Text of strangers stays text, wherever it stands."""
    evil = "<script>alert('1')</script>\"&\ud800"
    png = history_picture({"loss": [1.0]})
    page = Page(report_html(ReportContent(evil, {evil: evil}, {evil: {evil: evil}}, [(evil, png)], [evil])))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) == 9  # title twice, summary, table, caption, warning
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == [evil]


def test_lone_surrogates_do_not_stop_the_report(tmp_path):
    """[REP-007] What is no valid Unicode becomes a question mark."""
    write_report(tmp_path / "r.html", ReportContent("a\ud800b"))
    assert "<h1>a?b</h1>" in (tmp_path / "r.html").read_text("utf-8")


def test_figures_must_be_png(tmp_path):
    """[REP-008] A missing figure, or one that is no PNG, is refused and nothing is written."""
    (tmp_path / "a.png").write_bytes(b"GIF89a" + b"0" * 40)
    for figure, message in (
        (tmp_path / "a.png", "a.png.* is no PNG"),
        (tmp_path / "missing.png", "cannot be read"),
        (b"\x89PNG", "is no PNG"),
    ):
        with pytest.raises(DataError, match=message):
            write_report(tmp_path / "report.html", ReportContent("t", figures=[("c", figure)]))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_large_object_is_reduced_before_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """[REP-001] to means over squares; axes still count in pixels of the object, and the ramp is a pixel's."""
    from ptychopinn.report import _pictures

    monkeypatch.setattr(_pictures, "_MAX_SHOWN_PX", 50)
    shown = []
    for name in ("draw_amplitude", "draw_phase"):
        draw = getattr(_pictures, name)
        monkeypatch.setattr(
            _pictures,
            name,
            lambda axes, values, *a, draw=draw: (shown.append((axes, values)), draw(axes, values, *a))[1],
        )
    y, x = np.mgrid[:120, :100]
    obj = ((1 + (x > 50)) * np.exp(0.01j * y)).astype(np.complex64)
    assert _pictures.amplitude_picture(obj).startswith(b"\x89PNG")
    assert _pictures.phase_picture(obj).startswith(b"\x89PNG")
    (axes, amplitude), (_, phase) = shown
    assert amplitude.shape == phase.shape == (40, 33)
    assert axes.get_xlim() == (-0.5, 98.5)
    assert axes.get_ylim() == (119.5, -0.5)
    np.testing.assert_allclose(amplitude[:, [0, -1]], [[1, 2]] * 40, rtol=1e-5)
    assert np.abs(phase).max() < 0.02


@pytest.mark.parametrize(
    "settings",
    [
        {"text.usetex": True},
        {"image.origin": "lower", "image.cmap": "jet"},
        {"savefig.format": "pdf", "savefig.bbox": "tight", "savefig.transparent": True},
        {"font.family": ["A font that is not there"], "axes.grid": True},
        {"figure.autolayout": True, "image.interpolation": "bicubic"},
    ],
)
def test_settings_of_the_user_change_no_picture(settings) -> None:
    """[RUN-005] And they are as they were afterwards."""
    import matplotlib as mpl

    history = {"epoch": [1, 2], "loss": [3, 2]}
    draw = [
        lambda: phase_picture(make_object(), ObjectView(title="star")),
        lambda: probe_picture(make_probe()),
        lambda: history_picture(history),
    ]
    expected = [picture() for picture in draw]
    with mpl.rc_context(settings):
        assert [picture() for picture in draw] == expected
        assert {name: mpl.rcParams[name] for name in settings} == settings


@pytest.mark.parametrize(
    ("backend", "taken"), [("module://of_a_notebook.inline", True), ("svg", True), ("none such", False)]
)
def test_a_backend_of_a_notebook_that_is_not_there_does_not_matter(backend: str, taken: bool) -> None:
    """[RUN-005] MPLBACKEND as the programs have it that a notebook starts; it holds for other pictures if it can."""
    code = (
        "import os, numpy as np\n"
        "from ptychopinn.report import amplitude_picture\n"
        "assert amplitude_picture(np.ones((8, 8), complex))[:4] == b'\\x89PNG'\n"
        "import matplotlib\n"
        f"assert os.environ['MPLBACKEND'] == {backend!r}\n"
        f"assert (matplotlib.rcParams['backend'] == {backend!r}) is {taken}\n"
    )
    env = os.environ | {"MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_picture_that_fails_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """[RUN-005] With its reason; a full disk is an error, because files that come later will fail too."""

    def fail(error: Exception) -> None:
        raise error

    assert attempt("The picture", lambda: 3) == 3
    assert attempt("The picture", lambda: fail(RuntimeError("latex\nwas not found"))) is None
    assert caplog.messages == ["The picture could not be made: RuntimeError: latex was not found"]
    with pytest.raises(ResourceError):
        attempt("The picture", lambda: fail(ResourceError("The disk is full.")))


def test_threads_that_draw_at_once_leave_the_settings_of_the_user() -> None:
    """[RUN-005]"""
    import matplotlib as mpl

    history = {"epoch": [1, 2], "loss": [3, 2]}
    with mpl.rc_context({"axes.grid": True}):
        with ThreadPoolExecutor(4) as pool:
            pictures = list(pool.map(lambda _: history_picture(history), range(12)))
        assert mpl.rcParams["axes.grid"] is True
    assert set(pictures) == {history_picture(history)}
