"""Which device to run on, and what has become of it. Knows no model."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from pipeline.engine.chatterbox.precision import switching
from pipeline.errors import DeviceLost, OutOfMemory, UserError

WORKSPACE_SHARE = 12  # of a card for a batch of waveforms; on an H200 no more would help
NO_MEMORY = ("out of memory", "ALLOC_FAILED", "can't allocate memory")  # the driver, cuBLAS and cuDNN, the CPU


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


def total_memory(device: torch.device) -> int:
    """Bytes of a CUDA device."""
    return torch.cuda.get_device_properties(device).total_memory


def workspace(device: torch.device) -> int:
    """Bytes that a batch of waveforms may take: by what a card has, not by what is free, so that batches are equal."""
    return total_memory(device) // WORKSPACE_SHARE if device.type == "cuda" else 2**32


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU's tensor on `device`, not waiting for what a CUDA stream has still to do before it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def free_memory(device: torch.device) -> int:
    """Bytes of a CUDA device that this process can still get."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def freed(device: torch.device, cycles: bool = False) -> None:
    """Give back to the device what nobody uses any more.

    Of what know only each other, as an error and its frames, or an engine's parts, that takes a while: `cycles`.
    """
    if cycles:
        gc.collect()
    if device.type == "cuda":
        with switching:  # torch frees nothing while a graph is being captured
            torch.cuda.empty_cache()


def ran_out(error: Exception) -> bool:
    """Whether memory was what was missing. Only torch's CUDA allocator has a class for that."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def is_lost(device: torch.device) -> bool:
    """Whether a kernel has failed, after which a process gets nothing from its GPU but the same error."""
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
    """One of each for the process: torch has 32 and hands them out in turn, and no other work may enter a capture."""

    capture: torch.cuda.Stream
    waveforms: torch.cuda.Stream


@cache
def side_streams(device: torch.device) -> SideStreams:
    return SideStreams(torch.cuda.Stream(device), torch.cuda.Stream(device))


@contextmanager
def telling(device: torch.device) -> Iterator[None]:
    """What the device refuses ends the job, in one line: `DeviceLost` where a new process could go on."""
    try:
        yield
    except Exception as error:
        told = str(error).strip().split("\n")[0]
        if is_lost(device):
            raise DeviceLost(f"device={device} answers no more ({told})") from error
        if ran_out(error):
            raise OutOfMemory(f"device={device} has too little memory ({told}); use device=cpu") from error
        raise
