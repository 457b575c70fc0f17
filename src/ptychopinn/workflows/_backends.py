"""Create reconstructors by the name of their backend, or load them from an archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.bundle import read_bundle
from ptychopinn.config.build import build
from ptychopinn.config.execution import Accelerator, ExecutionOptions, asks_for_cuda
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.run import RunSettings, options_for
from ptychopinn.plugins import discover, missing_requirements
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.typing import StrPath

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")  # there, also in containers, where a card may be


def run_settings(
    backend: str | None = None, *, preset: str | None = None, **sections: Mapping[str, object]
) -> RunSettings[Any]:
    """The settings of a run, from plain values.

    Parameters
    ----------
    backend:
        Name of the backend; None is that of the model, or the default.
    preset:
        Name of a `ptychopinn.config.presets.Preset`; what ``sections`` give goes before its values.
    sections:
        Fields of ``model``, ``train``, ``infer``, ``execution`` and ``reading``; missing ones have their defaults.

    Raises
    ------
    PluginError
        If the backend is not installed.
    ConfigError
        With every field that is unknown or out of bounds.
    """
    options = ExecutionOptions if backend is None else discover().get(backend).options
    return build(RunSettings.with_options(options), {"backend": backend, "preset": preset, **sections})


def create_reconstructor(
    backend: str, model: ModelConfig, options: BaseModel | Mapping[str, object] | None = None
) -> Reconstructor:
    """Create an untrained reconstructor.

    Parameters
    ----------
    model:
        Its N must be that of the scans.
    options:
        The backend's own options, or fields of them.

    Raises
    ------
    PluginError
        If the backend is not installed or cannot be imported.
    ConfigError
        If an option is unknown or out of bounds.
    """
    spec = discover().get(backend)
    return spec.load_class()(model, options_for(spec.options, options))


def usable_backend(archive: StrPath) -> str | None:
    """The backend that wrote an archive, else another that is installed; None if there is none."""
    usable = [name for name, spec in discover().specs.items() if not missing_requirements(spec)]
    wrote = read_bundle(archive).manifest.writer.backend
    return wrote if wrote in usable else next(iter(usable), None)


def device_library(n: int, backend: str | None, options: ExecutionOptions) -> ArrayLibrary:
    """The arrays of a backend's device, for passes without a network; NumPy where there is no backend or no card.

    A backend takes seconds to import, so it is only asked if the options or the machine name a card.

    Parameters
    ----------
    n:
        Width of the patterns.
    backend:
        Name of the backend; None is the first installed one.
    """
    wanted = asks_for_cuda(options.accelerator)
    if not wanted and (options.accelerator == Accelerator.CPU or not NVIDIA_DRIVER.exists()):
        return NUMPY
    usable = [name for name, spec in discover().specs.items() if not missing_requirements(spec)]
    name = backend or next(iter(usable), None)
    if name is None and not wanted:
        return NUMPY
    reconstructor = create_reconstructor(name or "torch", ModelConfig(N=n), options)
    return getattr(reconstructor, "library", NUMPY)


def load_reconstructor(
    path: StrPath, *, backend: str | None = None, options: BaseModel | Mapping[str, object] | None = None
) -> Reconstructor:
    """Load a trained reconstructor from a model archive.

    Parameters
    ----------
    backend:
        Backend to compute with; None: the one that wrote the archive.
    options:
        The backend's own options, or fields of them.

    Raises
    ------
    ArchiveError
        If the archive is refused.
    PluginError, ConfigError
        As in `create_reconstructor`.
    """
    spec = discover().get(backend or read_bundle(path).manifest.writer.backend)
    return spec.load_class().load(path, options_for(spec.options, options))
