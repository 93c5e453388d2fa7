"""The loaded parts of a checkpoint on one device: T3's weights, flows, vocoders, tokenizer, the built-in voice.

Knows nothing of requests.
"""

import logging
import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.config import Precision
from pipeline.data import SAMPLE_RATE
from pipeline.device.dtypes import DTYPES
from pipeline.device.memory import release_memory
from pipeline.device.offload import Offloaded, tensors_of
from pipeline.device.padding import PaddingMeter
from pipeline.engine.chatterbox.files import S3GEN_FILE, T3_FILE, TOKENIZER_FILE, VOICE_ENCODER_FILE, VOICE_FILE
from pipeline.engine.chatterbox.s3gen.flow import Flow
from pipeline.engine.chatterbox.s3gen.vocoder import Vocoder
from pipeline.engine.chatterbox.saved import SavedTensors, read_saved
from pipeline.engine.chatterbox.t3.weights import T3Weights, fuse
from pipeline.engine.chatterbox.tokenizer import TextTokenizer
from pipeline.engine.chatterbox.voice import Conditionals, read_builtin_voice

if TYPE_CHECKING:
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.voice_encoder import VoiceEncoder

log = logging.getLogger(__name__)

FADE_S = 0.02  # of silence at the beginning of an utterance, and of fading in behind it


def verify(what: str, weights: Any, dtype: torch.dtype) -> None:
    """RuntimeError if not all of `weights` have this dtype. `what` names them in the message."""
    found = {tensor.dtype for tensor in tensors_of(weights)}
    if found != {dtype}:
        raise RuntimeError(f"the weights of {what} are {found} where {dtype} was wanted")


class LoadedModels:
    """A checkpoint on one device. Each part is loaded at its first use."""

    def __init__(self, folder: Path, device: torch.device, flow_steps: int, meter: PaddingMeter | None = None) -> None:
        self.folder, self.device, self._flow_steps = folder, device, flow_steps
        self.meter = meter or PaddingMeter()
        self.t3s: dict[torch.dtype, Offloaded[T3Weights]] = {}
        self.flows: dict[str, Flow] = {}  # by number format
        self.vocoders: dict[torch.dtype, Vocoder] = {}

    def t3(self, dtype: torch.dtype) -> T3Weights:
        """The weights of our T3 decoder, on the device."""
        if dtype not in self.t3s:
            fused = fuse(read_saved(self.folder / T3_FILE), self.device, dtype)
            verify("T3", fused.layers, dtype)
            self.t3s[dtype] = Offloaded(fused, self.device)
        return self.t3s[dtype].get()

    def flow(self, number_format: str) -> Flow:
        """The flow, which turns speech tokens into mels."""
        if number_format not in self.flows:
            flow = Flow(self.s3gen.under("flow"), self.device, number_format, self._flow_steps, self.meter)
            verify("the flow", (flow.weights.encoder, flow.weights.estimator), DTYPES[number_format])
            self.flows[number_format] = flow
        return self.flows[number_format]

    def load(self, precision: Precision) -> None:
        """Load all weights that `precision` uses, if they are not loaded yet."""
        is_new = precision.flow not in self.flows
        self.t3(DTYPES[precision.t3]), self.load_waveforms(precision)
        if is_new:
            log.info("weights loaded")

    def load_waveforms(self, precision: Precision) -> None:
        """Load flow, vocoder and fade, if they are not loaded yet."""
        self.flow(precision.flow), self.vocoder(precision.vocoder), self.fade

    def keep_only(self, precision: Precision) -> None:
        """Free the weights that `precision` does not use."""
        self.t3s = {dtype: one for dtype, one in self.t3s.items() if dtype == DTYPES[precision.t3]}
        self.flows = {name: one for name, one in self.flows.items() if name == precision.flow}
        self.vocoders = {dtype: one for dtype, one in self.vocoders.items() if dtype == DTYPES[precision.vocoder]}

    def offload_t3(self) -> None:
        """Free T3's memory on the device. The next use copies the weights back."""
        for weights in self.t3s.values():
            weights.offload()
        release_memory(self.device)

    def offload_waveforms(self) -> None:
        """Free the flows' and vocoders' memory on the device. The next use copies the weights back."""
        for one in (*self.flows.values(), *self.vocoders.values()):
            one.offload()
        release_memory(self.device)

    def vocoder(self, number_format: str) -> Vocoder:
        """The vocoder, which turns mels into samples."""
        dtype = DTYPES[number_format]
        if dtype not in self.vocoders:
            vocoder = Vocoder(self.s3gen.under("mel2wav"), self.device, dtype, self.meter)
            verify("the vocoder", (vocoder.weights.pre, vocoder.weights.post), dtype)
            self.vocoders[dtype] = vocoder
        return self.vocoders[dtype]

    @cached_property
    def fade(self) -> torch.Tensor:
        """Stock's factors for the first samples of an utterance. (960,) float32"""
        fade = torch.zeros(2 * (length := round(FADE_S * SAMPLE_RATE)))
        fade[length:] = (torch.cos(torch.linspace(math.pi, 0, length)) + 1) / 2
        return fade.to(self.device)

    @cached_property
    def s3gen(self) -> SavedTensors:
        """The tensors of S3Gen's file. Flow and vocoder are built from it."""
        return read_saved(self.folder / S3GEN_FILE)

    def voice_modules(self) -> "tuple[S3Gen, VoiceEncoder]":
        """Stock's modules on the device, for computing conditionals. They are not kept here."""
        from pipeline.engine.chatterbox.stock import load

        return load(S3GEN_FILE, self.folder, self.device), load(VOICE_ENCODER_FILE, self.folder, self.device)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self.folder / TOKENIZER_FILE)

    @cached_property
    def builtin_voice(self) -> Conditionals:
        return read_builtin_voice(self.folder / VOICE_FILE)

    def in_use(self) -> dict[str, str]:
        """What is loaded so far, by component, in words."""
        found = dict(device=str(self.device), torch=torch.__version__)
        if self.device.type == "cuda":
            found["gpu"] = torch.cuda.get_device_name(self.device)
        flows = list(self.flows.items())  # a copy, because the waveform thread may add flows meanwhile
        found |= {f"flow {number_format}": flow.in_use() for number_format, flow in flows}
        if dtypes := list(self.vocoders):
            found["vocoder"] = f"{'/'.join(str(dtype).removeprefix('torch.') for dtype in dtypes)} weights"
        return found
