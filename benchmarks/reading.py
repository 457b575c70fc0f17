"""What the checks of a scan cost beside reading its values into memory.

    python benchmarks/reading.py [--patterns 4096] [--size 128] [--repeats 5] [--scratch FOLDER]

For each format and dtype: CPU time of reading the patterns into memory, that of reading them with all checks
(`read_scan`), and that of one pass that only looks for the largest value, which is what the memory allows. All are
measured in turn, several times in one process, and the least of each counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import read_scan
from ptychopinn.data.open_scan import open_scan
from ptychopinn.simulate import simulate_scan

_METADATA = '{"schema_version": 1, "measurement": "amplitude"}'
_KEYS = {"uint16": "diff3d", "float32": "diffraction"}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patterns", type=int, default=4096, help="Of a scan (default: 4096).")
    parser.add_argument("--size", type=int, default=128, help="Of a pattern (default: 128).")
    parser.add_argument("--repeats", type=int, default=5, help="Of each measurement (default: 5).")
    parser.add_argument("--scratch", type=Path, help="Folder for the scans (default: one that is removed).")
    args = parser.parse_args(arguments)
    print("| file | reading, s | with the checks, s | the checks add | one pass over the values, s |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        for path, dtype in write_scans(Path(folder), args.patterns, args.size):
            print(row(path, dtype, args.repeats), flush=True)
    return 0


def write_scans(folder: Path, count: int, size: int) -> Iterator[tuple[Path, str]]:
    """Files of one simulated scan in several formats, one at a time, each with the dtype of its patterns."""
    side = max(int(np.sqrt(count)), 2)
    scan = simulate_scan(SimulationConfig(N=size, rows=side, cols=side, nphotons=1e5))
    counts = scan.counts(slice(None))
    rest = {"xcoords": scan.positions[:, 1], "ycoords": scan.positions[:, 0], "probeGuess": scan.probe}
    for dtype, key in _KEYS.items():
        patterns = counts.astype(np.uint16) if dtype == "uint16" else np.sqrt(counts)
        arrays = {key: patterns, **rest} | ({} if dtype == "uint16" else {"_metadata": np.array(_METADATA)})
        for name, save in (("NPZ", np.savez), ("NPZ, compressed", np.savez_compressed)):
            save(path := folder / f"{name}.npz", **arrays)
            yield path, dtype
            path.unlink()
        for name, options in _filters():
            with h5py.File(path := folder / f"{name}.h5", "w") as file:
                for label, array in arrays.items():
                    chunked = {"chunks": (1, size, size), **options} if label == key else {}
                    file.create_dataset(label, data=str(array) if label == "_metadata" else array, **chunked)
            yield path, dtype
            path.unlink()


def _filters() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "HDF5, gzip", {"compression": "gzip"}
    try:
        import hdf5plugin
    except ImportError:
        return
    yield "HDF5, bitshuffle and LZ4", dict(hdf5plugin.Bitshuffle(cname="lz4"))


def row(path: Path, dtype: str, repeats: int) -> str:
    """A line of the table."""
    key = _KEYS[dtype]
    mapped = open_scan(path).members[key].mapped

    def read() -> Any:
        values = [member.load() for name, member in open_scan(path).members.items() if name == key]
        return np.array(values[0]) if mapped else values[0]

    def read_and_check() -> Any:
        patterns = read_scan(path).patterns
        return np.array(patterns) if mapped else patterns

    values = read()
    seconds: dict[str, list[float]] = {}
    works: dict[str, Callable[[], Any]] = {"read": read, "check": read_and_check, "pass": values.max}
    for _ in range(repeats):
        for name, work in works.items():
            begun = time.process_time()
            work()
            seconds.setdefault(name, []).append(time.process_time() - begun)
    least = {name: min(found) for name, found in seconds.items()}
    added = least["check"] / least["read"] - 1
    return f"| {path.stem}, {dtype} | {least['read']:.3f} | {least['check']:.3f} | {added:.0%} | {least['pass']:.3f} |"


if __name__ == "__main__":
    raise SystemExit(main())
