"""Which device to run on. Knows no model."""

import torch

from pipeline.errors import UserError


def find_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU; `UserError` for what is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"device={name}: {count} CUDA devices are there; use device=cpu or device=auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: no Metal device is there; use device=cpu or device=auto")
    return device
