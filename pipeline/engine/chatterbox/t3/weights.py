"""T3's weights as its decoder reads them: matrices fused, in one number format, on one device. Knows no decoding."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from chatterbox.models.t3 import T3
from chatterbox.models.t3.modules.cond_enc import T3Cond, T3CondEnc
from torch import Tensor

from pipeline.engine.chatterbox.voice import Conditionals

CONDITIONING = 34  # positions: the speaker, 32 of the perceiver, the emotion
CPU_ROWS = 16  # that a CPU's matrices are laid out for: 8 utterances with guidance


@dataclass(frozen=True)
class T3Layer:
    """Its matrices are for `linear` alone."""

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
    head: Tensor  # (8194, 1024) float32, whatever the others are: sampling needs FP32 logits, laid out as stock does
    text_emb: Tensor  # (704, 1024)
    text_pos: Tensor  # (2050, 1024)
    speech_emb: Tensor  # (8194, 1024)
    speech_pos: Tensor  # (4100, 1024)
    rope: Tensor  # (2, 6188, 64) float32: cosines and sines, by position in the sequence
    cond_enc: T3CondEnc  # float32
    num_heads: int
    eps: float
    start_token: int
    stop_token: int

    @property
    def dtype(self) -> torch.dtype:
        return self.norm.dtype

    @property
    def device(self) -> torch.device:
        return self.norm.device

    @property
    def head_dim(self) -> int:
        return self.rope.shape[2]


@torch.no_grad()
def fuse(stock: T3, device: torch.device, dtype: torch.dtype) -> T3Weights:
    """From stock's module as its file has it, which shares with it what needs no change."""

    def put(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype)

    def matrix(*parts: Tensor) -> Tensor:
        """The parts, one below the other."""
        return laid_out(put(torch.cat(parts)))

    def layer(block: torch.nn.Module) -> T3Layer:
        attention, mlp = block.self_attn, block.mlp
        return T3Layer(
            attention_norm=put(block.input_layernorm.weight),
            qkv=matrix(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight),
            output=matrix(attention.o_proj.weight),
            mlp_norm=put(block.post_attention_layernorm.weight),
            gate_up=matrix(mlp.gate_proj.weight, mlp.up_proj.weight),
            down=matrix(mlp.down_proj.weight),
        )

    speech_pos, text_pos = stock.speech_pos_emb.emb.weight, stock.text_pos_emb.emb.weight
    positions = torch.arange(CONDITIONING + len(text_pos) + len(speech_pos) + 4, device=speech_pos.device)
    cos_sin = stock.tfmr.rotary_emb(torch.empty(0, device=speech_pos.device), positions[None])  # (1, 6188, 64) each
    return T3Weights(
        layers=tuple(layer(block) for block in stock.tfmr.layers),
        norm=put(stock.tfmr.norm.weight),
        head=stock.speech_head.weight.to(device, torch.float32),
        text_emb=put(stock.text_emb.weight),
        text_pos=put(text_pos),
        speech_emb=put(stock.speech_emb.weight),
        speech_pos=put(speech_pos),
        rope=torch.cat(cos_sin).to(device),
        cond_enc=stock.cond_enc.to(device, torch.float32),
        num_heads=stock.cfg.num_attention_heads,
        eps=stock.cfg.rms_norm_eps,
        start_token=stock.hp.start_speech_token,
        stop_token=stock.hp.stop_speech_token,
    )


def laid_out(weight: Tensor) -> Tensor:
    """On a CPU, an FP32 matrix as oneDNN reads it for a few rows: for 16 of them in less than half of the time."""
    packs = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return torch.ops.mkldnn._reorder_linear_weight(weight, CPU_ROWS) if packs else weight


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """(N, in) times (out, in), laid out or not, to (N, out)"""
    if not weight.is_mkldnn:
        return F.linear(x, weight)
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def conditioning(weights: T3Weights, voice: Conditionals, exaggeration: float) -> Tensor:
    """The embeddings that every utterance of a voice begins with. (34, 1024)"""
    prompt = voice.cond_prompt_speech_tokens.to(weights.device)  # (1, up to 150)
    embedded = weights.speech_emb[prompt] + weights.speech_pos[: prompt.shape[1]]  # (1, up to 150, 1024)
    cond = T3Cond(
        speaker_emb=voice.speaker_emb.to(weights.device),
        cond_prompt_speech_tokens=prompt,
        cond_prompt_speech_emb=embedded.float(),
        emotion_adv=torch.full((1, 1, 1), exaggeration, device=weights.device),
    )
    return weights.cond_enc(cond)[0].to(weights.dtype)
