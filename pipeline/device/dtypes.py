"""Number formats: which of them a device has, what `auto` means there, and torch's switches for FP32 arithmetic.

Knows no model.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from pipeline.config import FP32, Precision

log = logging.getLogger(__name__)

BEST = Precision(t3="bf16", flow="bf16", vocoder="tf32", voice_encoder="fp32")
BEST_OF_OLD = Precision(t3="fp16", flow="fp16", vocoder="fp32", voice_encoder="fp32")
# Held by who sets a switch of torch's, which are the whole process's, or captures a graph, until all is put back.
switching = threading.RLock()
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ALL, FP32_ALONE = frozenset(DTYPES), frozenset({"fp32"})


def resolve(wanted: Precision, device: torch.device) -> Precision:
    """`wanted` without `auto`; what the device does not have is FP32, and is logged."""
    auto, there = best(device), formats(device)
    asked = {name: getattr(auto, name) if value == "auto" else value for name, value in vars(wanted).items()}
    found = {name: value if value in there[name] else "fp32" for name, value in asked.items()}
    if changed := [f"{name}={asked[name]}" for name in asked if found[name] != asked[name]]:
        log.info("%s has no precision.%s: fp32 it is", device, ", precision.".join(changed))
    return Precision(**found)


def safer(precision: Precision, device: torch.device) -> Precision | None:
    """What is left to go to when too much goes wrong: half precision to TF32, then TF32 to FP32; None from FP32."""
    values = set(vars(precision).values())
    if values <= FP32_ALONE:
        return None
    halves = values - {"fp32", "tf32"}
    step = {value: "tf32" for value in halves} or {"tf32": "fp32"}
    there = formats(device)
    stepped = {name: step.get(value, value) for name, value in vars(precision).items()}
    return Precision(**{name: value if value in there[name] else "fp32" for name, value in stepped.items()})


def best(device: torch.device) -> Precision:
    """What `auto` means: BF16 and TF32 came with compute capability 8.0 (Ampere), FP16 for Triton with 7.5 (Turing).

    A CPU's BF16 is left to who asks for it: in FP32 an utterance has the same bytes in any company.
    """
    if device.type != "cuda":
        return FP32
    capability = torch.cuda.get_device_capability(device)
    return BEST if capability >= (8, 0) else BEST_OF_OLD if capability >= (7, 5) else FP32


def formats(device: torch.device) -> Mapping[str, frozenset[str]]:
    """Those of each component that the device computes in, not only emulates."""
    there = FP32_ALONE
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        there = ALL if capability >= (8, 0) else there | {"fp16"} if capability >= (7, 5) else there
    found = dict.fromkeys(vars(FP32), there)
    if device.type == "cpu" and cpu_has_bf16():
        found |= dict.fromkeys(("t3", "flow"), FP32_ALONE | {"bf16"})
    return found


def cpu_has_bf16() -> bool:
    """Whether oneDNN finds it quick here; a CPU without it computes the same."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


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
