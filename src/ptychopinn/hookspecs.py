"""The hooks that a plugin implements, one of them or both.

A distribution names a module under the entry-point group ``ptychopinn``; discovery imports it and calls the hooks. So
that module, and the options model that it names, must not import a deep-learning framework::

    [project.entry-points.ptychopinn]
    torch = "ptychopinn_torch.plugin"
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from ptychopinn.reconstructor import ReconstructorSpec, SolverSpec

PROJECT = "ptychopinn"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ptychopinn_reconstructors() -> Iterable[ReconstructorSpec]:  # type: ignore[empty-body]
    """Return the reconstructors that this distribution brings.

    Returns
    -------
    Any iterable of `ReconstructorSpec`; each name appears once among all distributions installed. The hook takes no
    arguments and must be quick: listing plugins calls it.
    """


@hookspec
def ptychopinn_solvers() -> Iterable[SolverSpec]:  # type: ignore[empty-body]
    """Return the solvers that this distribution brings: reconstructors that are not trained.

    Returns
    -------
    Any iterable of `SolverSpec`; names are shared with the reconstructors, each appears once among all. The hook takes
    no arguments and must be quick.
    """
