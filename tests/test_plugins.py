"""Discovery and lookup: specs/07-reconstructor.md, registration."""

import re
import subprocess
import sys
import types
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

import pluggy
import pytest
from pydantic import BaseModel

from ptychopinn.config import ExecutionOptions
from ptychopinn.errors import PluginError, ResourceError
from ptychopinn.hookspecs import PROJECT, hookimpl, hookspec, ptychopinn_reconstructors
from ptychopinn.plugins import KNOWN_BACKENDS, Registry, capability_table, discover, missing_requirements
from ptychopinn.reconstructor import Capability, ModelSpec, ReconstructorSpec, Solver, SolverSpec

SPEC = ReconstructorSpec(
    name="toy",
    summary="A toy",
    import_string="toy_backend:Toy",
    options=ExecutionOptions,
    capabilities=frozenset({Capability.CPU, Capability.PINN}),
    requires=("surely_not_installed",),
    install_hint="python -m pip install toy",
)


class FakeDistribution(Distribution):
    """A distribution with a name and a version."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read_text(self, filename: str) -> str | None:
        return f"Metadata-Version: 2.1\nName: {self._name}\nVersion: 1.0\n" if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise FileNotFoundError(path)


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch):
    """Makes an entry point to a module that implements the hook."""
    count = 0

    def make(hook: Any, *, name: str = "toy", distribution: str = "toy-dist") -> EntryPoint:
        nonlocal count
        count += 1
        module = types.ModuleType(f"fake_plugin_{count}")
        if hook is not None:
            module.ptychopinn_reconstructors = hook  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        point = EntryPoint(name, module.__name__, "ptychopinn")
        vars(point)["dist"] = FakeDistribution(distribution)
        return point

    return make


def returning(*specs: Any) -> Any:
    @hookimpl
    def ptychopinn_reconstructors() -> Iterable[Any]:
        return list(specs)

    return ptychopinn_reconstructors


def test_a_backend_is_found_with_its_distribution(entry: Any) -> None:
    """[PLUG-001]"""
    registry = discover([entry(returning(SPEC))])
    assert registry.get("toy") is SPEC
    assert registry.distributions == {"toy": "toy-dist 1.0"}
    assert registry.broken == ()


def test_one_plugin_may_bring_several_backends(entry: Any) -> None:
    """[PLUG-001] Any iterable will do."""

    @hookimpl
    def ptychopinn_reconstructors() -> Iterable[ReconstructorSpec]:
        yield SPEC
        yield replace(SPEC, name="toy-2")

    assert list(discover([entry(ptychopinn_reconstructors)]).specs) == ["toy", "toy-2"]


def test_the_hook_is_documented_with_the_arguments_it_has() -> None:
    """[PLUG-001]"""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(types.SimpleNamespace(ptychopinn_reconstructors=ptychopinn_reconstructors))
    assert manager.hook.ptychopinn_reconstructors.spec.argnames == ()
    assert "takes no arguments" in " ".join((ptychopinn_reconstructors.__doc__ or "").split())
    assert hookspec.project_name == PROJECT


def test_a_model_is_found(entry: Any, tmp_path: Path) -> None:
    """[MODEL-001] One whose archive is not there is listed as broken."""
    (tmp_path / "there.zip").write_bytes(b"archive")
    there, lost = (ModelSpec(name, tmp_path / f"{name}.zip", 64, "A toy") for name in ("there", "lost"))
    points = [entry(returning(SPEC), name=name) for name in ("first", "second")]
    for point, spec in zip(points, (there, lost), strict=True):
        module = sys.modules[point.value]
        del module.ptychopinn_reconstructors
        module.ptychopinn_models = hookimpl(_models_of(spec))
    registry = discover(points)
    assert dict(registry.models) == {"there": there}
    (broken,) = registry.broken
    assert "lost.zip, is not there" in broken.reason


def _models_of(spec: ModelSpec) -> Any:
    def ptychopinn_models() -> list[ModelSpec]:
        return [spec]

    return ptychopinn_models


class Spring(BaseModel):
    """Options of the toy solver."""


SOLVER = SolverSpec("slow", "A toy solver", "toy:Solver", Spring, requires=("surely_not_installed",))


def test_a_solver_is_found_beside_those_of_the_core(entry: Any) -> None:
    """[PLUG-011] One module may implement both hooks, or one of them."""
    point = entry(returning(SPEC))
    sys.modules[point.value].ptychopinn_solvers = hookimpl(specname="ptychopinn_solvers")(lambda: [SOLVER])  # type: ignore[attr-defined]
    registry = discover([point])
    assert list(registry.specs) == ["toy"]
    assert list(registry.solvers) == ["epie", "rpie", "slow"]
    assert registry.distributions == {"slow": "toy-dist 1.0", "toy": "toy-dist 1.0"}
    assert missing_requirements(registry.solvers["slow"]) == ("surely_not_installed",)
    with pytest.raises(PluginError, match="solver 'slow' cannot be used"):
        registry.solvers["slow"].load_class()


def test_solvers_of_the_core_are_always_there() -> None:
    """[PLUG-011] They make what the protocol says."""
    for spec in discover([]).solvers.values():
        assert isinstance(spec.load_class()(spec.options()), Solver)  # type: ignore[call-arg]


def test_a_solver_cannot_take_a_name_of_the_core(entry: Any) -> None:
    """[PLUG-005] Solvers and backends share their names."""
    registry = discover([entry(returning(replace(SPEC, name="epie")))])
    assert "epie" not in {*registry.specs, *registry.solvers}
    assert "ptychopinn and toy-dist" in registry.broken[0].reason


def explode() -> Iterable[ReconstructorSpec]:
    raise ImportError("libfoo.so is missing")


def leave() -> Iterable[ReconstructorSpec]:
    raise SystemExit("bye")


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (hookimpl(explode), "ImportError: libfoo.so is missing"),
        (hookimpl(leave), "SystemExit: bye"),
        (returning("not a spec"), "'not a spec'; a ReconstructorSpec is needed"),
        (returning(replace(SPEC, import_string="toy_backend")), "not 'package.module:Class'"),
        (returning(replace(SPEC, options=dict)), "a pydantic model is needed"),
        (returning(replace(SPEC, capabilities=frozenset({"fly"}))), "capabilities that do not exist"),
        (returning(replace(SPEC, name="My Toy")), "name 'My Toy' is not allowed"),
        (returning(replace(SPEC, name="my_toy")), "name 'my_toy' is not allowed"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_others_live(entry: Any, hook: Any, reason: str) -> None:
    """[PLUG-003]"""
    registry = discover([entry(hook, name="bad", distribution="bad-dist"), entry(returning(SPEC))])
    assert list(registry.specs) == ["toy"]
    (broken,) = registry.broken
    assert (broken.name, broken.distribution) == ("bad", "bad-dist 1.0")
    assert reason in broken.reason
    with pytest.raises(PluginError, match="'bad' of bad-dist 1.0 cannot be used"):
        registry.get("bad")


def test_a_module_that_cannot_be_imported_is_reported(entry: Any) -> None:
    """[PLUG-003]"""
    missing = EntryPoint("gone", "surely_not_installed.plugin", "ptychopinn")
    registry = discover([missing, entry(returning(SPEC))])
    assert list(registry.specs) == ["toy"]
    assert "ModuleNotFoundError" in registry.broken[0].reason


def wants_an_argument(colour: str) -> Iterable[ReconstructorSpec]:
    return []


def test_a_hook_with_an_unknown_argument_is_broken(entry: Any) -> None:
    """[PLUG-004]"""
    registry = discover([entry(hookimpl(specname="ptychopinn_reconstructors")(wants_an_argument))])
    assert registry.specs == {}
    assert "colour" in registry.broken[0].reason


@pytest.mark.parametrize("hook", [None, lambda: [SPEC]])
def test_a_module_without_the_marked_hook_is_broken(entry: Any, hook: Any) -> None:
    """[PLUG-004]"""
    (broken,) = discover([entry(hook)]).broken
    assert "hookimpl" in broken.reason


def test_a_name_claimed_twice_belongs_to_neither(entry: Any) -> None:
    """[PLUG-005]"""
    other = replace(SPEC, name="other")
    registry = discover(
        [
            entry(returning(SPEC), distribution="one"),
            entry(returning(SPEC), distribution="two"),
            entry(returning(other), distribution="three"),
        ]
    )
    assert list(registry.specs) == ["other"]
    with pytest.raises(PluginError, match=r"one 1\.0 and two 1\.0"):
        registry.get("toy")


def test_aliases_find_the_backend(entry: Any) -> None:
    """[PLUG-006]"""
    torch, tf = replace(SPEC, name="torch"), replace(SPEC, name="tf")
    registry = discover([entry(returning(torch, tf))])
    assert registry.get("pytorch") is torch
    assert registry.get("tensorflow") is tf


def test_an_alias_cannot_be_registered(entry: Any) -> None:
    """[PLUG-006]"""
    (broken,) = discover([entry(returning(replace(SPEC, name="pytorch")))]).broken
    assert "none of pytorch" in broken.reason


def test_an_unknown_backend_says_what_is_there(entry: Any) -> None:
    """[PLUG-007]"""
    with pytest.raises(PluginError, match=r"no backend 'jaxx'; installed: toy.*plugins/torch_backend"):
        discover([entry(returning(SPEC))]).get("jaxx")


@pytest.mark.parametrize(("name", "known"), [("torch", "torch"), ("pytorch", "torch"), ("tensorflow", "tf")])
def test_a_known_backend_that_is_missing_gives_its_install_hint(name: str, known: str) -> None:
    """[PLUG-007]"""
    with pytest.raises(PluginError, match=re.escape(f"installed: none. Install it with: {KNOWN_BACKENDS[known]}")):
        discover([]).get(name)


def test_missing_requirements_are_told_without_an_import() -> None:
    """[PLUG-008]"""
    spec = replace(SPEC, requires=("surely_not_installed", "wave"))
    sys.modules.pop("wave", None)
    assert missing_requirements(spec) == ("surely_not_installed",)
    assert "wave" not in sys.modules


def test_the_table_tells_what_each_backend_can_do(entry: Any) -> None:
    """[PLUG-008]"""
    (row,) = capability_table(discover([entry(returning(SPEC))]))
    assert row.missing == ("surely_not_installed",)
    assert row.capabilities["pinn"]
    assert not row.capabilities["cuda"]
    assert set(row.capabilities) == {str(c) for c in Capability}


@pytest.mark.parametrize("import_string", ["surely_not_installed.x:Toy", "ptychopinn.errors:NoSuchClass"])
def test_a_class_that_cannot_be_imported_gives_reason_and_hint(import_string: str) -> None:
    """[PLUG-009]"""
    with pytest.raises(PluginError, match="'toy' cannot be used: .*Install it with: python -m pip install toy"):
        replace(SPEC, import_string=import_string).load_class()


@pytest.mark.parametrize("error", ["ImportError", "ValueError", "TypeError", "RuntimeError", "SyntaxError"])
def test_a_framework_that_is_broken_gives_reason_and_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """[PLUG-009] It is there, and fails while it is imported."""
    (tmp_path / f"breaks_by_{error}.py").write_text(f"raise {error}('made for another NumPy')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="cannot be used: .*made for another NumPy.*one of them is broken") as caught:
        replace(SPEC, import_string=f"breaks_by_{error}:Toy", requires=("numpy",)).load_class()
    assert "pip install toy" not in str(caught.value)


def test_an_import_for_which_memory_does_not_suffice_is_named_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[PLUG-009]"""
    (tmp_path / "needs_memory.py").write_text("raise ImportError('lib.so: failed to map segment from shared object')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ResourceError, match="Memory does not suffice to import the backend 'toy'"):
        replace(SPEC, import_string="needs_memory:Toy").load_class()


def registry_of(*names: str) -> Registry:
    return Registry({name: replace(SPEC, name=name) for name in names}, dict.fromkeys(names, "dist"))


@pytest.mark.parametrize(("names", "chosen"), [(["toy"], "toy"), (["tf", "torch"], "torch")])
def test_the_default_backend(names: list[str], chosen: str) -> None:
    """[PLUG-010]"""
    assert registry_of(*names).default().name == chosen


@pytest.mark.parametrize(("names", "message"), [([], "No backend is installed"), (["a", "b"], "Several .*: a, b")])
def test_without_a_clear_default_one_must_be_named(names: list[str], message: str) -> None:
    """[PLUG-010]"""
    with pytest.raises(PluginError, match=message):
        registry_of(*names).default()


def test_no_backend_says_which_are_broken() -> None:
    """[PLUG-003]"""
    registry = discover([EntryPoint("gone", "surely_not_installed", "ptychopinn")])
    with pytest.raises(PluginError, match="gone is broken: ModuleNotFoundError"):
        registry.default()


def test_listing_the_installed_plugins_imports_no_framework() -> None:
    """[PLUG-002]"""
    code = (
        "import sys; from ptychopinn.plugins import capability_table, discover; capability_table(discover()); "
        "print(sorted({'torch', 'tensorflow', 'keras', 'lightning_fabric', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_hints_name_no_package_that_is_on_no_index() -> None:
    """[CLI-040] Whoever types one would get what somebody else put there."""
    root = Path(__file__).resolve().parents[1]
    files = [*root.glob("src/**/*.py"), *root.glob("plugins/*/src/**/*.py"), *root.glob("models/src/**/*.py")]
    pages = [
        root / "README.md",
        *root.glob("docs/**/*.md"),
        *root.glob("plugins/*/README.md"),
        *root.glob("specs/*.md"),
    ]
    commands = [
        line
        for path in [*files, *pages]
        if path.is_file()
        for line in re.findall(r"pip install[^\n]*", path.read_text())
    ]
    assert len(commands) > 5
    assert [
        one for one in commands if re.search(r"""install\b(?:[^`"(,#]|"[^"]*")*("|(?<![./\w-]))ptychopinn""", one)
    ] == []
