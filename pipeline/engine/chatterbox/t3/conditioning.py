"""What every utterance of a voice begins with: speaker, prompt and emotion as embeddings. Knows no decoding.

Stock's `T3CondEnc`, in FP32. The prompt's up to 150 speech tokens become 32 embeddings by a perceiver
(Jaegle et al. 2021): learned queries attend to the prompt, and then to themselves with the same weights.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.chatterbox.saved import SavedTensors

HEADS = 4
Linear = tuple[Tensor, Tensor]  # weight and bias


@dataclass(frozen=True)
class Conditioner:
    """Weights, float32."""

    speaker: Linear  # (1024, 256)
    emotion: Tensor  # (1024, 1)
    queries: Tensor  # (1, 32, 1024)
    norm: Linear  # (1024,) each
    q: Linear  # (1024, 1024), as the next three
    k: Linear
    v: Linear
    output: Linear


def read_conditioner(saved: SavedTensors, device: torch.device) -> Conditioner:
    def put(name: str) -> Tensor:
        return saved[name].to(device).to(torch.float32)

    def pair(name: str) -> Linear:
        return put(f"{name}.weight"), put(f"{name}.bias")

    return Conditioner(
        speaker=pair("spkr_enc"),
        emotion=put("emotion_adv_fc.weight"),
        queries=put("perceiver.pre_attention_query"),
        norm=pair("perceiver.attn.norm"),
        q=pair("perceiver.attn.to_q"),
        k=pair("perceiver.attn.to_k"),
        v=pair("perceiver.attn.to_v"),
        output=pair("perceiver.attn.proj_out"),
    )


def embed_conditioning(weights: Conditioner, speaker: Tensor, prompt: Tensor, exaggeration: float) -> Tensor:
    """The embeddings that all utterances of a voice begin with. (34, 1024) float32

    speaker (1, 256): the voice encoder's embedding; prompt (1, T, 1024): the prompt's speech tokens, embedded.
    """
    emotion = torch.full((1, 1, 1), exaggeration, device=speaker.device)
    parts = (
        F.linear(speaker, *weights.speaker)[:, None],  # (1, 1, 1024)
        _resample_prompt(weights, prompt),  # (1, 32, 1024)
        F.linear(emotion, weights.emotion),  # (1, 1, 1024)
    )
    return torch.cat(parts, dim=1)[0]


def _resample_prompt(weights: Conditioner, prompt: Tensor) -> Tensor:
    attended = _attend(weights, weights.queries, prompt)
    return _attend(weights, attended, attended)


def _attend(weights: Conditioner, queries: Tensor, keys: Tensor) -> Tensor:
    """queries (1, 32, 1024), keys (1, T, 1024); (1, 32, 1024)"""

    def heads(x: Tensor) -> Tensor:
        return x.view(1, -1, HEADS, x.shape[2] // HEADS).permute(0, 2, 1, 3)  # (1, 4, T, 256)

    width = queries.shape[2:]
    asking, asked = F.layer_norm(queries, width, *weights.norm), F.layer_norm(keys, width, *weights.norm)
    q, k, v = F.linear(asking, *weights.q), F.linear(asked, *weights.k), F.linear(asked, *weights.v)
    attended = F.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    return queries + F.linear(attended.permute(0, 2, 1, 3).reshape(queries.shape), *weights.output)
