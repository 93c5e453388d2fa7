"""Work on a GPU as a CUDA graph. Knows nothing of what is done."""

from collections.abc import Callable

import torch


def captured(work: Callable[[], None]) -> Callable[[], None]:
    """`work`, which touches only memory at fixed addresses, so that all its kernels are started at once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels are compiled, and libraries choose theirs
        work()
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
