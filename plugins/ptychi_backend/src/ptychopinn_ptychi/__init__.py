"""Pty-chi as a solver, for comparisons with the networks."""
