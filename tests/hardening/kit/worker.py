"""Opens mutated files, one case after another, under a limit of memory and with its deeds watched.

``python -m hardening.kit.worker FOLDER`` reads lines ``KIND NUMBER`` and answers each with a line of JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from ptychopinn.errors import PtychoPinnError

try:
    import resource
except ImportError:  # the tests are then skipped
    resource = None  # type: ignore[assignment]

SEED = 20_261_120
MEMORY_BYTES = 768 << 20
_MAX_MESSAGE_LENGTH = 4000
_FORBIDDEN = frozenset(
    {"os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pickle.find_class"}
    | {"socket.connect", "ctypes.dlopen", "os.symlink", "os.link", "webbrowser.open"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_MOVES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree"})


class Watch:
    """An audit hook that notes what opening a file must not do."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = str(scratch)
        self.target: str | None = None
        self.deeds: list[str] = []
        self._code = tuple(os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, *sys.path) if p)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Called by the interpreter for every event."""
        if self.target is None:
            return
        if event in _FORBIDDEN:
            self.deeds.append(f"{event} {args!r:.200}")
        elif event == "exec":
            name = getattr(args[0], "co_filename", "?")
            if not name.startswith(self._code) and not name.startswith("<frozen"):
                self.deeds.append(f"exec {name}")
        elif event in _MOVES or (event == "open" and isinstance(args[2], int) and args[2] & _WRITING):
            self._outside(event, args[0])

    def _outside(self, event: str, path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            name = os.path.realpath(os.fsdecode(path))
            if not name.startswith((str(self.target), self.scratch)) and name != os.devnull:
                self.deeds.append(f"{event} {name}")


def run_case(kind: str, number: int, folder: Path, watch: Watch) -> dict[str, Any]:
    """Make one mutated file, open it, and say what came of it."""
    module = importlib.import_module(f"hardening.kit.{kind}")
    rng = random.Random(f"{SEED} {kind} {number}")
    mutation = rng.choice(module.MUTATIONS)
    case, target = folder / "case", folder / "case" / "target"
    shutil.rmtree(case, ignore_errors=True)
    target.mkdir(parents=True)
    path = case / f"file{module.SUFFIX}"
    what = f"{mutation.__name__}: {mutation(rng, path)}"
    made = {p.name for p in case.iterdir()}  # with the neighbours of the file
    result = {"kind": kind, "number": number, "what": what, "outcome": "handled", "error": ""}
    began = time.monotonic()
    watch.deeds.clear()
    watch.target = str(target.resolve())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # one of NumPy's is a case that nobody thought of
            module.open_file(path, target, *([number] if kind == "forbidden_actions" else []))
    except PtychoPinnError as error:
        told = bool(error.problem and error.remedy) and len(str(error)) <= _MAX_MESSAGE_LENGTH
        result |= {"outcome": "refused" if told else "ill told", "error": f"{type(error).__name__}: {error!s:.400}"}
    except BaseException as error:
        result |= {"outcome": "raised", "error": "".join(traceback.format_exception(error))[-3000:]}
    finally:
        watch.target = None
    if watch.deeds:
        result |= {"outcome": "acted", "error": "; ".join(watch.deeds)}
    strange = sorted(p.name for p in case.iterdir() if p.name not in made)
    strange += sorted(p.name for p in (folder / "scratch").iterdir())
    if strange or (target.exists() and any(".part" in p.name for p in target.iterdir())):
        result |= {"outcome": "left files", "error": f"{strange} {sorted(p.name for p in target.iterdir())}"}
    return result | {"seconds": round(time.monotonic() - began, 3)}


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main(folder: Path) -> None:
    """Answer lines until there are no more."""
    logging.disable(logging.CRITICAL)
    os.chdir(folder)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    tempfile.tempdir = str(scratch)  # what is unpacked there has no name, and goes with its process
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # an installed package, which readers import once: no code of a file
    watch = Watch(scratch)
    sys.addaudithook(watch)
    limited = False
    for line in sys.stdin:
        kind, number = line.split()
        if not limited:  # modules are loaded, originals made
            importlib.import_module(f"hardening.kit.{kind}")
            limit = _address_space() + MEMORY_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            limited = True
        print(json.dumps(run_case(kind, int(number), folder, watch)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
