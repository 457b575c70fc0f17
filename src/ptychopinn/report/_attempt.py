"""Pictures and reports of results that are written already: what fails is a warning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ptychopinn.errors import PtychoPinnError, ResourceError

ResultT = TypeVar("ResultT")
_log = logging.getLogger(__name__)


def attempt(what: str, work: Callable[[], ResultT]) -> ResultT | None:
    """Draw or write something about a result.

    Parameters
    ----------
    what:
        Subject of the warning: "The picture".

    Returns
    -------
    What the function returns; None with a warning in the log if it failed.

    Raises
    ------
    ResourceError
        If there is no space for it or no permission.
    """
    try:
        return work()
    except ResourceError:
        raise
    except Exception as error:  # of Matplotlib, its fonts and its settings
        reason = str(error) if isinstance(error, PtychoPinnError) else f"{type(error).__name__}: {error}"
        _log.warning("%s could not be made: %s", what, " ".join(reason.split())[:500])
        _log.debug("%s failed", what, exc_info=True)
        return None
