"""What is compiled for a CUDA device, Triton kernels and CUDA graphs, and whether it is.

One switch for the whole process, since kernels are. Knows nothing of what is computed.
"""

import time
from collections.abc import Callable

import torch

from pipeline.device.devices import side_streams
from pipeline.device.dtypes import switching

_wanted = True
_spent_s = 0.0


def configure(wanted: bool) -> None:
    global _wanted
    _wanted = wanted


def compiles(device: torch.device) -> bool:
    """Whether work on `device` is done by kernels and graphs; else by plain PyTorch, which computes the same."""
    return _wanted and device.type == "cuda"


def spent_s() -> float:
    """Seconds that compiling and capturing have taken so far."""
    return _spent_s


def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`work`, which touches only memory at fixed addresses, so that all its kernels are started at once."""
    global _spent_s
    if not compiles(device):
        return work
    with switching:
        begun, stream = time.monotonic(), side_streams(device).capture
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):  # kernels are compiled, and libraries choose theirs
            work()
            work()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):  # other threads go on
            work()
        _spent_s += time.monotonic() - begun
    return graph.replay
