"""A device's memory: how much is free, giving it back, and going on after it ran out. Knows no model."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pipeline.device.dtypes import switching

# What the driver, cuBLAS and cuDNN, and the CPU's allocator say.
NO_MEMORY = ("out of memory", "ALLOC_FAILED", "can't allocate memory")


def total_memory(device: torch.device) -> int:
    """Bytes of a CUDA device."""
    return torch.cuda.get_device_properties(device).total_memory


def free_memory(device: torch.device) -> int:
    """Bytes of a CUDA device that this process can still get."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def release_memory(device: torch.device, cycles: bool = False) -> None:
    """Give memory that is no longer in use back to the device.

    `cycles` also runs the garbage collector (slow). Reference cycles need it, such as an exception and its frames.
    """
    if cycles:
        gc.collect()
    if device.type == "cuda":
        with switching:  # torch frees nothing while a graph is being captured
            torch.cuda.empty_cache()


def is_oom(error: BaseException) -> bool:
    """Whether memory ran out. Only torch's CUDA allocator has an exception class for that."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


@dataclass
class Caught:
    """The out-of-memory error that a `catch_oom` block ended with, without its frames; None: it ended well."""

    error: Exception | None = None


@contextmanager
def catch_oom(*also: type[Exception]) -> Iterator[Caught]:
    """Let a block run out of memory, or raise one of `also`; the code behind it asks `error` and tries with less.

    An exception that is being handled keeps the memory of all its frames. Behind the block it is no longer handled,
    so what is freed there is really free.
    """
    caught = Caught()
    try:
        yield caught
    except Exception as error:
        if not (is_oom(error) or isinstance(error, also)):
            raise
        caught.error = error.with_traceback(None)
