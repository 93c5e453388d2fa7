"""Precision of Chatterbox's components: what `auto` means on a device, and what is safer. Knows no weights."""

import logging
from collections.abc import Mapping

import torch

from pipeline.config import FP32, Precision
from pipeline.device import dtypes

log = logging.getLogger(__name__)

AUTO_AMPERE = Precision(t3="bf16", flow="bf16", vocoder="tf32", voice_encoder="fp32")
AUTO_TURING = Precision(t3="fp16", flow="fp16", vocoder="fp32", voice_encoder="fp32")
ALL, FP32_ONLY = frozenset(dtypes.DTYPES), frozenset({"fp32"})


def resolve(wanted: Precision, device: torch.device) -> Precision:
    """`wanted` with each `auto` replaced. A format that the device lacks becomes FP32, and that is logged."""
    auto, available = auto_precision(device), formats(device)
    asked = {name: getattr(auto, name) if value == "auto" else value for name, value in vars(wanted).items()}
    found = {name: value if value in available[name] else "fp32" for name, value in asked.items()}
    if changed := [f"{name}={asked[name]}" for name in asked if found[name] != asked[name]]:
        log.info("%s has no precision.%s: fp32 it is", device, ", precision.".join(changed))
    return Precision(**found)


def safer(precision: Precision, device: torch.device) -> Precision | None:
    """The next safer precision: half precision becomes TF32, or if there is none, TF32 becomes FP32. None after FP32.

    Where the device has no TF32, half precision becomes FP32.
    """
    values = set(vars(precision).values())
    if values <= FP32_ONLY:
        return None
    halves = values - {"fp32", "tf32"}
    step = {value: "tf32" for value in halves} or {"tf32": "fp32"}
    available = formats(device)
    stepped = {name: step.get(value, value) for name, value in vars(precision).items()}
    return Precision(**{name: value if value in available[name] else "fp32" for name, value in stepped.items()})


def auto_precision(device: torch.device) -> Precision:
    """What `auto` means. BF16 and TF32 need compute capability 8.0 (Ampere), Triton's FP16 needs 7.5 (Turing).

    A CPU uses FP32 even if it has BF16: in FP32 an utterance's bytes do not depend on the other rows of a batch.
    """
    if device.type != "cuda":
        return FP32
    capability = torch.cuda.get_device_capability(device)
    return AUTO_AMPERE if capability >= (8, 0) else AUTO_TURING if capability >= (7, 5) else FP32


def formats(device: torch.device) -> Mapping[str, frozenset[str]]:
    """The formats that the device computes in, by component. Emulated formats are left out."""
    available = FP32_ONLY
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        available = ALL if capability >= (8, 0) else available | {"fp16"} if capability >= (7, 5) else available
    found = dict.fromkeys(vars(FP32), available)
    if device.type == "cpu" and dtypes.cpu_has_bf16():
        found |= dict.fromkeys(("t3", "flow"), FP32_ONLY | {"bf16"})
    return found
