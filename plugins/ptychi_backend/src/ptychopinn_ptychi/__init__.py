"""Pty-chi as a solver that ptychopinn compares networks with."""
