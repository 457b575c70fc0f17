"""Kinds of scans that once gave a picture of noise without a word, each made out of one good scan."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.inspection.changes import ORIENTATIONS, Change
from ptychopinn.simulate import simulate_probe, simulate_scan

SHARED = Path(__file__).resolve().parents[4] / "shared"
_MAKERS = ("01-gap-sentinel-wider-dtype", "02-positions-units-axes", "03-hdf5-filters-layouts", "05-gap-of-zeros")
_MORE_MAKERS = ("20-zingers", "24-one-lost-position")

Arrays = dict[str, Any]
Kind = Callable[[Arrays], Arrays]


def good_scan() -> ScanDataset:
    """The scan that all kinds are made of; it has its true object."""
    config = SimulationConfig(N=32, rows=12, cols=12, seed=3, nphotons=2e5, object_kind="mixture")
    return simulate_scan(config)


def arrays_of(scan: ScanDataset) -> Arrays:
    """What a beamline would write: counts, positions, probe."""
    return {
        "diff3d": np.rint(scan.counts(slice(None))).astype(np.uint32),
        "xcoords": scan.positions[:, 1],
        "ycoords": scan.positions[:, 0],
        "probeGuess": scan.probe,
    }


def _counts(change: Callable[[Any], Any]) -> Kind:
    return lambda arrays: {**arrays, "diff3d": change(arrays["diff3d"].copy())}


def _filled(value: float, dtype: Any, where: Any, every: int = 1) -> Kind:
    def change(counts: Any) -> Any:
        counts = counts.astype(dtype)
        counts[(slice(None, None, every), *where)] = value
        return counts

    return _counts(change)


def _frame(number: int, change: Callable[[Any, np.random.Generator], Any]) -> Kind:
    def of(counts: Any) -> Any:
        counts[number] = change(counts[number], np.random.default_rng(0))
        return counts

    return _counts(of)


def _moved(change: Callable[[Any, Any], tuple[Any, Any]], **metadata: float) -> Kind:
    def of(arrays: Arrays) -> Arrays:
        x, y = change(arrays["xcoords"] - arrays["xcoords"].mean(), arrays["ycoords"] - arrays["ycoords"].mean())
        return {**arrays, "xcoords": x, "ycoords": y, "_metadata": np.array(json.dumps(metadata))}

    return of


def _with_one(values: Any, number: int, value: float) -> Any:
    values = values.copy()
    values[number] = value
    return values


def _probe(change: Callable[[Any], Any]) -> Kind:
    return lambda arrays: {**arrays, "probeGuess": change(arrays["probeGuess"])}


def _turned(number: int) -> Kind:
    def of(arrays: Arrays) -> Arrays:
        turned = ORIENTATIONS[number].of_positions(np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1))
        return {**arrays, "ycoords": turned[:, 0], "xcoords": turned[:, 1]}

    return of


def _amplitudes(fill: float) -> Kind:
    def of(arrays: Arrays) -> Arrays:
        counts = arrays["diff3d"].astype(np.float64)
        counts[:, 20:23] = fill
        rest = {name: value for name, value in arrays.items() if name != "diff3d"}
        return {**rest, "diffraction": np.sqrt(counts).astype(np.float32), "_metadata": np.array(_AMPLITUDE)}

    return of


def _shuffled(arrays: Arrays) -> Arrays:
    return {**arrays, "diff3d": arrays["diff3d"][np.random.default_rng(0).permutation(len(arrays["diff3d"]))]}


def _rows_backwards(values: Any) -> Any:
    rows = values.reshape(12, 12).copy()
    rows[1::2] = rows[1::2, ::-1]
    return rows.ravel()


def _half_transposed(counts: Any) -> Any:
    counts[::2] = counts[::2].transpose(0, 2, 1)
    return counts


def _rotate(x: Any, y: Any) -> tuple[Any, Any]:
    return 0.985 * x - 0.174 * y, 0.174 * x + 0.985 * y


def _random(x: Any, y: Any) -> tuple[Any, Any]:
    return np.random.default_rng(0).uniform(-40, 40, x.shape), np.random.default_rng(1).uniform(-40, 40, y.shape)


def _brighter(factor: float) -> Kind:
    def of(counts: Any) -> Any:
        counts[72:] *= np.uint32(factor)
        return counts

    return _counts(of)


def _dead_later(counts: Any) -> Any:
    counts[72:, :16, :16] = 0
    return counts


def _fading(counts: Any) -> Any:
    share = np.exp(-np.arange(len(counts)) / 25)[:, None, None]
    return np.random.default_rng(1).poisson(counts * share).astype(np.uint32)


def _background(counts: Any) -> Any:
    return counts + np.random.default_rng(1).poisson(20, counts.shape).astype(counts.dtype)


def _scattered(counts: Any) -> Any:
    return np.where(np.random.default_rng(2).random(counts.shape) < 0.02, -1, counts.astype(np.int32))


def _hot_and_gaps(counts: Any) -> Any:
    counts = counts.astype(np.float32)
    counts[(slice(None), *_PIXEL)] = 3_000_000
    counts[(slice(None, None, 5), *_GAP)] = 65535
    return counts


_AMPLITUDE = json.dumps({"schema_version": 1, "measurement": "amplitude"})
_GAP = (slice(20, 23),)
_PIXEL = (5, 7)
_PX = 3e-8
KINDS: dict[str, Kind] = {
    "as it is": dict,
    "counts in int64": _counts(lambda c: c.astype(np.int64)),
    "counts in big-endian float64": _counts(lambda c: c.astype(">f8")),
    "gap of 2^32 - 1 in uint32": _filled(2**32 - 1, np.uint32, _GAP),
    "gap of 2^32 - 1 in float32": _filled(2**32 - 1, np.float32, _GAP),
    "gap of 65535 in uint32": _filled(65535, np.uint32, _GAP),
    "gap of 2^24 - 1 in int64": _filled(2**24 - 1, np.int64, _GAP),
    "gap of 2^31 - 1 in float64": _filled(2**31 - 1, np.float64, _GAP),
    "gap of -1": _filled(-1, np.int32, _GAP),
    "gap of -2 in float32": _filled(-2, np.float32, _GAP),
    "gap of NaN": _filled(np.nan, np.float32, _GAP),
    "gap of infinity": _filled(np.inf, np.float32, _GAP),
    "gap of the root of 2^32 - 1, amplitudes": _amplitudes(2**32 - 1),
    "gap of the root of 65535, amplitudes": _amplitudes(65535),
    "gap of 2^32 - 1 in every fifth frame": _filled(2**32 - 1, np.uint32, _GAP, every=5),
    "gap of -1 in every fifth frame": _filled(-1, np.int32, _GAP, every=5),
    "gap of NaN in every fifth frame": _filled(np.nan, np.float32, _GAP, every=5),
    "gap of 65535 in float32 in every fifth frame, a hot pixel": _counts(_hot_and_gaps),
    "-1 at 2% of the values, all over": _counts(_scattered),
    "gap of 0": _filled(0, np.uint32, _GAP),
    "dead pixel near the middle": _filled(0, np.uint32, (15, 18)),
    "beam stop of 0": _filled(0, np.uint32, (slice(15, 18), slice(15, 18))),
    "hot pixel": _filled(3_000_000, np.uint32, _PIXEL),
    "saturated at 2^12 - 1": _counts(lambda c: np.minimum(c, 4095)),
    "DC in the corner": _counts(lambda c: np.fft.ifftshift(c, axes=(1, 2))),
    "patterns off by 6 pixels": _counts(lambda c: np.roll(c, (6, -6), axis=(1, 2))),
    "flat background": _counts(_background),
    "a frame of noise": _frame(70, lambda c, rng: rng.integers(0, 2**31, c.shape)),
    "a frame of 65535": _frame(70, lambda c, rng: 65535),
    "a frame twice as bright": _frame(70, lambda c, rng: 2 * c),
    "a cosmic ray": _frame(70, lambda c, rng: _with_one(c, 4, 50_000_000)),
    "a third of the frames empty": _filled(0, np.uint32, (), every=3),
    "positions in metres": _moved(lambda x, y: (x * _PX, y * _PX), pixel_size_m=_PX),
    "positions in micrometres": _moved(lambda x, y: (x * _PX * 1e6, y * _PX * 1e6), pixel_size_m=_PX),
    "positions in nanometres": _moved(lambda x, y: (x * _PX * 1e9, y * _PX * 1e9), pixel_size_m=_PX),
    "positions in metres, pixel size unknown": _moved(lambda x, y: (x * _PX, y * _PX)),
    "a position 3000 px off": _moved(lambda x, y: (_with_one(x, 40, 3000), y)),
    "a position of 0 among absolute ones": _moved(lambda x, y: (_with_one(x + 5e3, 9, 0), _with_one(y + 5e3, 9, 0))),
    "a position of NaN": _moved(lambda x, y: (_with_one(x, 40, np.nan), y)),
    "positions scaled by 0.7": _moved(lambda x, y: (0.7 * x, 0.7 * y)),
    "positions scaled by 1.4": _moved(lambda x, y: (1.4 * x, 1.4 * y)),
    **{str(Change(positions=ORIENTATIONS[k])): _turned(k) for k in range(1, 8)},
    "patterns transposed": _counts(lambda c: np.ascontiguousarray(c.transpose(0, 2, 1))),
    "patterns off by one in the list": _counts(lambda c: np.roll(c, 1, axis=0)),
    "patterns off by two in the list": _counts(lambda c: np.roll(c, -2, axis=0)),
    "patterns shuffled": _shuffled,
    "probe from the corner": _probe(lambda p: np.fft.fftshift(p, axes=(-2, -1))),
    "conjugate probe": _probe(np.conj),
    "probe a hundred times too bright": _probe(lambda p: 10 * p),
    "another probe": _probe(lambda p: simulate_probe("gaussian", 32, photons=2e5)),
    "30 x 32 pixels": _counts(lambda c: np.ascontiguousarray(c[:, 1:31])),
    "33 x 33 pixels": _counts(lambda c: np.pad(c, ((0, 0), (0, 1), (0, 1)))),
    "amplitudes in uint8": _counts(lambda c: np.rint(np.sqrt(c)).astype(np.uint8)),
    "bytes in the other order": _counts(lambda c: c.byteswap()),
    "the same pattern everywhere": _counts(lambda c: np.repeat(c[:1], len(c), axis=0)),
    "every other pattern transposed": _counts(_half_transposed),
    "a pattern lost in the middle": _counts(lambda c: np.concatenate([c[:70], c[71:], c[-1:]])),
    "ten times the light in the second half": _brighter(10),
    "light that fades to a hundredth": _counts(_fading),
    "a quarter of the detector dead in the second half": _counts(_dead_later),
    "rows that ran backwards": _moved(lambda x, y: (_rows_backwards(x), _rows_backwards(y))),
    "positions rotated by ten degrees": _moved(_rotate),
    "positions ten times too far apart": _moved(lambda x, y: (10 * x, 10 * y)),
    "positions at random": _moved(_random),
    "a probe of ones": _probe(np.ones_like),
    "no probe": lambda arrays: {name: value for name, value in arrays.items() if name != "probeGuess"},
    "no positions": lambda arrays: {name: value for name, value in arrays.items() if name != "xcoords"},
    "a probe of zeros": _probe(np.zeros_like),
}


def made_by_cases(scan: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and files of the inputs in the shared folder; none where it is missing."""
    for name in (*_MAKERS, *_MORE_MAKERS):
        maker = SHARED / "cases" / name / "make.py"
        if not maker.exists():
            continue
        made = folder / name
        made.mkdir()
        subprocess.run([sys.executable, str(maker), str(scan), str(made)], check=True, capture_output=True)
        for path in sorted(made.iterdir()):
            if path.suffix in {".npz", ".h5", ".cxi", ".mat"} and path.stem != "scan_data_000001":
                yield f"cases/{name[:2]}: {path.name}", path


def write_kinds(folder: Path, *, every: int = 1) -> Iterator[tuple[str, Path]]:
    """Names and files of kinds, one at a time."""
    arrays = arrays_of(good_scan())
    for number, (name, kind) in enumerate(KINDS.items()):
        if number % every == 0:
            path = folder / f"kind-{number}.npz"
            np.savez(path, **kind(arrays))
            yield name, path


def write_good(path: Path) -> Path:
    """The good scan as the cases take it."""
    write_scan(path, good_scan())
    return path
