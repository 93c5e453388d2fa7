"""Tools for torch and its devices: dtypes, memory, CUDA graphs, offload, padding, random numbers. Knows no model.

The engines and the watermark share them. Importing this package imports nothing; its modules import torch.
"""
