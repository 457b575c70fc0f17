"""Arrays with named axes, for xarray, which is an extra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptychopinn.errors import PluginError
from ptychopinn.typing import AnyArray


def dataset_of_arrays(
    arrays: Mapping[str, tuple[tuple[str, ...], AnyArray]],
    coordinates: Mapping[str, object],
    attributes: Mapping[str, object],
) -> Any:
    """An ``xarray.Dataset`` of arrays with the names of their axes.

    Raises
    ------
    PluginError
        If xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise PluginError(f"xarray cannot be imported: {error}.", "Install it: python -m pip install xarray") from error
    return xarray.Dataset(dict(arrays), coords=dict(coordinates), attrs=dict(attributes))
