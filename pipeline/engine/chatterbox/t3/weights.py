"""T3's weights as the decoder reads them: matrices fused, in one dtype, on one device. Knows no decoding."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from chatterbox.models.t3 import T3
from chatterbox.models.t3.modules.cond_enc import T3Cond, T3CondEnc
from torch import Tensor

from pipeline.engine.chatterbox.voice import Conditionals

CONDITIONING = 34  # positions: 1 of the speaker, 32 of the perceiver, 1 of the emotion
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
    """Fuse stock's module, as loaded from its file. Tensors that need no change are shared with it."""

    def put(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype)

    def matrix(*parts: Tensor) -> Tensor:
        """The parts, one below the other, for `linear`."""
        return reorder_for_cpu(put(torch.cat(parts)))

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


def reorder_for_cpu(weight: Tensor) -> Tensor:
    """An FP32 matrix on a CPU in oneDNN's layout for few rows: 16 rows take less than half the time. Others as is."""
    reorders = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return torch.ops.mkldnn._reorder_linear_weight(weight, CPU_ROWS) if reorders else weight


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (N, in) times weight (out, in), reordered or not. (N, out)"""
    if not weight.is_mkldnn:
        return F.linear(x, weight)
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def embed_conditioning(weights: T3Weights, voice: Conditionals, exaggeration: float) -> Tensor:
    """The embeddings that all utterances of a voice begin with. (34, 1024)"""
    prompt = voice.cond_prompt_speech_tokens.to(weights.device)  # (1, up to 150)
    embedded = weights.speech_emb[prompt] + weights.speech_pos[: prompt.shape[1]]  # (1, up to 150, 1024)
    cond = T3Cond(
        speaker_emb=voice.speaker_emb.to(weights.device),
        cond_prompt_speech_tokens=prompt,
        cond_prompt_speech_emb=embedded.float(),
        emotion_adv=torch.full((1, 1, 1), exaggeration, device=weights.device),
    )
    return weights.cond_enc(cond)[0].to(weights.dtype)
