"""The machine that a benchmark runs on: its name, clock, GPU use and memory bandwidth. Knows no model."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class Timer:
    seconds: float = 0.0


@contextmanager
def measure_time(device: torch.device) -> Iterator[Timer]:
    """Wall time of a block, until the device has finished its work."""
    timer = Timer()
    synchronize(device)
    started = time.perf_counter()
    yield timer
    synchronize(device)
    timer.seconds = time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def hardware_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{len(os.sched_getaffinity(0))} CPU cores, {torch.get_num_threads()} threads"


@dataclass
class GpuUse:
    mean: float | None = None  # share of the time; None: unknown


@contextmanager
def watch_gpu(device: torch.device) -> Iterator[GpuUse]:
    """The share of a block's time in which a kernel ran on the GPU; nvidia-smi samples it five times a second."""
    use = GpuUse()
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield use
        return
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    query = [
        "nvidia-smi",
        f"--id={uuid}",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        "-lms",
        "200",
    ]
    with subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as sampler:
        try:
            yield use
        finally:
            sampler.terminate()
            percent = [int(line) for line in sampler.stdout if line.strip().isdigit()]
    use.mean = sum(percent) / len(percent) / 100 if percent else None


def measure_bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes: an upper bound for memory-bound kernels."""
    size = 2**30 if device.type == "cuda" else 2**28
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        with measure_time(device) as timer:
            target.copy_(source)
        best = max(best, 2 * size / timer.seconds)
    return best
