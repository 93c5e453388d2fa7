"""Stock Chatterbox, the baseline of all speeds: the engine's weights and device, in FP32 as stock loads them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from chatterbox.models.t3 import T3
from chatterbox.models.t3.modules.cond_enc import T3Cond
from torch import Tensor

from pipeline.benchmark.machine import measure_time
from pipeline.config import ChatterboxConfig
from pipeline.data import SAMPLE_RATE, Request
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.chatterbox.files import S3GEN_FILE, T3_FILE
from pipeline.engine.chatterbox.stock import load
from pipeline.engine.chatterbox.token_stage import TokenStage
from pipeline.engine.chatterbox.vocabulary import SPEECH_TOKENS
from pipeline.engine.chatterbox.voice import Conditionals
from pipeline.watermark.perth import Perth, load_perth


def load_t3(folder: Path, device: torch.device) -> T3:
    """Stock's T3."""
    t3 = load(T3_FILE, folder, device)
    t3.cfg.num_hidden_layers = len(t3.tfmr.layers)
    return t3


def reference_of(voice: Conditionals) -> dict[str, Tensor | None]:
    """The voice as S3Gen's `ref_dict`, a new dict because S3Gen changes it."""
    names = ("prompt_token", "prompt_token_len", "prompt_feat", "embedding")
    return {name: getattr(voice, name) for name in names} | dict(prompt_feat_len=None)


class Stock:
    """Renders one utterance at a time, as `ChatterboxTTS.generate` does. Each model is loaded at its first use."""

    def __init__(self, engine: ChatterboxEngine) -> None:
        self._engine, self.device = engine, engine.residency.models.device
        self._prompt_of = TokenStage(engine.residency.models, engine.voice, ChatterboxConfig(), usual="fp32").prompt_of
        self._modules: dict[str, torch.nn.Module] = {}
        self._perth = Perth(load_perth())  # on the CPU

    def tokens(self, request: Request, max_tokens: int | None = None) -> Tensor:
        """(num_tokens,) int64 on the device: all tokens that T3 draws"""
        t3 = self._module("t3", lambda: load_t3(self._engine.residency.models.folder, self.device))
        voice, sampling = self._engine.voice("fp32"), request.sampling
        cond = T3Cond(
            speaker_emb=voice.speaker_emb,
            cond_prompt_speech_tokens=voice.cond_prompt_speech_tokens,
            emotion_adv=torch.full((1, 1, 1), sampling.exaggeration),
        ).to(device=self.device)
        with torch.inference_mode():
            return t3.inference(
                t3_cond=cond,
                text_tokens=torch.tensor([self._prompt_of(request).text] * 2, device=self.device),
                max_new_tokens=max_tokens or request.max_tokens,
                **{name: value for name, value in vars(sampling).items() if name != "exaggeration"},
            )[0]

    def samples(self, tokens: Tensor) -> np.ndarray:
        """(num_samples,) float32, watermarked"""
        s3gen = self._module("s3gen", lambda: load(S3GEN_FILE, self._engine.residency.models.folder, self.device))
        with torch.inference_mode():
            speech, _ = s3gen.inference(
                tokens[tokens < SPEECH_TOKENS], ref_dict=reference_of(self._engine.voice("fp32"))
            )
        (marked,) = self._perth.apply([speech[0].cpu().numpy()], SAMPLE_RATE)
        return marked

    def tokens_per_second(self, requests: Sequence[Request]) -> float:
        self.tokens(requests[0], max_tokens=10)  # warms up: libraries choose their kernels
        with measure_time(self.device) as run:
            count = sum(len(self.tokens(request)) for request in requests)
        return count / run.seconds

    def x_realtime(self, inputs: Sequence[Request | Tensor]) -> float:
        """Seconds of speech per second, from texts or from tokens to watermarked samples."""
        self.samples(self._tokens_of(inputs[0], 10))
        with measure_time(self.device) as run:
            count = sum(len(self.samples(self._tokens_of(source))) for source in inputs)
        return count / SAMPLE_RATE / run.seconds

    def _tokens_of(self, source: Request | Tensor, max_tokens: int | None = None) -> Tensor:
        return self.tokens(source, max_tokens) if isinstance(source, Request) else source[:max_tokens].to(self.device)

    def _module(self, name: str, build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
        if name not in self._modules:
            self._modules[name] = build()
        return self._modules[name]
