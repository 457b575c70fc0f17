"""The verbs of the command line in Python: arrays in, arrays out, and no file where none is needed."""

from __future__ import annotations

from ptychopinn.api._model import Model, load, train
from ptychopinn.api._reconstruct import reconstruct
from ptychopinn.api._result import Result
from ptychopinn.api._scan import Scan, read, simulate_scan

__all__ = ["Model", "Result", "Scan", "load", "read", "reconstruct", "simulate_scan", "train"]
