"""Draws faults around commands: what is wrong, with which command, and what may come of it."""

from __future__ import annotations

import importlib.util
import random
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace

DONE, FAILURE, RESOURCE = 0, 1, 4
_DEEP = f"FOLDER/{'deep' * 30}/{'er' * 20}"


@dataclass(frozen=True)
class Workflow:
    """A command.

    Attributes
    ----------
    arguments:
        Of the command line, in a folder with ``scan.npz``, ``scan.h5``, ``study.yaml`` and ``batch.yaml``.
    results:
        What it leaves in its output, or its output, if that is a file ("").
    has_workers:
        Whether it starts processes.
    after:
        The command whose undisturbed output it reads: ``undisturbed-COMMAND``.
    parts:
        Pattern of what it finishes on the way, with which a run that failed goes on: it then takes the place of an
        earlier one.
    """

    arguments: tuple[str, ...]
    results: tuple[str, ...]
    has_workers: bool = False
    after: str | None = None
    parts: str | None = None


_PLAIN = ("--nepochs", "2", "--probe-refinement", "0")
_MODEL = ("wts.h5.zip", "reconstruction.h5")
_WITH_NUMPY = {
    "train": Workflow(("train", "scan.npz", "--backend", "numpy", *_PLAIN), _MODEL),
    "infer": Workflow(("infer", "undisturbed-train", "scan.npz"), ("reconstruction.h5",), after="train"),
    "reconstruct": Workflow(("reconstruct", "scan.npz", "--max-time", "2"), ("reconstruction.h5",)),
    "stream": Workflow(
        ("stream", "undisturbed-train", "scan.h5", "--measurement", "amplitude", "--interval", "0.2", "--timeout", "5"),
        ("reconstruction.h5",),
        after="train",
    ),
    "compare": Workflow(
        ("compare", "--train", "scan.npz", "--test", "scan.npz", "--legs", "epie", "--solver-passes", "3"),
        ("comparison_metrics.csv",),
        has_workers=True,
        parts="legs/*/scores-*.json",
    ),
    "study": Workflow(("study", "study.yaml"), ("study_medians.csv",), has_workers=True, parts="legs/*/scores-*.json"),
    "evaluate": Workflow(
        ("evaluate", "undisturbed-train/reconstruction.h5", "--reference", "scan.npz"), ("scores.json",), after="train"
    ),
    "convert": Workflow(("convert", "scan.npz"), ("",)),
}
_WITH_TORCH = {
    "train-torch": Workflow(("train", "scan.npz", "--backend", "torch", *_PLAIN), _MODEL),
    "infer-torch": Workflow(
        ("infer", "undisturbed-train-torch", "scan.npz"), ("reconstruction.h5",), after="train-torch"
    ),
    "compare-torch": Workflow(
        ("compare", "--train", "scan.npz", "--test", "scan.npz", "--legs", "torch-pinn", "--nepochs", "2"),
        ("comparison_metrics.csv",),
        has_workers=True,
        parts="legs/*/scores-*.json",
    ),
    "batch-torch": Workflow(("batch", "batch.yaml"), ("batch.csv",), has_workers=True),  # a training
}
WORKFLOWS = _WITH_NUMPY | _WITH_TORCH
FIRST_WITH_TORCH = 500  # faults from this number on are around commands with PyTorch
_OFTEN = ("train", "train", "infer", "infer", "reconstruct", "stream")


