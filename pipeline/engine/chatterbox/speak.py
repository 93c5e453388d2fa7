"""One request to speech, with the stock modules. Knows nothing of where checkpoints come from, checks or retries.

Both halves are seeded with the request's seed: tokens do not depend on what was spoken before, and a waveform depends
on its tokens, not on how many random numbers it took to sample them.
"""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from chatterbox.models.t3.modules.cond_enc import T3Cond
from chatterbox.models.t3.modules.t3_config import T3Config

from pipeline.engine import Request, Speech
from pipeline.engine.chatterbox.model import Models
from pipeline.engine.chatterbox.precision import WEIGHTS, float32_math
from pipeline.voice import Conditionals

log = logging.getLogger(__name__)

SPEECH_TOKENS = 6561  # ids from here on are marks, not speech


def speak(models: Models, voice: Conditionals, request: Request, flow_steps: int) -> Speech:
    """Whatever is wrong with this request alone ends up in `Speech.error`."""
    try:
        tokens, ended = speech_tokens(models, voice, request)
        samples = waveform(models, voice, request, tokens, flow_steps)
        return Speech(request, samples, tokens.cpu().numpy().astype(np.int16), ended)
    except FloatingPointError as error:  # raised in `model`; the checks call it what it is
        log.warning("%s: %s", request.utterance.id, error)
        return Speech(request, np.full(1, np.nan, np.float32))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "CUDA error" in str(error):  # the context is lost: no later request can succeed
            raise
        log.warning("%s: cannot be spoken", request.utterance.id, exc_info=True)
        return Speech(request, np.zeros(0, np.float32), error=f"{type(error).__name__}: {error}")


def speech_tokens(models: Models, voice: Conditionals, request: Request) -> tuple[torch.Tensor, bool]:
    """Sampled tokens (num_tokens,) int64 up to the end token, and whether it came."""
    sampling, dtype = request.sampling, WEIGHTS[request.precision.t3]
    t3 = models.t3(dtype)
    t3_cond = T3Cond(
        speaker_emb=voice.speaker_emb,
        cond_prompt_speech_tokens=voice.cond_prompt_speech_tokens,
        emotion_adv=sampling.exaggeration * torch.ones(1, 1, 1),
    ).to(device=models.device, dtype=dtype)
    torch.manual_seed(request.seed)
    with float32_math(request.precision.t3):
        tokens = t3.inference(
            t3_cond=t3_cond,
            text_tokens=_text_tokens(models, t3.hp, request.utterance.spoken_text),
            max_new_tokens=request.max_tokens,
            temperature=sampling.temperature,
            cfg_weight=sampling.cfg_weight,
            repetition_penalty=sampling.repetition_penalty,
            min_p=sampling.min_p,
            top_p=sampling.top_p,
        )[0]  # (num_tokens,), the last of them the end token if it came
    ended = bool(tokens[-1] == t3.hp.stop_speech_token)
    return tokens[tokens < SPEECH_TOKENS], ended


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


def _text_tokens(models: Models, hp: T3Config, spoken_text: str) -> torch.Tensor:
    """Rows with and without guidance; stock needs both, also for `cfg_weight=0`. (2, num_text_tokens)"""
    tokens = models.tokenizer.text_to_tokens(spoken_text)  # (1, num_text_tokens - 2)
    tokens = F.pad(F.pad(tokens, (1, 0), value=hp.start_text_token), (0, 1), value=hp.stop_text_token)
    if tokens.shape[1] > hp.max_text_tokens + 2:  # on a GPU, looking up a position that is not there kills the context
        raise ValueError(f"{tokens.shape[1]} text tokens are more than the model's {hp.max_text_tokens + 2}")
    return tokens.expand(2, -1).to(models.device)
