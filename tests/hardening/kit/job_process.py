"""A process that forks others, which work until they are done or killed; so that frameworks are imported once.

``python -m hardening.kit.job_process`` reads lines of JSON (a job, its settings, when to kill it) and answers each with
how the child that did it ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hardening.kit import archives, products

from ptychopinn.bundle import Bundle, read_bundle, write_bundle
from ptychopinn.comparison import compare_run
from ptychopinn.config import RunSettings
from ptychopinn.config.files import write_config_file
from ptychopinn.config.run import AllSettings
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import PtychoPinnError
from ptychopinn.product import Product, read_product, write_product
from ptychopinn.workflows import _outputs, infer_run, load_reconstructor, run_settings, stream_run, train_run

try:
    import resource
except ImportError:  # the tests are then skipped
    resource = None  # type: ignore[assignment]

MODEL = {"n_filters_scale": 0.25, "group_size": 4, "iterations": 1}
TRAIN = {"nepochs": 6, "batch_size": 8, "checkpoint_every": 1, "seed": 5, "probe_refinement": 1}
INFER = {"refine": 1}


def save(folder: Path, scan: Path) -> None:
    """Write one archive, product, scan and configuration over the other, for ever."""
    bundle, product, data = _sources(scan)
    for seed in cycle((0, 1)):
        manifest = bundle.manifest.model_copy(update={"extra": {"seed": seed, "filling": "x" * 20_000 * seed}})
        write_bundle(folder / "model.zip", manifest, bundle.weights)
        write_product(folder / "product.h5", product)
        write_scan(folder / "scan.npz", data)
        write_config_file(folder / "config.yaml", RunSettings(train={"seed": seed}))


@cache
def _sources(scan: Path) -> tuple[Bundle, Product, ScanDataset]:
    with tempfile.TemporaryDirectory() as folder:
        (archive := Path(folder) / "source.zip").write_bytes(archives.whole())
        (product := Path(folder) / "source.h5").write_bytes(products.whole())
        return read_bundle(archive), read_product(product), read_scan(scan)


def train(folder: Path, scan: Path, **settings: Any) -> None:
    """A short training; a changed learning rate fails it late or early."""
    changed = settings.pop("train", {})
    sections = {"model": MODEL, "infer": INFER, "execution": {"accelerator": "cpu"}, "reading": {}}
    sections = {name: settings.pop(name, given) for name, given in sections.items()}
    given = run_settings("torch", train=TRAIN | changed, **sections)
    train_run(scan, folder / "run", given, **settings)


def infer(folder: Path, scan: Path, **settings: Any) -> None:
    """Reconstruct with the model that is there."""
    changed, model = settings.pop("infer", {}), settings.pop("model")
    given = run_settings(infer=INFER | changed, execution={"accelerator": "cpu"})
    infer_run(model, scan, folder / "run", given, **settings)


def load(folder: Path, scan: Path, *, model: str, source: str) -> None:
    """Load a model whose manifest has another configuration."""
    with zipfile.ZipFile(Path(source) / "wts.h5.zip") as archive:
        manifest, weights = archive.read("manifest.json"), archive.read("weights.h5")
    changed = json.loads(manifest) | {"model": "@@"}
    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps(changed).replace('"@@"', model))
        archive.writestr("weights.h5", weights)
    load_reconstructor(folder / "model.zip", options={"accelerator": "cpu"})


def stream(folder: Path, scan: Path, *, model: str) -> None:
    """Follow a scan in HDF5 that is measured already, and write pictures all the time."""
    data = read_scan(scan)
    with tempfile.TemporaryDirectory() as measured:
        with h5py.File(path := Path(measured) / "scan.h5", "w", libver="latest") as file:
            file["diffraction"] = np.sqrt(data.counts(slice(None)))
            file["ycoords"], file["xcoords"] = data.positions.T
            file["probeGuess"], file["finished"] = data.probe, 1
        given = run_settings(infer=INFER, reading={"measurement": "amplitude"})
        stream_run(model, str(path), folder / "run", given, interval_s=0, overwrite=True)


def compare(folder: Path, scan: Path, *, resume: bool) -> None:
    """Compare two solvers on the scan, each in a process of its own."""
    settings = AllSettings(solver={"passes": 3}, comparison={"legs": ["epie", "rpie"], "memory_mb": 2000})
    compare_run(scan, scan, folder / "run", settings, resume=resume)


JOBS = {"compare": compare, "stream": stream, "load": load, "save": save, "train": train, "infer": infer}


def child(order: dict[str, Any]) -> int:
    """Do one job; the exit code is that of the error."""
    _sources(Path(order["scan"]))  # kept from now on: what follows may not write anything
    if limit := order.get("file_bytes"):
        sys.dont_write_bytecode = True  # Python 3.11 would leave the first bytes of it
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if limit := order.get("memory_bytes"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit += pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if order.get("nobody"):
        os.setgid(65534)
        os.setuid(65534)
    if not order.get("pictures"):
        _outputs.write_pictures = lambda *args, **kwargs: {}
    try:
        JOBS[order["job"]](Path(order["folder"]), Path(order["scan"]), **order.get("settings", {}))
    except PtychoPinnError as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error), "remedy": error.remedy}), flush=True)
        return error.exit_code
    except BaseException:
        print(json.dumps({"error": "other", "text": traceback.format_exc()[-4000:], "remedy": ""}), flush=True)
        return 99
    return 0


def descendants(pid: int) -> list[int]:
    """The processes that a process began, and theirs, whatever group or session they are in."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
    found, newest = [], [pid]
    while newest:
        newest = [child for child, parent in parents.items() if parent in newest]
        found += newest
    return found


def main() -> None:
    """Answer lines until there are no more."""
    import torch

    torch.set_num_threads(1)
    from ptychopinn.plugins import discover

    discover().get("torch").load_class()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 98
            try:
                os.setpgid(0, 0)
                code = child(order)
            finally:
                sys.stdout.flush()
                os._exit(code)
        began, others = time.monotonic(), []
        if (seconds := order.get("kill_after")) is not None:
            time.sleep(seconds)
            others = descendants(pid)
            os.kill(pid, signal.SIGKILL)  # it is not waited for yet: the number is still its own
        _, status = os.waitpid(pid, 0)
        ending = {"status": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began}
        print(json.dumps({**ending, "others": others}), flush=True)


if __name__ == "__main__":
    main()
