"""What a scan in tiles takes: processor time of each job, memory of each process, bytes of each tile.

    python benchmarks/tiles.py --size 128 --patterns 200000 --tiles 4 --workers 2

Wall times mean something on a quiet machine only; processor times on any. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from tiled_scans import field_of, write_npz

from ptychopinn.config.run import AllSettings
from ptychopinn.jobs import LOG
from ptychopinn.jobs.memory import descendants
from ptychopinn.product import read_product
from ptychopinn.tiled import tiled_run

_TICKS = os.sysconf("SC_CLK_TCK")


class Watch:
    """Follows this process and its descendants until it ends."""

    def __init__(self) -> None:
        self.memory: dict[str, float] = {}  # kind of process to its most anonymous memory, MiB
        self.seconds: dict[str, float] = {}  # kind of process to the processor time of all of that kind
        self._before: dict[int, float] = {}  # processor time of each process so far
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            for pid in descendants(os.getpid()):
                with contextlib.suppress(OSError):  # it has just ended
                    self._look(pid)

    def _look(self, pid: int) -> None:
        status = Path(f"/proc/{pid}/status").read_text()
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        log = Path(f"/proc/{pid}/fd/2").readlink()  # of the job that it does
        kind = "parent" if pid == os.getpid() else log.parts[-3] if log.name == LOG else ""
        anonymous = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
        if kind:
            self.memory[kind] = max(self.memory.get(kind, 0), *(round(int(kib) / 1024) for kib in [*anonymous, 0]))
            now = (int(times[11]) + int(times[12])) / _TICKS
            self.seconds[kind] = self.seconds.get(kind, 0.0) + now - self._before.get(pid, 0.0)
            self._before[pid] = now


def main() -> None:
    """Make the scan, reconstruct it, and print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("size", 64), ("patterns", 10_000), ("tiles", 2), ("workers", 2), ("passes", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--object", type=Path, help="Write the object to this file (.npy).")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.npz"
        write_npz(path, field_of(args.size, args.patterns), args.patterns)
        tiles = {"tiles": args.tiles, "workers": args.workers, "passes": args.passes}
        settings = AllSettings(tiles=tiles, automatic={"may_free": []})
        begun = time.monotonic()
        with Watch() as watch:
            found = tiled_run(path, Path(folder) / "out", settings, model="none")
        if args.object is not None:
            np.save(args.object, read_product(found.files["product"]).object)
    facts = {name: getattr(args, name) for name in ("size", "patterns", "tiles", "workers", "passes")}
    facts |= {"R": found.figures["forward residual R"], "wall_s": round(time.monotonic() - begun, 1)}
    print(
        json.dumps(
            {
                **facts,
                "processor_s": {kind: round(value, 2) for kind, value in watch.seconds.items()},
                "anonymous_MiB": watch.memory,
            }
        )
    )


if __name__ == "__main__":
    main()
