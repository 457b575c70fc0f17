"""Readers of file formats other than the project's own.

A format is a module here with a `ReaderSpec`, or a plugin that implements the hook ``ptychopinn_readers``
(`ptychopinn.data.readers.spec`). A reader turns a file into a `ptychopinn.data.raw_scan.RawScan`; what the arrays mean
and whether they can be used is decided afterwards, for all formats alike.
"""

from ptychopinn.data.readers.spec import ReaderSpec

__all__ = ["ReaderSpec"]
