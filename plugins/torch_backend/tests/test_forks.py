"""Processes that were forked from one that has trained."""

from __future__ import annotations

from backend_suite.forks import check_forks_are_refused


def test_a_fork_of_a_process_that_has_trained_is_refused() -> None:
    """[RUN-002]"""
    check_forks_are_refused("torch")
