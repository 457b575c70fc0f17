"""The hooks of plugins. A plugin implements one or more.

A distribution names a module under the entry-point group ``ptychopinn``. Discovery imports it and calls the hooks, so
this module and its options model must not import a deep-learning framework::

    [project.entry-points.ptychopinn]
    torch = "ptychopinn_torch.plugin"
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from ptychopinn.data.readers.spec import PROJECT as PROJECT
from ptychopinn.data.readers.spec import ptychopinn_readers as ptychopinn_readers
from ptychopinn.reconstructor import ModelSpec, ReconstructorSpec, SolverSpec

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ptychopinn_reconstructors() -> Iterable[ReconstructorSpec]:  # type: ignore[empty-body]
    """Return the reconstructors of this distribution.

    Returns
    -------
    Any iterable of `ReconstructorSpec`; names must be unique among all installed distributions. The hook takes no
    arguments and must be quick, because listing plugins calls it.
    """


@hookspec
def ptychopinn_solvers() -> Iterable[SolverSpec]:  # type: ignore[empty-body]
    """Return the solvers of this distribution (reconstructors without training).

    Returns
    -------
    Any iterable of `SolverSpec`; names must be unique among all solvers and reconstructors. The hook takes no arguments
    and must be quick.
    """


@hookspec
def ptychopinn_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Return the trained models of this distribution, which reconstruct scans without training.

    Returns
    -------
    Any iterable of `ModelSpec`; names must be unique among all plugins. The hook takes no arguments and must be quick.
    """
