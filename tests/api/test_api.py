"""Scans, models and results in memory. Requirements: specs/26-python.md."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import ptychopinn
from ptychopinn import Model, Result, Scan
from ptychopinn.config import ExecutionOptions, ModelConfig, ReadOptions, TrainConfig
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.errors import ConfigError, DataError, PluginError, UsageError
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.product import read_product
from ptychopinn.progress import NotebookBars

Do = Callable[[], object]


def arrays_of(scan: Scan) -> dict[str, Any]:
    return {"positions": scan.positions, "probe": scan.probe, "object_guess": scan.object_guess}


def test_arrays_give_the_scan_that_a_file_gives(scan: Scan, tmp_path: Path) -> None:
    """[API-001] A hot pixel and a lost pattern are found in both."""
    patterns = scan.patterns.astype(np.uint32)
    patterns[:, 3, 3] = 10**6
    patterns[5] = 0
    np.savez(
        tmp_path / "scan.npz",
        diff3d=patterns,
        xcoords=scan.positions[:, 1],
        ycoords=scan.positions[:, 0],
        probeGuess=scan.probe,
    )
    of_file = ptychopinn.read(tmp_path / "scan.npz")
    of_arrays = ptychopinn.read(patterns, positions=scan.positions, probe=scan.probe)
    assert of_arrays.bad_pixels[3, 3]
    assert len(of_arrays) == 63
    assert [one.text for one in of_arrays.findings] == [one.text for one in of_file.findings]
    for name in ("patterns", "positions", "probe", "bad_pixels", "numbers", "scan_index"):
        np.testing.assert_array_equal(getattr(of_arrays, name), getattr(of_file, name))
    by_hand = ptychopinn.ScanDataset(
        patterns, ptychopinn.read_scan(tmp_path / "scan.npz").measurement, scan.positions, scan.probe
    )
    assert [one.text for one in ptychopinn.read(by_hand).findings] == [one.text for one in of_file.findings]


def test_positions_in_metres_become_pixels(scan: Scan) -> None:
    """[API-001] 8 keV, 1.9 m and pixels of 75 µm: the object pixel is wavelength x distance / (N x detector pixel)."""
    pixel = 1.2398419843320026e-06 / 8000 * 1.9 / (32 * 75e-6)
    made = ptychopinn.read(
        scan.patterns,
        positions=scan.positions * pixel * 1e6,
        probe=scan.probe[0],
        bad_pixels=np.eye(32),
        position_unit="um",
        energy=8000,
        distance=1.9,
        detector_pixel=75e-6,
        measurement="counts",
        name="mine",
    )
    np.testing.assert_allclose(made.positions, scan.positions)
    assert made.metadata.pixel_size_m == pytest.approx(pixel)
    assert made.name == "mine"
    assert made.bad_pixels.sum() == 32


def test_masked_values_are_no_measurement(scan: Scan) -> None:
    """[API-001] Of patterns they are bad, a position is unknown: the numbers below a mask are no data."""
    mask = np.zeros(scan.patterns.shape, bool)
    mask[:, 3, 4] = mask[5, 7] = True
    patterns = np.ma.masked_array(np.rint(scan.counts(slice(None))).astype(np.uint32), mask)
    found = ptychopinn.read(patterns, positions=scan.positions, probe=scan.probe)
    assert np.argwhere(found.bad_pixels).tolist() == [[3, 4]]
    assert found.bad_values is not None
    assert found.bad_values.patterns_with_any.tolist() == [5]
    positions = np.ma.masked_array(scan.positions, np.arange(len(scan))[:, None] == [9, 9])
    fewer = ptychopinn.read(patterns, positions=positions, probe=scan.probe)
    assert len(fewer) == len(scan) - 1
    assert "DATA-121" in {one.code for one in fewer.findings}


def test_what_is_no_scan_is_refused(scan: Scan, model: Model, tmp_path: Path) -> None:
    """[API-009]"""
    patterns, positions = scan.patterns, scan.positions
    refused: list[tuple[type[Exception], str, Do]] = [
        (UsageError, "ndarray", lambda: ptychopinn.train(patterns)),
        (UsageError, "NoneType", lambda: model.infer(None)),
        (UsageError, "positions is missing", lambda: ptychopinn.read(patterns)),
        (UsageError, "probe is missing.*mean", lambda: ptychopinn.read(patterns, positions=positions)),
        (UsageError, "depends on the scan.*installed: ", lambda: ptychopinn.load("pretrained")),
        (DataError, "is not there", lambda: ptychopinn.read(tmp_path / "no.npz")),
        (DataError, "Counts and amplitudes", lambda: ptychopinn.read(patterns * 1.0, **arrays_of(scan))),
        (DataError, "positions", lambda: ptychopinn.read(patterns, positions=positions[1:], probe=scan.probe)),
        (UsageError, "type Scan.*ptychopinn.train", lambda: ptychopinn.train_run(scan, tmp_path / "run")),
        (ConfigError, "TrainConfig is needed.*dict", lambda: model.reconstructor.train(scan, {"nepochs": 1})),
        (ConfigError, "A RunSettings is needed", lambda: ptychopinn.train_run("a.npz", tmp_path, {"nepochs": 1})),
        (ConfigError, "A RunSettings is needed", lambda: ptychopinn.infer_run("a", "a.npz", tmp_path, {"refine": 1})),
        (ConfigError, "An InferConfig is needed.*dict", lambda: model.reconstructor.infer(scan, {})),
        (UsageError, "type ndarray", lambda: model.reconstructor.infer(patterns, ptychopinn.InferConfig())),
    ]
    for kind, words, do in refused:
        with pytest.raises(kind, match=words):
            do()


def test_unknown_settings_say_which_may_be_meant(scan: Scan, model: Model) -> None:
    """[API-003]"""
    refused: list[tuple[str, Do]] = [
        ("did you mean learning_rate", lambda: ptychopinn.train(scan, lr=3)),
        ("refine is not a setting of train; it belongs to infer", lambda: ptychopinn.train(scan, refine=3)),
        ("did you mean refine", lambda: model.infer(scan, refin=3)),
        ("did you mean energy", lambda: ptychopinn.read(scan.patterns, **arrays_of(scan), enrgy=3)),
        ("did you mean max_time", lambda: ptychopinn.reconstruct(scan, maxtime=3)),
        ("max_time is -1", lambda: ptychopinn.reconstruct(scan, max_time=-1)),
        ("checkpoint_every has no effect", lambda: ptychopinn.train(scan, checkpoint_every=1)),
    ]
    for words, do in refused:
        with pytest.raises(ConfigError, match=words):
            do()
    with pytest.raises(ValueError, match="did you mean learning_rate"):
        ptychopinn.TrainConfig(lr=3)  # type: ignore[call-arg]


def test_memory_and_files_give_the_same(scan: Scan, model: Model, tmp_path: Path) -> None:
    """[API-002] [API-004] [ARC-017]"""
    ptychopinn.write_scan(tmp_path / "scan.npz", scan)
    settings = ptychopinn.run_settings("numpy", train={"nepochs": 3, "seed": 7})
    run = ptychopinn.train_run(tmp_path / "scan.npz", tmp_path / "run", settings)
    found = model.infer(scan, refine=1)
    np.testing.assert_allclose(
        ptychopinn.load(tmp_path / "run").infer(tmp_path / "scan.npz", refine=1).object, found.object, atol=2e-4
    )
    assert len(model.history["loss"]) == 3
    assert run.figures["loss"] == pytest.approx(model.history["loss"][-1], rel=1e-3)
    model.save(tmp_path / "model.zip")
    loaded = ptychopinn.load(tmp_path / "model.zip")
    np.testing.assert_array_equal(loaded.infer(scan, refine=1).object, found.object)
    assert loaded.conditions == model.conditions
    assert loaded.conditions is not None
    assert loaded.conditions.photons == pytest.approx(scan.metadata.nphotons)
    written = found.save(tmp_path / "out")
    np.testing.assert_array_equal(read_product(written.files["product"]).object, found.object)
    assert written.files["report"].is_file()
    reference = tmp_path / "reference.npz"
    np.savez(reference, object=scan.object_guess)
    scores = ptychopinn.evaluate_run(written.files["product"], reference, scan_path=tmp_path / "scan.npz")
    assert found.evaluate(reference) == pytest.approx(scores, abs=1e-5)
    assert found.evaluate() == found.evaluate(scan.object_guess) == found.evaluate(reference)
    with pytest.raises(UsageError, match="no object to compare with"):
        model.infer(ptychopinn.read(scan.patterns, positions=scan.positions, probe=scan.probe), refine=0).evaluate()


def test_a_reconstruction_tells_what_it_did_and_starts_from_a_model(scan: Scan, model: Model) -> None:
    """[API-002]"""
    seen: list[Result] = []
    found = ptychopinn.reconstruct(scan, model="none", max_time=20, update=seen.append)
    assert "flat object" in found.story[0]
    assert seen
    assert seen[0].residual >= found.residual
    again = ptychopinn.train(scan, start=model, nepochs=1)
    assert again.reconstructor is not model.reconstructor
    assert len(model.history["loss"]) == 3
    assert isinstance(ptychopinn.reconstruct(scan, model=again, max_time=5), Result)


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.append(tag)


def test_what_is_shown_is_short(scan: Scan, model: Model, result: Result) -> None:
    """[API-005]"""
    for shown, words in ((scan, "64 x 32 x 32"), (model, "finished"), (result, "explains the data")):
        assert words in repr(shown)
        assert len(repr(shown)) < 200
        html = shown._repr_html_()
        assert (
            {"img", "table"}
            <= set(Tags(html).tags)
            <= {"div", "strong", "br", "img", "table", "tr", "th", "td", "ul", "li"}
        )
    assert not [name for name in result.figures if " " in name or "," in name]
    assert result.figures["forward_residual_R"] == result.residual
    assert "patterns=uint32(64, 32, 32)" in ptychopinn.ScanDataset.__repr__(scan)
    assert "probe=complex64(1, 32, 32)" in ptychopinn.Reconstruction.__repr__(result)
    assert len(ptychopinn.Reconstruction.__repr__(result)) < 1500
    evil = ptychopinn.read(scan.patterns, positions=scan.positions, probe=scan.probe, name="<script>")
    assert "script" not in Tags(evil._repr_html_()).tags


def test_plots_draw_on_given_axes(scan: Scan, model: Model, result: Result) -> None:
    """[API-006]"""
    from matplotlib.figure import Figure

    parts = ("phase", "amplitude", "complex", "coverage", "phase_error", "amplitude_error")
    draws: list[Callable[[Any], Any]] = [
        *(scan.plot, scan.plot_probe, scan.plot_positions, model.plot, result.plot_probe, result.plot_positions),
        *((lambda axes, part=part: result.plot(axes, part)) for part in parts),
    ]
    for draw in draws:
        axes = Figure().subplots()
        assert draw(axes) is axes
        assert axes.images or axes.lines
    with pytest.raises(UsageError, match="complex"):
        result.plot(Figure().subplots(), "phas")
    with pytest.raises(UsageError, match="mode 1"):
        scan.plot_probe(Figure().subplots(), 1)
    with pytest.raises(UsageError, match="uncertainty=True"):
        model.infer(scan, refine=0).plot(part="phase_error")


def test_plots_make_axes_where_none_are_given(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """[API-006]"""
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    axes = scan.plot_positions()
    assert axes.get_figure().number in pyplot.get_fignums()
    pyplot.close(axes.get_figure())


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_ends_a_training_and_keeps_the_model(
    times: int, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[API-007] The second one raises; the handler of the program is there again."""

    def interrupt(event: Progress) -> None:
        if event.stage == "train":
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("ptychopinn.api._watch.shown_progress", lambda: nullcontext(interrupt))
    before = signal.getsignal(signal.SIGINT)
    if times == 1:
        stopped = ptychopinn.train(scan, nepochs=200)
        assert stopped.status == "cancelled"
        assert len(stopped.history["loss"]) < 200
        assert stopped.infer(scan, refine=0, monitor=Monitor()).placed == len(scan)
    else:
        with pytest.raises(KeyboardInterrupt):
            ptychopinn.train(scan, nepochs=200)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_notebook_shows_one_line_a_stage(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """[API-007]"""
    updates: list[object] = []
    shown: list[Any] = []

    def display(what: object, display_id: bool) -> SimpleNamespace:
        assert display_id
        shown.append(what)
        return SimpleNamespace(update=updates.append)

    kernel = SimpleNamespace(kernel=object())
    ipython = SimpleNamespace(get_ipython=lambda: kernel, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", ipython)  # type: ignore[misc]
    ptychopinn.train(scan, nepochs=2)
    (bars,) = shown
    assert isinstance(bars, NotebookBars)
    assert bars._repr_html_().count("<progress") == repr(bars).count("\n") + 1
    assert "train " in repr(bars)
    assert len(updates) < 50


class StrictDataset:
    """What xarray.Dataset checks: every axis has one length."""

    def __init__(self, data: dict[str, Any], coords: dict[str, Any], attrs: dict[str, Any]) -> None:
        self.sizes: dict[str, int] = {name: len(values) for name, values in coords.items()}
        for axes, array in data.values():
            assert len(axes) == np.ndim(array)
            for axis, length in zip(axes, np.shape(array), strict=True):
                assert self.sizes.setdefault(axis, length) == length
        self.coords, self.attrs = coords, attrs


def test_arrays_have_named_axes(scan: Scan, result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """[API-008]"""
    monkeypatch.setitem(sys.modules, "xarray", None)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="pip install xarray"):
        result.to_xarray()
    module = ModuleType("xarray")
    module.Dataset = StrictDataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xarray", module)
    found = result.to_xarray()
    assert found.sizes["y"] == result.object.shape[0]
    assert found.coords["y"][0] == result.frame.origin[0]
    assert scan.to_xarray().sizes == {"pattern": 64, "qy": 32, "qx": 32, "axis": 2, "mode": 1, "v": 32, "u": 32}


@pytest.mark.parametrize(
    "models",
    [
        (TrainConfig, ModelConfig, ExecutionOptions),
        (ReadOptions, ConversionOptions),
        (AutomaticConfig, ExecutionOptions),
    ],
)
def test_no_name_of_a_setting_is_in_two_sections_of_a_verb(models: tuple[type[BaseModel], ...]) -> None:
    """[API-003] Otherwise a keyword would be ambiguous."""
    names = [name for model in models for name in model.model_fields]
    assert len(names) == len(set(names))
