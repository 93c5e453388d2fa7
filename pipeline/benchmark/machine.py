"""The machine that a benchmark runs on: its name, its clock, and how fast its memory is. Knows no model."""

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
def timed(device: torch.device) -> Iterator[Timer]:
    """Wall time of a block, of what it left to the device as well."""
    timer = Timer()
    synchronize(device)
    started = time.perf_counter()
    yield timer
    synchronize(device)
    timer.seconds = time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{len(os.sched_getaffinity(0))} CPU cores, {torch.get_num_threads()} threads"


@dataclass
class Share:
    mean: float | None = None  # None: nothing could be read


@contextmanager
def busy(device: torch.device) -> Iterator[Share]:
    """The share of a block's time in which a GPU ran some kernel, as nvidia-smi samples it five times a second."""
    share = Share()
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield share
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
            yield share
        finally:
            sampler.terminate()
            percent = [int(line) for line in sampler.stdout if line.strip().isdigit()]
    share.mean = sum(percent) / len(percent) / 100 if percent else None


def bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes: what arithmetic that is bound by memory can reach."""
    size = 2**30 if device.type == "cuda" else 2**28
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        with timed(device) as timer:
            target.copy_(source)
        best = max(best, 2 * size / timer.seconds)
    return best
