"""Pictures and tables of comparisons and studies: specs/06-product.md."""

from __future__ import annotations

import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ptychopinn.metrics import frc
from ptychopinn.report import (
    Curve,
    Panel,
    ReportContent,
    Table,
    _candidates,
    bare_phase,
    candidates_picture,
    curves_picture,
    frc_picture,
    montage_picture,
    report_html,
)


def make_object(shape=(60, 48), amplitude=0.1):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (1 + amplitude * np.sin(x / 5)) * np.exp(0.5j * np.cos(y / 7 + x / 11))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize("candidates", [1, 3, 4, 7])
@pytest.mark.parametrize("known", [True, False])
def test_any_number_of_candidates(candidates: int, known: bool) -> None:
    """[REP-009] With and without a reference."""
    objects = {f"candidate {k}": make_object(amplitude=0.1 * k) for k in range(candidates)}
    png = candidates_picture(
        "phase", make_object() if known else None, objects, notes={"candidate 0": "SSIM 1"}, title="$t$"
    )
    assert np.ptp(pixels(png)) > 100


def test_legs_share_the_colours_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """[REP-009] Whatever the others look like; differences are on the scale of the worst."""
    scales: list[tuple[float, float]] = []
    draw = _candidates._draw

    def noted(axes, values, limits, *more):
        scales.append(limits)
        draw(axes, values, limits, *more)

    monkeypatch.setattr(_candidates, "_draw", noted)
    reference = make_object()
    candidates_picture("amp", reference, {"a": make_object() * 1.05, "b": make_object(amplitude=0.9)})
    assert set(scales) == {_candidates.colour_range(np.abs(reference)), scales[-1]}
    assert scales.count(_candidates.colour_range(np.abs(reference))) == 3
    assert scales.count(scales[-1]) == 2
    assert scales[-1][1] == -scales[-1][0] > 0.5


def test_a_phase_on_the_scale_of_another() -> None:
    """[REP-013] One of one colour is told from the other where they lie on each other."""
    reference = make_object()
    same, other = pixels(bare_phase(reference, reference)), pixels(bare_phase(np.ones_like(reference), reference))
    assert same.shape == other.shape == (*reference.shape, 3)
    assert np.ptp(same) > 100
    assert np.ptp(other, axis=(0, 1)).max() == 0


def test_large_pictures_are_made_small() -> None:
    """[REP-009] Means of pixels, so that a large scan makes no large page."""
    assert len(candidates_picture("amp", None, {"a": make_object((1500, 1100))})) < 2**20


def test_ring_correlations_of_candidates() -> None:
    """[REP-009] One curve a candidate, amplitude beside phase; none is fine too."""
    a, b = (np.abs(make_object(amplitude=v)) for v in (0.1, 0.3))
    curves = {"amp": {"one": frc(a, b), "two": frc(a, a)}, "phase": {}}
    assert np.ptp(pixels(frc_picture(curves, title="t"))) > 100


def test_curves_of_a_study() -> None:
    """[REP-010] Medians with bands; a candidate without a value keeps its place."""
    curve = Curve([1e3, 1e5], [0.1, 0.5], [0.0, 0.4], [0.2, 0.6])
    panels = [[Panel("ssim", "dense", {"a": curve, "b": Curve([], [], [], [])}), Panel("ssim", "sparse", {"a": curve})]]
    assert np.ptp(pixels(curves_picture(panels, "photons", log=True, title="t"))) > 100
    unknown = Curve([1e4], [np.nan], [np.nan], [np.nan])  # a scan that is too small for the figure
    assert np.ptp(pixels(curves_picture([[Panel("frc", "all", {"a": unknown})]], "photons", log=True))) > 100


def test_montage_of_a_study() -> None:
    """[REP-010] A picture that failed leaves its place empty."""
    columns = {"1e3": {"reference": make_object(), "a": make_object()}, "1e5": {"reference": make_object()}}
    png = montage_picture("phase", columns, title="t")
    assert pixels(png).shape[1] > pixels(montage_picture("phase", {"1e3": columns["1e3"]})).shape[1]


def test_tables_with_a_column_for_each_figure() -> None:
    """[REP-011] Escaped, the best marked, folded ones after the pictures."""
    grid = Table(["leg", "a<b"], [["x & y", "1"], ["z", "2"]], frozenset({(1, 1)}), note="n>1")
    folded = Table(
        ["leg", "all"], [["x", "a sentence that is longer than any figure could be, and wraps"]], folded=True
    )
    page = report_html(ReportContent("t", lead="l<1", grids={"One": grid, "All": folded}, summary={"k": "v"}))
    assert '<th scope="col">a&lt;b</th>' in page
    assert "x &amp; y" in page
    assert re.findall(r'<td class="best">(.*?)</td>', page) == ["2"]
    assert 'class="text"' in page
    assert page.index("<h2>One") < page.index("<details>")
    assert '<p class="lead">l&lt;1</p>' in page
    assert "n&gt;1" in page
