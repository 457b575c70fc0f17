"""The start of a scan in tiles that a network draws.

Phases of patches are solved for the whole scan, as one process does it: a tile measures the overlaps of its patterns,
and the phases of all follow from them. The patches need more memory than the disk may have, so the network draws
them once more to stitch them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ptychopinn.arrays import NUMPY
from ptychopinn.assembly import PhaseRule, phases_by, place_patches
from ptychopinn.batch.plan import settings_from
from ptychopinn.config.infer import InferConfig, ProbeSource
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.geometry import Frame, split_positions
from ptychopinn.monitor import Monitor
from ptychopinn.patch_store import PatchStore
from ptychopinn.reconstructor import Prediction, Reconstructor, every_pattern_once
from ptychopinn.stitching import Stitcher, patch_weights
from ptychopinn.synchronise import measure_overlaps, overlap_pairs, overlaps_of
from ptychopinn.tiled.store import NETWORK, OBJECT, TileStore, load_arrays, save_arrays
from ptychopinn.tiled.tile import OpenTile
from ptychopinn.tiles import where_object_fits
from ptychopinn.typing import ComplexArray, FloatArray, IntArray
from ptychopinn.workflows import load_reconstructor

_OVERLAPS, _PAIRS, _PHASES = "overlaps.npz", "pairs.npz", "phases.npz"
_PATCH_MIB = 256  # memory for the patches of a tile; the others are in a temporary file


def load_network(files: TileStore) -> Reconstructor:
    """The network of a scan in tiles, on the device that the settings name."""
    settings, backend = settings_from(files.plan["settings"]), files.plan["network"]["backend"]
    return load_reconstructor(files.folder / NETWORK, backend=backend, options=settings.execution)


# Of the parent


def put_pairs(store: TileStore, round_name: str) -> None:
    """Write for each tile which patches are compared: those of its core with those of larger numbers.

    Both are members of the tile, because the halo is wider than the distance of patches that are compared.
    """
    size = store.plan["network"]["patch_size"]
    corners, _ = split_positions(store.positions(), size)
    pairs = overlap_pairs(corners, size)
    for number in range(len(store.cores)):
        known = store.tile(number)
        owns = np.zeros(len(corners), bool)
        owns[known.members[known.own]] = True
        path = store.job_folder(round_name, number) / _PAIRS
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(path, pairs=np.searchsorted(known.members, pairs[owns[pairs[:, 0]]]))


def put_phases(store: TileStore, round_name: str, rule: PhaseRule) -> None:
    """Write the phases of the patches of all tiles, which follow from the overlaps of a round."""
    overlaps = overlaps_of(*_read_overlaps(store, round_name))
    save_arrays(store.folder / round_name / _PHASES, phases=phases_by(rule, overlaps))


def _read_overlaps(store: TileStore, round_name: str) -> tuple[IntArray, ComplexArray, FloatArray, ComplexArray]:
    """Arguments of `overlaps_of`: what all tiles wrote."""
    n = len(store.positions())
    energies, means = np.zeros(n), np.zeros(n, np.complex128)
    pairs, values = list[IntArray](), list[ComplexArray]()
    for number in range(len(store.cores)):
        part = load_arrays(store.job_folder(round_name, number) / _OVERLAPS)
        energies[part["numbers"]], means[part["numbers"]] = part["energies"], part["means"]
        pairs.append(part["pairs"])
        values.append(part["values"])
    return np.concatenate(pairs), np.concatenate(values), energies, means


# Jobs


def measure_tile(store: str, number: int, after: str, monitor: Monitor) -> dict[str, Any]:
    """Write the overlaps of the patches of a tile."""
    files = TileStore(store)
    known, folder = files.tile(number), files.job_folder(after, number)
    pairs: IntArray = load_arrays(folder / _PAIRS)["pairs"]
    data = files.scan(known.members)
    with _predict(files, data, monitor) as prediction:
        size, library = prediction.patch_size, prediction.library
        weights = patch_weights(library.to_host(prediction.probe), size)
        with PatchStore(len(known.members), size, library, _PATCH_MIB << 20) as placed:
            place_patches(prediction, data, placed)
            corners, _ = split_positions(known.positions, size)
            overlaps = measure_overlaps(placed, corners, weights, library, pairs)
    matrix, own = overlaps.matrix, known.own
    save_arrays(
        folder / _OVERLAPS,
        numbers=known.members[own],
        energies=matrix.diagonal().real[own],
        means=overlaps.means[own],
        pairs=known.members[pairs].astype(np.int32),  # the parent has those of all tiles in memory
        values=np.asarray(matrix[pairs[:, 0], pairs[:, 1]]).ravel(),
    )
    return {}


def stitch_tile(store: str, number: int, measured: str | None, after: str, monitor: Monitor) -> dict[str, Any]:
    """Write the object that the network draws for a tile, 0 where it draws nothing.

    Parameters
    ----------
    measured:
        The round whose overlaps gave the phases of the patches; None leaves them as the network has them.

    Returns
    -------
    ``light``: by how much each judging pattern has more counts than the object explains. ``total``: real and imaginary
    part of the sum over the core.
    """
    files = TileStore(store)
    tile = OpenTile(files, number, NUMPY)
    phases = None
    if measured is not None:
        phases = load_arrays(files.folder / measured / _PHASES)["phases"][tile.known.members]
    with _predict(files, tile.patterns.data, monitor) as prediction:
        library = prediction.library
        stitcher = Stitcher(
            patch_weights(library.to_host(prediction.probe), prediction.patch_size), tile.frame, library
        )
        for batch in every_pattern_once(prediction.batches, len(tile.known.members)):
            some = None if phases is None else phases[batch.indices]
            stitcher.add(batch.patches, tile.known.positions[batch.indices], some)
        stitched = stitcher.take_result()
        obj, covered = (np.asarray(library.to_host(array)) for array in (stitched.object, stitched.covered))
    tile.put(after, OBJECT, np.where(covered, obj, 0))
    core, _ = tile.frame.overlap(tile.core)
    total = complex(obj[core].sum(where=covered[core], dtype=np.complex128))
    return {"light": tile.light(obj), "total": [total.real, total.imag]}


def scale_tile(
    store: str, number: int, before: str, after: str, factor: list[float], monitor: Monitor
) -> dict[str, Any]:
    """Write the object of a tile times a factor, its real and imaginary part, and judge it.

    Also measures the gradients of its slow phase.
    """
    tile = OpenTile(TileStore(store), number, NUMPY)
    drawn = tile.read(before, OBJECT)
    obj = np.where(drawn == 0, np.complex64(1), drawn * np.complex64(complex(*factor)))
    tile.put(after, OBJECT, obj)
    tile.measure_gradients(obj, after, monitor)
    return {"missed": tile.judge(obj), "counts": tile.counts}


@contextmanager
def _predict(files: TileStore, data: ScanDataset, monitor: Monitor) -> Iterator[Prediction]:
    """What the network predicts, on its device if the object of the tile fits there."""
    config = InferConfig(probe_source=ProbeSource.SCAN, memory_budget_mb=_PATCH_MIB)
    prediction = load_network(files).infer(data, config, monitor=monitor)
    frame = Frame.around(data.positions, prediction.patch_size)
    if where_object_fits(frame, data.N, prediction.library) is not prediction.library:
        prediction = prediction.on_host()
    with prediction.library.session():
        yield prediction
