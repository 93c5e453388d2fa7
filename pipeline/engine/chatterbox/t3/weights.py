"""T3's weights as the decoder reads them: matrices fused, in one dtype, on one device. Knows no decoding."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.chatterbox.saved import SavedTensors
from pipeline.engine.chatterbox.t3.conditioning import Conditioner, read_conditioner

CONDITIONING = 34  # positions: 1 of the speaker, 32 of the perceiver, 1 of the emotion
HEAD_DIM = 64
EPS = 1e-5  # of RMSNorm
ROPE_BASE, ROPE_FACTOR, ROPE_LOW, ROPE_HIGH, ROPE_LENGTH = 500_000.0, 8.0, 1.0, 4.0, 8192  # of stock's Llama
CPU_ROWS = 16  # batch size that a CPU's matrices are reordered for: 8 utterances with CFG


@dataclass(frozen=True)
class T3Layer:
    """The matrices are for `linear` only: on a CPU they may be reordered."""

    attention_norm: Tensor  # (1024,)
    qkv: Tensor  # (3 * 1024, 1024)
    output: Tensor  # (1024, 1024)
    mlp_norm: Tensor  # (1024,)
    gate_up: Tensor  # (2 * 4096, 1024)
    down: Tensor  # (1024, 4096)


@dataclass(frozen=True)
class T3Weights:
    layers: tuple[T3Layer, ...]
    norm: Tensor  # (1024,)
    head: Tensor  # (8194, 1024) float32 whatever the others are, since sampling needs FP32 logits; not reordered
    text_emb: Tensor  # (704, 1024)
    text_pos: Tensor  # (2050, 1024)
    speech_emb: Tensor  # (8194, 1024)
    speech_pos: Tensor  # (4100, 1024)
    rope: Tensor  # (2, 6188, 64) float32: cosines and sines, by position in the sequence
    conditioner: Conditioner  # float32

    @property
    def dtype(self) -> torch.dtype:
        return self.norm.dtype

    @property
    def device(self) -> torch.device:
        return self.norm.device

    @property
    def num_heads(self) -> int:
        return self.norm.shape[0] // self.head_dim

    @property
    def head_dim(self) -> int:
        return self.rope.shape[2]


@torch.no_grad()
def fuse(saved: SavedTensors, device: torch.device, dtype: torch.dtype) -> T3Weights:
    """Fuse the tensors of T3's file. Those that need no change are shared with it."""

    def put(name: str, of: SavedTensors = saved) -> Tensor:
        return of[f"{name}.weight"].to(device).to(dtype)  # the device rounds faster

    def matrix(of: SavedTensors, *names: str) -> Tensor:
        """The matrices, one below the other, for `linear`."""
        return reorder_for_cpu(torch.cat([put(name, of) for name in names]))

    def layer(block: SavedTensors) -> T3Layer:
        return T3Layer(
            attention_norm=put("input_layernorm", block),
            qkv=matrix(block.under("self_attn"), "q_proj", "k_proj", "v_proj"),
            output=matrix(block.under("self_attn"), "o_proj"),
            mlp_norm=put("post_attention_layernorm", block),
            gate_up=matrix(block.under("mlp"), "gate_proj", "up_proj"),
            down=matrix(block.under("mlp"), "down_proj"),
        )

    text_pos, speech_pos = put("text_pos_emb.emb"), put("speech_pos_emb.emb")
    return T3Weights(
        layers=tuple(layer(block) for block in saved.blocks("tfmr.layers")),
        norm=put("tfmr.norm"),
        head=saved["speech_head.weight"].to(device).to(torch.float32),
        text_emb=put("text_emb"),
        text_pos=text_pos,
        speech_emb=put("speech_emb"),
        speech_pos=speech_pos,
        rope=make_rope(CONDITIONING + len(text_pos) + len(speech_pos) + 4).to(device),
        conditioner=read_conditioner(saved.under("cond_enc"), device),
    )


def make_rope(length: int) -> Tensor:
    """Cosines and sines of the rotary embedding at positions 0 to length - 1. (2, length, 64) float32

    Llama 3's: frequencies with a wavelength over 8192 positions are divided by 8, those over 2048 by less.
    """
    rate = 1.0 / ROPE_BASE ** (torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)  # (32,)
    wavelength = 2 * math.pi / rate
    slow = torch.where(wavelength > ROPE_LENGTH / ROPE_LOW, rate / ROPE_FACTOR, rate)
    share = (ROPE_LENGTH / wavelength - ROPE_LOW) / (ROPE_HIGH - ROPE_LOW)
    between = (1 - share) * slow / ROPE_FACTOR + share * slow
    is_between = (wavelength >= ROPE_LENGTH / ROPE_HIGH) & (wavelength <= ROPE_LENGTH / ROPE_LOW)
    angle = torch.arange(length).float()[:, None] * torch.where(is_between, between, slow)  # (length, 32)
    angle = torch.cat([angle, angle], dim=1)
    return torch.stack([angle.cos(), angle.sin()])


def reorder_for_cpu(weight: Tensor) -> Tensor:
    """An FP32 matrix on a CPU in oneDNN's layout for few rows: 16 rows take less than half the time. Others as is."""
    reorders = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return torch.ops.mkldnn._reorder_linear_weight(weight, CPU_ROWS) if reorders else weight


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (N, in) times weight (out, in), reordered or not. (N, out)"""
    if not weight.is_mkldnn:
        return F.linear(x, weight)
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
