"""Decoded tokens to speech, with the stock modules. Knows nothing of where checkpoints come from, checks or retries.

Seeded with the request's seed: a waveform depends on its tokens, not on what was spoken before.
"""

import logging

import numpy as np
import torch

from pipeline.engine import Request, Speech
from pipeline.engine.chatterbox.device import is_lost, ran_out
from pipeline.engine.chatterbox.model import Models
from pipeline.engine.chatterbox.precision import float32_math
from pipeline.engine.chatterbox.t3.decoder import Decoded
from pipeline.voice import Conditionals

log = logging.getLogger(__name__)

SPEECH_TOKENS = 6561  # ids from here on are marks, not speech


def speak(
    models: Models, voice: Conditionals, request: Request, decoded: Decoded | Exception, flow_steps: int
) -> Speech:
    """Whatever is wrong with this request alone ends up in `Speech.error`."""
    try:
        tokens = _speech_tokens(decoded).to(models.device)
        samples = waveform(models, voice, request, tokens, flow_steps)
        return Speech(request, samples, tokens.cpu().numpy().astype(np.int16), decoded.ended)
    except FloatingPointError as error:  # the checks call it what it is
        log.warning("%s: %s", request.utterance.id, error)
        return Speech(request, np.full(1, np.nan, np.float32))
    except Exception as error:
        if ran_out(error) or is_lost(models.device):
            raise
        log.warning("%s: cannot be spoken", request.utterance.id, exc_info=True)
        return Speech(request, np.zeros(0, np.float32), error=f"{type(error).__name__}: {error}")


def waveform(
    models: Models, voice: Conditionals, request: Request, tokens: torch.Tensor, flow_steps: int
) -> np.ndarray:
    """As `S3Gen.inference`, with a number format for each half. (num_samples,) float32, 960 for a token"""
    if len(tokens) == 0:
        raise ValueError("no speech tokens")
    s3gen = models.s3gen
    torch.manual_seed(request.seed)
    with torch.inference_mode():
        with float32_math(request.precision.flow):
            mel = s3gen.flow_inference(  # (1, 80, 2 * num_tokens)
                tokens, ref_dict=voice.gen(), n_cfm_timesteps=flow_steps, finalize=True
            )
        with float32_math(request.precision.vocoder):
            samples, _ = s3gen.hift_inference(mel)  # (1, num_samples)
        samples[:, : len(s3gen.trim_fade)] *= s3gen.trim_fade  # stock hides there what spills over from the prompt
    return samples[0].cpu().numpy()


def _speech_tokens(decoded: Decoded | Exception) -> torch.Tensor:
    """(num_tokens,) int64, without the end token and other marks"""
    if isinstance(decoded, Exception):
        raise decoded
    if not decoded.finite:
        raise FloatingPointError("T3's logits are not finite")
    return decoded.tokens[decoded.tokens < SPEECH_TOKENS]
