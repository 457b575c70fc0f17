"""A plugin that imports its framework when it is listed: `wave` stands for one."""

import wave
from dataclasses import replace

from broken_backends import BROKEN

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import ReconstructorSpec

SPEC = replace(BROKEN["healthy"].spec, requires=(wave.__name__,))


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    return [SPEC]
