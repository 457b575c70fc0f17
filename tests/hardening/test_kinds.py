"""No kind of a bad scan gives a bad picture without a word. The table of docs/hardening.md is what this prints."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

import numpy as np
import pytest
from hardening.kit.kinds import good_scan, made_by_cases, write_good, write_kinds
from scipy.ndimage import zoom

from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.errors import DataError
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.workflows import create_solver, solve
from ptychopinn.workflows.reference import embed

_PASSES = 8
_SHOWN = 110  # characters of an outcome
_RIGHT = 0.1  # relative error of the object; that of the good scan is 0.02
_DOUBTS = {
    "DATA-063",
    "DATA-128",
    "DATA-133",
    "DATA-134",
    "DATA-135",
}  # findings that say that the picture will be wrong


def outcome(name: str, path: Path, good: ScanDataset) -> str:
    """What becomes of a scan: refused, a right picture, a true warning, or silence over a bad picture."""
    how = ""
    try:
        data = read_scan(path)
    except DataError as error:
        if not error.remedy:
            return "silent: refused without a remedy"
        said = f"refused: {error.problem.replace(f'{path}: ', '').replace(str(path), 'it')}"
        if "--measurement" in error.remedy:
            how, data = "refused; with --measurement counts: ", read_scan(path, measurement=Measurement.COUNTS)
        else:
            return said
    found = solve(create_solver("rpie", {"passes": _PASSES}), data)
    error = _error(found, data, good, _size_scale(name, data.N))
    mended = f" after {data.findings[0].code}" if data.findings else ""
    if error <= _RIGHT:
        return f"{how}right picture{mended}"
    assert found.verdict is not None
    doubts = [one.text for one in data.findings if one.code in _DOUBTS]
    if said := [*doubts, *found.verdict.causes]:
        return f"{how}warning: {said[0]}"
    return f"silent{mended}: {found.verdict.explains}, error {error:.2f}"


def _error(found: Reconstruction, data: ScanDataset, good: ScanDataset, scale: tuple[float, float]) -> float:
    """Relative error of the object where the patterns truly are."""
    truth = good.object_guess
    assert truth is not None
    numbers = np.arange(len(good)) if data.numbers is None else data.numbers
    true, obj, origin = good.positions[numbers], found.object, found.frame.origin
    if scale != (1.0, 1.0):  # another size of the patterns makes other object pixels
        obj = zoom(obj.real, scale, order=3) + 1j * zoom(obj.imag, scale, order=3)
        origin = (round(origin[0] * scale[0]), round(origin[1] * scale[1]))
    moved = np.median(data.positions * scale - true, axis=0)
    place = np.rint(np.asarray(origin) - moved).astype(int)
    whole = embed(truth.shape, obj, (int(place[0]), int(place[1])))
    return float(score(align(truth, whole, scan_box(good.positions, truth.shape)))["nrmse"])


def _size_scale(name: str, size: int) -> tuple[float, float]:
    """Width of an object pixel of a kind in those of the good scan: other sizes are cropped or padded to ``size``."""
    stated = re.fullmatch(r"(\d+) x (\d+) pixels", name)
    return (1.0, 1.0) if stated is None else (int(stated[1]) / size, int(stated[2]) / size)


def test_no_kind_is_silent(
    long: bool, figure: Callable[[str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[HARD-042] [VER-002] Each gives a right picture, a refusal with a remedy, or a picture with a true warning."""
    caplog.set_level(logging.CRITICAL)
    good = good_scan()
    path = write_good(tmp_path / "good.npz")
    silent = []
    files = [*write_kinds(tmp_path)] if long else [*write_kinds(tmp_path, every=6)]
    if long:
        files += made_by_cases(path, tmp_path)
    for name, file in files:
        found = outcome(name, file, good)
        figure(f"| {name} | {shorten(found, _SHOWN, placeholder=' ...')} |")
        if found.startswith("silent"):
            silent.append(name)
    assert not silent
