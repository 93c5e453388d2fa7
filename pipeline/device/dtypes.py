"""Number formats: their dtypes, and torch's flags for FP32 arithmetic.

A number format is a dtype and, for FP32, whether products are rounded to TF32. Knows no model.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# For torch's process-wide flags and for graph capture. Hold it from setting a flag until it is restored.
torch_lock = threading.RLock()
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def cpu_has_bf16() -> bool:
    """Whether oneDNN has fast BF16 on this CPU. Without it, BF16 gives the same results."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def float32_math(number_format: str) -> Iterator[None]:
    """Round the factors of FP32 products and convolutions to TF32, or not. torch's default: convolutions only."""
    known, tf32, ieee = switches()
    with torch_lock:
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
    """Use only deterministic algorithms of cuDNN. Some of its transposed convolutions add up in arbitrary order."""
    cudnn = torch.backends.cudnn
    with torch_lock:
        before = cudnn.deterministic
        try:
            cudnn.deterministic = True
            yield
        finally:
            cudnn.deterministic = before


def switches() -> tuple[list[tuple[object, str]], object, object]:
    """torch's TF32 flags as (object, attribute), their value for TF32, and their value for FP32.

    torch 2.9 deprecated the older flags.
    """
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    if hasattr(cuda.matmul, "fp32_precision"):
        return [(switch, "fp32_precision") for switch in (cuda.matmul, cudnn.conv, cudnn.rnn)], "tf32", "ieee"
    return [(switch, "allow_tf32") for switch in (cuda.matmul, cudnn)], True, False
