"""ptychopinn's reconstructors in Ptychodus. Importing this package imports neither Qt nor a deep-learning framework."""
