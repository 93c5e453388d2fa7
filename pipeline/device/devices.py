"""Which device to run on, its streams, and its errors in one line. Knows no model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from pipeline.device.dtypes import switching
from pipeline.device.memory import is_oom
from pipeline.errors import DeviceLost, OutOfMemory, UserError


def find_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU; `UserError` for what is not there. CUDA's with their number."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"device={name}: {count} CUDA devices are there; use device=cpu or device=auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: no Metal device is there; use device=cpu or device=auto")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def set_threads() -> None:
    """As many as this process may use processors; torch knows what it is bound to, and not what a container grants.

    OMP_NUM_THREADS, where it is set, has the last word.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), granted_processors()))


def granted_processors(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """By the control group's quota, rounded up; all where there is none."""
    try:
        quota, period = path.read_text().split()
        return max(-(-int(quota) // int(period)), 1)
    except (OSError, ValueError):  # no such group, or "max"
        return os.cpu_count() or 1


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to `device` without waiting for the work that a CUDA stream already has."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def is_lost(device: torch.device) -> bool:
    """Whether a kernel has failed. After that a process gets only the same error from its GPU."""
    if device.type != "cuda":
        return False
    try:
        with switching:  # waiting for the whole device would spoil a graph that is being captured
            torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


@dataclass(frozen=True)
class SideStreams:
    """One of each for the process: torch hands out 32 in turn, and no other work may enter a capture."""

    capture: torch.cuda.Stream
    waveforms: torch.cuda.Stream


@cache
def side_streams(device: torch.device) -> SideStreams:
    return SideStreams(torch.cuda.Stream(device), torch.cuda.Stream(device))


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Turn a device error into one line that ends the job: `DeviceLost` where a new process could go on."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        if is_lost(device):
            raise DeviceLost(f"device={device} answers no more ({reason})") from error
        if is_oom(error):
            raise OutOfMemory(f"device={device} has too little memory ({reason}); use device=cpu") from error
        raise
