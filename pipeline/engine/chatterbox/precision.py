"""Number formats: what `auto` means on a device, and torch's switches for FP32 arithmetic. Knows no model."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from pipeline.config import FP32, Precision

log = logging.getLogger(__name__)

BEST = Precision(t3="bf16", flow="bf16", vocoder="tf32", voice_encoder="fp32")
# Held by who sets a switch of torch's, which are the whole process's, or captures a graph, until all is put back.
switching = threading.RLock()
WEIGHTS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}  # TF32 is a way to multiply FP32


def resolve(wanted: Precision, device: torch.device) -> Precision:
    """`wanted` without `auto`, and without the TF32 that only CUDA has."""
    # BF16 and TF32 came together, with compute capability 8.0 (Ampere).
    modern = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    auto = BEST if modern else FP32
    chosen = {name: getattr(auto, name) if value == "auto" else value for name, value in vars(wanted).items()}
    if not modern and "tf32" in chosen.values():
        log.info("no TF32 on %s: FP32 it is", device)
        chosen = {name: "fp32" if value == "tf32" else value for name, value in chosen.items()}
    return replace(wanted, **chosen)


@contextmanager
def float32_math(number_format: str) -> Iterator[None]:
    """Let FP32 products and convolutions round their factors to TF32, or not. Torch's default: convolutions only."""
    known, tf32, ieee = switches()
    with switching:
        before = [getattr(switch, name) for switch, name in known]
        try:
            for switch, name in known:
                setattr(switch, name, tf32 if number_format == "tf32" else ieee)
            yield
        finally:
            for (switch, name), value in zip(known, before, strict=True):
                setattr(switch, name, value)


@contextmanager
def repeatable() -> Iterator[None]:
    """Without cuDNN's transposed convolutions that add up in the order in which they come to it."""
    cudnn = torch.backends.cudnn
    with switching:
        before = cudnn.deterministic
        try:
            cudnn.deterministic = True
            yield
        finally:
            cudnn.deterministic = before


def switches() -> tuple[list[tuple[object, str]], object, object]:
    """Torch's switches, and their values for TF32 and for plain FP32. Torch 2.9 deprecated the older ones."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    if hasattr(cuda.matmul, "fp32_precision"):
        return [(switch, "fp32_precision") for switch in (cuda.matmul, cudnn.conv, cudnn.rnn)], "tf32", "ieee"
    return [(switch, "allow_tf32") for switch in (cuda.matmul, cudnn)], True, False
