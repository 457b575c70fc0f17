"""Reconstructors by the name of their backend, new or from an archive."""

from __future__ import annotations

from collections.abc import Mapping

from ptychopinn.bundle import read_bundle
from ptychopinn.config.build import build
from ptychopinn.config.model import ModelConfig
from ptychopinn.plugins import discover
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.typing import StrPath


def create_reconstructor(
    backend: str, model: ModelConfig, options: Mapping[str, object] | None = None
) -> Reconstructor:
    """A reconstructor that is not trained yet.

    Parameters
    ----------
    backend:
        Name of the backend ("torch").
    model:
        Configuration of the network; its N must be that of the scans.
    options:
        Fields of the backend's own options.

    Raises
    ------
    PluginError
        If the backend is not there or cannot be imported.
    ConfigError
        If an option is unknown or out of bounds.
    """
    spec = discover().get(backend)
    return spec.load_class()(model, build(spec.options, options or {}))


def load_reconstructor(
    path: StrPath, *, backend: str | None = None, options: Mapping[str, object] | None = None
) -> Reconstructor:
    """A trained reconstructor from a model archive.

    Parameters
    ----------
    path:
        The archive.
    backend:
        Computes with this backend; None takes the one that wrote it.
    options:
        Fields of the backend's own options.

    Raises
    ------
    ArchiveError
        If the archive is refused.
    PluginError, ConfigError
        As in `create_reconstructor`.
    """
    spec = discover().get(backend or read_bundle(path).manifest.writer.backend)
    return spec.load_class().load(path, build(spec.options, options or {}))
