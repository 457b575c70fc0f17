"""A backend and workflows that only note what they are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from ptychopinn.cli import main
from ptychopinn.config import ExecutionOptions, RunSettings
from ptychopinn.plugins import Registry
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn.workflows import RunResult


class ToyOptions(ExecutionOptions):
    """Options of the toy backend."""

    springs: int = Field(3, ge=1, description="Springs of the toy.")


TOY = ReconstructorSpec(
    name="torch",
    summary="A toy",
    import_string="toy:Toy",
    options=ToyOptions,
    capabilities=frozenset({Capability.CPU}),
    requires=("surely_not_installed",),
    install_hint="python -m pip install toy",
)


SECTIONS = ("model", "train", "infer", "execution", "reading")


@dataclass
class Calls:
    """What the workflows were asked, and what they do about it."""

    made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    returns: dict[str, Any] = field(default_factory=dict)
    act: Callable[..., Any] | None = None

    @property
    def last(self) -> dict[str, Any]:
        """Keyword arguments of the last call, and what was given of its settings, section by section."""
        _, positional, keywords = self.made[-1]
        settings = next((one for one in positional if isinstance(one, RunSettings)), RunSettings())
        return keywords | {name: {} for name in SECTIONS} | settings.given()

    @property
    def files(self) -> tuple[str, tuple[Any, ...]]:
        """Name and positional arguments of the last call but its settings."""
        name, positional, _ = self.made[-1]
        return name, tuple(one for one in positional if not isinstance(one, RunSettings))

    def function(self, name: str) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.made.append((name, args, kwargs))
            if self.act is not None:
                self.act(*args, **kwargs)
            return self.returns.get(name, RunResult(Path("run"), {}))

        return called


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Registry], None]:
    """Puts a registry in the place of what is installed."""

    def install(registry: Registry) -> None:
        for module in ("_settings", "plugins", "demo", "compare"):
            monkeypatch.setattr(f"ptychopinn.cli.{module}.discover", lambda: registry)

    return install


@pytest.fixture
def toy(backends: Callable[[Registry], None]) -> Registry:
    """The toy backend under two names."""
    specs = {"tf": replace(TOY, name="tf", options=ExecutionOptions), "torch": TOY}
    registry = Registry(specs, {"tf": "toy 1.0", "torch": "toy 1.0"})
    backends(registry)
    return registry


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, toy: Registry) -> Calls:
    """Workflows that note their arguments."""
    calls = Calls()
    for name in ("train_run", "infer_run", "evaluate_run", "simulate_run", "demo_run"):
        monkeypatch.setattr(f"ptychopinn.workflows.{name}", calls.function(name))
    return calls


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run
