"""Write the plan of a scan in tiles: which patterns belong to a tile, which judge, which steps are taken."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.atomic import read_record
from ptychopinn.config.automatic import AutomaticConfig, Freedom
from ptychopinn.config.infer import Likelihood
from ptychopinn.config.run import AllSettings
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.digests import digest_of
from ptychopinn.geometry import Frame
from ptychopinn.metrics.baselines import is_noisy
from ptychopinn.metrics.quality import RESIDUAL_PATTERNS
from ptychopinn.refinement import refinement_schedule
from ptychopinn.refinement.judging import split_used_and_held_out
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.solvers.positions import MAX_MOVE_PX
from ptychopinn.solvers.slow_phase import SlowPhaseGrid
from ptychopinn.tiled.plan import ScanTile
from ptychopinn.tiled.store import GRID, NETWORK, PLAN, TilePatterns, TileStore, save_arrays
from ptychopinn.typing import IntArray, StrPath

_FORMAT = 3  # of the files of tiles; a new number makes all old ones invalid


@dataclass(frozen=True)
class Network:
    """A network to start from: its archive, and the backend to compute with."""

    archive: Path
    backend: str | None
    patch_size: int


def prepare_tiles(
    folder: Path,
    path: StrPath,
    data: ScanDataset,
    tiles: Sequence[ScanTile],
    settings: AllSettings[Any, Any],
    network: Network | None,
) -> TileStore:
    """Write the plan of a scan and the patterns of its tiles, and copy its network.

    What is in the folder stays if it is of the same scan file and network (by path, size and time), tiles and settings;
    else it is removed.

    Raises
    ------
    ResourceError
        If the disk is full.
    """
    of_network = None if network is None else [*_facts(network.archive), network.backend]
    given = settings.model_dump(mode="json", include={"backend", "execution"}, exclude_unset=True)
    chosen = {"passes": settings.tiles.passes, "may_free": sorted(settings.automatic.may_free), "settings": given}
    key = digest_of([_FORMAT, _facts(path), of_network, settings.reading.model_dump(mode="json"), chosen, len(tiles)])
    if read_record(folder / PLAN).get("key") == key:
        return TileStore(folder)
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir()
    data.log_mean_probe()
    patterns = Patterns(data)
    noisy = is_noisy(patterns)
    used, judges = split_used_and_held_out(patterns, noisy=noisy)
    passes = settings.tiles.passes
    predicted = refinement_schedule(passes, noisy=noisy)
    schedules = {"flat": predicted if noisy else rpie_schedule(passes), "predicted": predicted}
    frame = Frame.around(data.positions, data.N, margin_of(settings.automatic))
    grid = SlowPhaseGrid.over(frame.local(data.positions[used]), data.probe)
    save_arrays(folder / GRID, **{name: np.asarray(value) for name, value in vars(grid).items()})
    judges = judges[evenly_spread(len(judges), RESIDUAL_PATTERNS)]
    _put_patterns(folder, data, tiles, used, judges, used[grid.chosen])
    if network is not None:
        shutil.copyfile(network.archive, folder / NETWORK)
    plan = {
        **chosen,
        "key": key,
        "size": data.N,
        "frame": [frame.shape, frame.origin],
        "cores": [[tile.core.shape, tile.core.origin] for tile in tiles],
        "frames": [[tile.frame.shape, tile.frame.origin] for tile in tiles],
        "used": len(used),
        "noisy": noisy,
        "likelihood": str(Likelihood.POISSON if noisy else Likelihood.AMPLITUDE),
        "schedules": {start: asdict(schedule) for start, schedule in schedules.items()},
        "network": None if network is None else {"backend": network.backend, "patch_size": network.patch_size},
    }
    TileStore.create(folder, path, data, fit_scaling(data), plan)
    return TileStore(folder)


def margin_of(config: AutomaticConfig) -> int:
    """How far positions may move in passes over tiles, pixels."""
    return MAX_MOVE_PX if Freedom.POSITIONS in config.may_free else 0


def _put_patterns(
    folder: Path, data: ScanDataset, tiles: Sequence[ScanTile], used: IntArray, judges: IntArray, slow: IntArray
) -> None:
    """Write which patterns each tile has, and what they are for."""
    rank = np.full(len(data), -1)
    rank[used] = np.arange(len(used))
    judging, of_slow_phase = np.zeros(len(data), bool), np.zeros(len(data), bool)
    judging[judges], of_slow_phase[slow] = True, True
    for number, tile in enumerate(tiles):
        some = tile.members
        TileStore.put_tile(
            folder,
            number,
            TilePatterns(
                some,
                tile.own,
                data.positions[some],
                rank[some],
                np.flatnonzero(judging[some] & tile.own),
                np.flatnonzero(of_slow_phase[some] & tile.own),
            ),
        )


def _facts(path: StrPath) -> list[str | int]:
    facts = Path(path).stat()
    return [str(Path(path).absolute()), facts.st_size, facts.st_mtime_ns]
