"""A backend of ptychopinn in plain NumPy. Imports nothing: `plugin` is what registers it."""
