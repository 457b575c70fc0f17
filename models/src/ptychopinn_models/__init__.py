"""Trained networks for ptychopinn."""
