"""The TensorFlow backend of ptychopinn. Importing this package does not import TensorFlow; `reconstructor` does."""
