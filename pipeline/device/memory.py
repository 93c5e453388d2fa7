"""A device's memory: how much is free, releasing it, and going on after it ran out. Knows no model."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pipeline.device.dtypes import torch_lock

# In error messages of the driver, of cuBLAS and cuDNN, and of the CPU's allocator.
OOM_PHRASES = ("out of memory", "ALLOC_FAILED", "can't allocate memory")


def total_memory(device: torch.device) -> int:
    """Bytes of memory that a CUDA device has."""
    return torch.cuda.get_device_properties(device).total_memory


def free_memory(device: torch.device) -> int:
    """Bytes of a CUDA device that this process can still allocate."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def release_memory(device: torch.device, cycles: bool = False) -> None:
    """Return unused memory to the device.

    `cycles` also runs the garbage collector (slow), which reference cycles need, such as an exception and its frames.
    """
    if cycles:
        gc.collect()
    if device.type == "cuda":
        with torch_lock:  # torch frees nothing during a graph capture
            torch.cuda.empty_cache()


def is_oom(error: BaseException) -> bool:
    """Whether memory ran out. Only torch's CUDA allocator has an exception class for that."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in OOM_PHRASES)


@dataclass
class CaughtOom:
    """The error that ended a `catch_oom` block, without its frames. None: no such error."""

    error: Exception | None = None


@contextmanager
def catch_oom(*also: type[Exception]) -> Iterator[CaughtOom]:
    """Catch running out of memory, or one of `also`. The code after the block reads `error` and tries with less.

    An exception keeps the memory of all its frames while it is handled. After the block it is no longer handled, so
    memory can be released there.
    """
    caught = CaughtOom()
    try:
        yield caught
    except Exception as error:
        if not (is_oom(error) or isinstance(error, also)):
            raise
        caught.error = error.with_traceback(None)
