"""Triton kernels and CUDA graphs: whether they are used, capturing a graph, and the time that compiling takes.

One switch for the whole process, because compiled kernels belong to it. Knows nothing of what is computed.
"""

import time
from collections.abc import Callable

import torch

from pipeline.device.devices import side_streams
from pipeline.device.dtypes import torch_lock

_enabled = True
_spent_s = 0.0


def configure(enabled: bool) -> None:
    """Switch kernels and graphs on or off for the whole process."""
    global _enabled
    _enabled = enabled


def compiles(device: torch.device) -> bool:
    """Whether work on `device` uses kernels and graphs. Otherwise plain PyTorch computes the same."""
    return _enabled and device.type == "cuda"


def spent_s() -> float:
    """Seconds spent on compiling and capturing so far."""
    return _spent_s


def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture `work` as a CUDA graph, which starts all its kernels at once, and return the graph's replay.

    `work` must touch only memory at fixed addresses. Where nothing is compiled, `work` itself is returned.
    """
    global _spent_s
    if not compiles(device):
        return work
    with torch_lock:
        begun, stream = time.monotonic(), side_streams(device).capture
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):  # warm-up: compiles kernels, lets libraries choose theirs
            work()
            work()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may call CUDA during the capture
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
        _spent_s += time.monotonic() - begun
    return graph.replay