@dataclass(frozen=True)
class Fault:
    """What is wrong around a command.

    Attributes
    ----------
    name:
        In words.
    codes:
        Exit codes that the fault may lead to; that of the work is among them where the fault need not matter.
    cause:
        Pattern of the words with which a command names the fault, if it fails.
    shell:
        Redirections of a shell.
    env:
        Changed variables; FOLDER stands for a folder of the test.
    files:
        Text of files in that folder; a name that ends in "/" is a folder.
    inside:
        What happens inside of the processes, as `hardening.kit.inside.sitecustomize` reads it.
    limits:
        Of the process: name in `resource` to value.
    signals:
        Signals that it gets: when, in shares of the undisturbed work, and which.
    disk:
        How much a file system for its output has left, for "kib" and "files"; None if it has no file system of its own.
    later:
        What befalls the output meanwhile, and when in shares of the undisturbed work: its disk is "full", or it is
        "removed".
    read_only:
        Whether that file system may only be read.
    tiny_shm:
        Whether ``/dev/shm`` has room for nothing.
    """

    name: str
    codes: frozenset[int] = frozenset({DONE})
    cause: str = ""
    shell: str = ""
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    inside: dict[str, object] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    signals: tuple[tuple[float, int], ...] = ()
    disk: dict[str, int] | None = None
    later: tuple[float, str] | None = None
    read_only: bool = False
    tiny_shm: bool = False


@dataclass(frozen=True)
class Case:
    """A fault around a command; ``replaces`` is whether an earlier result is in the place of its output."""

    number: int
    command: str
    fault: Fault
    replaces: bool

    def __str__(self) -> str:
        return f"{self.number}: {self.command}{' again' if self.replaces else ''}: {self.fault.name}"


def _either(*codes: int) -> frozenset[int]:
    return frozenset({DONE, *codes})


def _log(rng: random.Random) -> Fault:
    shell = rng.choice(["2>/dev/full", "2>&-", "2> >(exec true)", "<&-", "</dev/null 2>/dev/full"])
    return Fault(f"the log: {shell}", shell=shell)


def _output(rng: random.Random) -> Fault:
    shell = rng.choice([">/dev/full", ">&-", "> >(exec true)", ">&- 2>&-", ">/dev/full 2>&-"])
    codes = {">/dev/full": _either(RESOURCE), "> >(exec true)": _either(FAILURE)}
    cause = "" if shell == "> >(exec true)" else "cannot be printed"
    return Fault(f"the output: {shell}", codes.get(shell.split(" 2")[0], _either()), cause, shell)


def _encoding(rng: random.Random) -> Fault:
    coding = rng.choice(
        ["ascii:strict", "latin-1:strict", "cp1252", "ascii:replace", "cp437", "utf-16", "utf-8:strict"]
    )
    env = {"LC_ALL": rng.choice(["C", "POSIX", "xx_YY"]), "PYTHONIOENCODING": coding, "PYTHONUTF8": "0"}
    return Fault(f"the encoding: {coding} in {env['LC_ALL']}", env=env)


def _temporary(rng: random.Random) -> Fault:
    name, files = rng.choice(
        [(_DEEP, {f"{_DEEP}/": ""}), ("FOLDER/missing", {}), ("FOLDER/a_file", {"FOLDER/a_file": ""})]
    )
    return Fault(f"TMPDIR: {name[:20]}", env={"TMPDIR": name}, files=files)


