"""Tools for torch and its devices: dtypes, memory, CUDA graphs, offload, padding, random numbers. Knows no model.

They are what any engine and the watermark share. Importing this package imports nothing; its modules import torch.
"""
