"""Tests that every backend built on `ptychopinn.training` passes; its own test files import them.

A backend's ``conftest.py`` imports `backend_suite.fixtures` and gives the fixture ``fits``.
"""
