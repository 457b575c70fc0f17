"""Files of an earlier version. The tests are `backend_suite.golden`."""

from backend_suite.golden import *  # noqa: F403