def _home(rng: random.Random) -> Fault:
    name = rng.choice(["FOLDER/missing", "/dev/null", "FOLDER/a_file", "/proc"])
    home = {"HOME": name, "MPLCONFIGDIR": "", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    return Fault(f"the home: {name}", env=home, files={"FOLDER/a_file": ""})


def _pictures(rng: random.Random) -> Fault:
    backend = rng.choice(["", "module://of_a_notebook.inline", "TkAgg", "none such", "Qt5Agg"])
    settings = rng.sample(
        [
            *("text.usetex: True", "font.family: No Such Font", "image.cmap: none such", "image.origin: lower"),
            *("savefig.format: pdf", "savefig.bbox: tight", "{", "figure.dpi: 100000", "axes.grid: True"),
            *(
                "backend: none such",
                "figure.autolayout: True",
                "interactive: True",
                "\udcff".encode(errors="replace").decode(),
            ),
        ],
        3,
    )
    env = {"MATPLOTLIBRC": "FOLDER/rc", "MPLBACKEND": backend, "DISPLAY": rng.choice(["", ":77"])}
    return Fault(f"Matplotlib: {'; '.join(settings)}; {backend}", env=env, files={"FOLDER/rc": "\n".join(settings)})


def _terminal(rng: random.Random) -> Fault:
    env = {
        "COLUMNS": rng.choice(["0", "1", "-3", "wide", "100000"]),
        "LINES": rng.choice(["0", "many"]),
        "TERM": rng.choice(["dumb", "", "xterm-256color", "no-such"]),
        "FORCE_COLOR": rng.choice(["", "1", "3"]),
        "NO_COLOR": rng.choice(["", "1"]),
        "JPY_PARENT_PID": rng.choice(["", "1"]),
    }
    return Fault(f"the terminal: {env}", env=env)


def _scheduler(rng: random.Random) -> Fault:
    names = ["SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC", "OMP_NUM_THREADS", "SLURM_NTASKS"]
    env = {name: rng.choice(["0", "1", "100000", "", "-1", "2(x3)", "two", "1.5"]) for name in rng.sample(names, 3)}
    env |= {"SLURM_JOB_ID": "7", "SLURM_PROCID": rng.choice(["0", "3"]), "WORLD_SIZE": rng.choice(["1", "4"])}
    return Fault(f"the scheduler: {env}", env=env)


def _hdf5(rng: random.Random) -> Fault:
    env = {
        "HDF5_USE_FILE_LOCKING": rng.choice(["FALSE", "TRUE", "BEST_EFFORT", "perhaps", ""]),
        "HDF5_PLUGIN_PATH": "/dev/null",
    }
    return Fault(f"HDF5: {env}", env=env)


def _no_locks(rng: random.Random) -> Fault:
    return Fault("the file system has no locks", env={"LD_PRELOAD": "NOLOCKS"})


def _tiny_shm(rng: random.Random) -> Fault:
    return Fault("/dev/shm is tiny", tiny_shm=True)


def _file_size(rng: random.Random) -> Fault:
    size = int(10 ** rng.uniform(0, 5.5))
    words = r"File too large|could not be written|cannot be (written|printed)|SIGXFSZ"
    return Fault(f"files may have {size} bytes", _either(FAILURE, RESOURCE), words, limits={"RLIMIT_FSIZE": size})


def _few_files(rng: random.Random) -> Fault:
    count = rng.randrange(6, 40)
    return Fault(
        f"{count} files may be open", _either(FAILURE, RESOURCE), "open files", limits={"RLIMIT_NOFILE": count}
    )


def _memory(rng: random.Random) -> Fault:
    mebibytes = int(10 ** rng.uniform(2.3, 3.2))
    return Fault(
        f"{mebibytes} MiB of memory",
        _either(FAILURE, RESOURCE),
        "[Mm]emory",
        inside={"memory_mb": mebibytes},
        env={"OPENBLAS_NUM_THREADS": "1"},
    )


def _processor_time(rng: random.Random) -> Fault:
    seconds = rng.randrange(1, 3)
    codes = _either(128 + signal.SIGXCPU, -signal.SIGXCPU, FAILURE)
    return Fault(f"{seconds} s of processor time", codes, "SIGXCPU|CPU|Interrupted", limits={"RLIMIT_CPU": seconds})


def _disk(rng: random.Random) -> Fault:
    size = rng.choice([4, 8, 16, 32, 64, 128, 256, 512])
    return Fault(f"a disk of {size} KiB", _either(FAILURE, RESOURCE), "No space left", disk={"kib": size})


def _few_inodes(rng: random.Random) -> Fault:
    count = rng.randrange(2, 12)
    return Fault(f"a disk for {count} files", _either(FAILURE, RESOURCE), "No space left", disk={"files": count})


def _read_only(rng: random.Random) -> Fault:
    return Fault("a disk that is read-only", frozenset({FAILURE, RESOURCE}), "Read-only", disk={}, read_only=True)


def _full_meanwhile(rng: random.Random) -> Fault:
    later = (rng.uniform(0.1, 1), "full")
    return Fault("a disk that becomes full", _either(FAILURE, RESOURCE), "No space left", disk={}, later=later)


def _gone_folder(rng: random.Random) -> Fault:
    return Fault(
        "the output is removed meanwhile",
        _either(FAILURE, 2, 3, RESOURCE),
        r"No such file|does not exist|out",
        later=(rng.uniform(0.2, 1), "removed"),
    )


_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def _signals(rng: random.Random) -> Fault:
    count = rng.choice([1, 1, 2, 2, 3])
    at, signals = rng.uniform(0.05, 1.1), []
    for _ in range(count):
        signals.append((at, int(rng.choice(_STOPS))))
        at += rng.choice([0.0, 0.05, 0.3])
    # Those that come while one is handled are handled by number; one that comes when the command has ended, or has not
    # begun, finds no handler.
    codes = {code for _, number in signals for code in (128 + number, -number)}
    names = ", ".join(f"{signal.Signals(number).name} at {share:.2f}" for share, number in signals)
    return Fault(names, _either(*codes), r"Interrupted|cancelled|stopping", signals=tuple(signals))


def _worker(rng: random.Random) -> Fault:
    fate = rng.choice(["killed", "crashed", "frozen", "gone", "mute"])
    words = {"killed": "SIGKILL", "crashed": "Segmentation|signal 11", "frozen": "is stopped", "gone": "exit code 7"}
    return Fault(
        f"a worker process is {fate}",
        _either(FAILURE),
        words.get(fate, "without a result|before it was done"),
        inside={"worker": fate, "after": round(rng.uniform(0.0, 1.5), 2)},
    )


_NEEDED = ("pydantic", "yaml", "h5py", "scipy")
_OPTIONAL = ("matplotlib", "PIL", "skimage", "rich", "zmq", "hdf5plugin", "torch", "psutil")


def _missing(rng: random.Random) -> Fault:
    name = rng.choice(_NEEDED + _OPTIONAL)
    return Fault(f"{name} is not installed", _either(FAILURE, 2), re.escape(name), inside={"missing": [name]})


KINDS: tuple[Callable[[random.Random], Fault], ...] = (
    *(_signals, _log, _worker, _disk, _pictures, _memory, _missing, _signals, _output, _encoding, _file_size),
    *(_full_meanwhile, _temporary, _read_only, _few_files, _worker, _no_locks, _signals, _home, _tiny_shm),
    *(_gone_folder, _scheduler, _few_inodes, _terminal, _processor_time, _hdf5),
)


def draw(number: int) -> Case:
    """The fault of a number, always the same."""
    rng = random.Random(f"fault {number}")
    fault = KINDS[number % len(KINDS)](rng)
    workflows = _WITH_NUMPY if number < FIRST_WITH_TORCH else _WITH_TORCH
    named = [name for name, workflow in workflows.items() if workflow.has_workers]
    others = [*_OFTEN, *workflows] if number < FIRST_WITH_TORCH else [*workflows]
    command = rng.choice(named if "worker" in fault.inside else others)
    if rng.random() < 0.25 and not fault.shell:  # two at a time
        other = rng.choice([_log, _encoding, _temporary, _home, _pictures, _terminal])(rng)
        fault = replace(
            fault,
            name=f"{fault.name}; {other.name}",
            shell=other.shell,
            env={**other.env, **fault.env},
            files={**other.files, **fault.files},
        )
    return Case(number, command, fault, replaces=rng.random() < 0.5)


def lacking(case: Case) -> str:
    """What this system lacks for a case; empty if nothing."""
    if case.command in _WITH_TORCH and importlib.util.find_spec("ptychopinn_torch") is None:
        return "the torch backend is not installed"
    fault = case.fault
    needed = {
        "mount": fault.disk is not None,
        "unshare": fault.tiny_shm,
        "gcc": "NOLOCKS" in fault.env.values(),
    }
    missing = [program for program, is_needed in needed.items() if is_needed and shutil.which(program) is None]
    return f"{', '.join(missing)} is not there" if missing else ""
