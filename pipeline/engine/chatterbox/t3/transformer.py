"""The Llama inside T3: its layers over any attention function, and prefill.

Knows nothing of slots, speech tokens or sampling.
"""

from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.device.graphs import compiles
from pipeline.engine.chatterbox.t3 import plain
from pipeline.engine.chatterbox.t3.conditioning import embed_conditioning
from pipeline.engine.chatterbox.t3.weights import CONDITIONING, EPS, T3Weights, linear
from pipeline.engine.chatterbox.voice import Conditionals


def choose_t3_ops(device: torch.device) -> ModuleType:
    """`plain` or `kernels`, which have the same functions."""
    if not compiles(device):
        return plain
    from pipeline.engine.chatterbox.t3 import kernels  # imports Triton

    return kernels


def run_layers(weights: T3Weights, update: Tensor, residual: Tensor, attend: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Embeddings, given as two terms of a sum, to hidden states behind the last norm. (N, 1024) each

    `attend` takes a layer's number and QKV (N, 3 * 1024), and returns (N, 1024).
    """
    ops = choose_t3_ops(weights.device)
    for number, layer in enumerate(weights.layers):
        x, residual = ops.add_rms_norm(update, residual, layer.attention_norm, EPS)
        update = linear(attend(number, linear(x, layer.qkv)), layer.output)
        x, residual = ops.add_rms_norm(update, residual, layer.mlp_norm, EPS)
        update = linear(ops.silu_mul(linear(x, layer.gate_up)), layer.down)
    return ops.add_rms_norm(update, residual, weights.norm, EPS)[0]


Store = Callable[[int, Tensor], None]  # takes a layer's number, and its keys and values (2, G, heads, T, 64)


def prefill(weights: T3Weights, update: Tensor, residual: Tensor, prefix: Tensor, store: Store) -> None:
    """Keys and values of T positions behind a prefix of P, for each of G sequences, layer by layer.

    The embeddings are update + residual, (G, T, 1024) each; prefix (layers, 2, heads, P, 64).
    """
    (group, length, _), before = update.shape, prefix.shape[3]
    cos, sin = weights.rope[:, before : before + length]  # (T, 64) each
    causal = torch.ones(length, before + length, dtype=torch.bool, device=update.device).tril(before)  # (T, P + T)

    def attend(layer: int, qkv: Tensor) -> Tensor:
        heads = qkv.view(group, length, 3, weights.num_heads, weights.head_dim)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (G, heads, T, 64) each
        q, k = plain.rotate(q, cos, sin), plain.rotate(k, cos, sin)
        store(layer, torch.stack([k, v]))
        keys, values = (
            torch.cat([shared.expand(group, -1, -1, -1), own], dim=2)
            for shared, own in zip(prefix[layer], (k, v), strict=True)
        )
        attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=causal)  # (G, heads, T, 64)
        return attended.transpose(1, 2).reshape(group * length, -1)

    run_layers(weights, update.flatten(0, 1), residual.flatten(0, 1), attend)


@torch.inference_mode()
def compute_prefix(weights: T3Weights, voice: Conditionals, exaggeration: float, text_length: int) -> Tensor:
    """The conditioning, then position embeddings without text (CFG). (layers, 2, heads, 34 + text_length, 64)

    Conditional rows read the first 34 positions. Attention is causal, so those do not depend on what follows.
    """
    embedded = torch.cat([_embed_voice(weights, voice, exaggeration), weights.text_pos[:text_length]])[None]
    empty = embedded.new_zeros(len(weights.layers), 2, weights.num_heads, 0, weights.head_dim)
    layers: list[Tensor] = []
    prefill(weights, embedded, torch.zeros_like(embedded), empty, lambda _, both: layers.append(both[:, 0]))
    return torch.stack(layers)


def _embed_voice(weights: T3Weights, voice: Conditionals, exaggeration: float) -> Tensor:
    """The embeddings that all utterances of a voice begin with. (34, 1024)"""
    tokens = voice.cond_prompt_speech_tokens.to(weights.device)  # (1, up to 150)
    prompt = weights.speech_emb[tokens] + weights.speech_pos[: tokens.shape[1]]  # (1, up to 150, 1024)
    speaker = voice.speaker_emb.to(weights.device)
    return embed_conditioning(weights.conditioner, speaker, prompt.float(), exaggeration).to(weights.dtype)


def prefill_text(weights: T3Weights, text: Tensor, prefix: Tensor, store: Store) -> None:
    """Keys and values of G texts behind the conditioning. text (G, T) int64"""
    positions = weights.text_pos[: text.shape[1]].expand(len(text), -1, -1)
    prefill(weights, weights.text_emb[text], positions, prefix[..., :CONDITIONING, :], store)
