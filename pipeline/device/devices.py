"""Choosing a device, its CUDA streams, and its errors in one line. Knows no model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from pipeline.device.dtypes import torch_lock
from pipeline.device.memory import is_oom
from pipeline.errors import DeviceLost, OutOfMemory, UserError


def find_device(name: str) -> torch.device:
    """The device of that name, CUDA devices with their index; `auto` is the first CUDA device, else the CPU.

    `UserError` if the machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"device={name}: {count} CUDA devices are there; use device=cpu or device=auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: no Metal device is there; use device=cpu or device=auto")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def set_threads() -> None:
    """Limit torch's threads to the CPUs that this process may use, unless OMP_NUM_THREADS is set.

    torch itself respects CPU affinity, but not a container's CPU quota.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), count_cpus()))


def count_cpus(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that the cgroup's quota allows, rounded up; all CPUs if there is no quota."""
    try:
        quota, period = path.read_text().split()
        return max(-(-int(quota) // int(period)), 1)
    except (OSError, ValueError):  # no such cgroup, or the quota is "max"
        return os.cpu_count() or 1


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to `device` without waiting for work that is queued on a CUDA stream."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def is_lost(device: torch.device) -> bool:
    """Whether a kernel has failed. From then on, every CUDA call of this process fails with the same error."""
    if device.type != "cuda":
        return False
    try:
        with torch_lock:  # synchronizing the device would invalidate a graph capture
            torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


@dataclass(frozen=True)
class SideStreams:
    """The process's streams for graph captures, waveforms and watermarks.

    They are kept because torch reuses a pool of 32 streams in turn: a new stream could be the capturing one, which
    must get no other work.
    """

    capture: torch.cuda.Stream
    waveforms: torch.cuda.Stream
    watermarks: torch.cuda.Stream


@cache
def side_streams(device: torch.device) -> SideStreams:
    """The streams of `device`, made at the first call."""
    return SideStreams(*(torch.cuda.Stream(device) for _ in range(3)))


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Turn a failed kernel into `DeviceLost` (a new process could go on), a lack of memory into `OutOfMemory`."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        if is_lost(device):
            raise DeviceLost(f"device={device} answers no more ({reason})") from error
        if is_oom(error):
            raise OutOfMemory(f"device={device} has too little memory ({reason}); use device=cpu") from error
        raise
