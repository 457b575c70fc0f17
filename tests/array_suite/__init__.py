"""Tests that every array library passes; test files import them and give the fixture ``library``.

``library`` is an `ptychopinn.arrays.ArrayLibrary` that no test has changed.
"""
