"""English Chatterbox: checkpoints, precision, and speech from the stock modules. Importing it does not import torch."""

from pipeline.engine.chatterbox.engine import ChatterboxEngine

__all__ = ["ChatterboxEngine"]
