"""The PyTorch backend of ptychopinn. Importing this package does not import torch; its `reconstructor` module does."""
