"""Speech tokens to mu, two mel frames a token: stock's upsampling conformer for padded batches. Knows no flow.

Padding changes no result: the look-ahead reads zeros behind a row's end, as stock's does. The other convolutions look
back only, and attention is masked.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.engine.chatterbox.s3gen.weights import Norm
from pipeline.engine.chatterbox.saved import SavedTensors

NORM_EPS, LAYER_EPS = 1e-5, 1e-12
# Without cuDNN, which prepares anew for each shape.
BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
Linear = tuple[Tensor, Tensor]  # weight and bias


@dataclass(frozen=True)
class EncoderLayer:
    norm: Norm
    qkv: Linear
    position: Tensor  # (512, 512), projects encoded distances
    content_bias: Tensor  # (8, 1, 64)
    position_bias: Tensor  # (8, 1, 64)
    output: Linear
    mlp_norm: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True)
class Encoder:
    tokens: Tensor  # (6561, 512)
    embed: tuple[Linear, Norm]
    look_ahead: Linear  # convolution, (512, 512, 4)
    look_back: Linear  # convolution, (512, 512, 3)
    layers: tuple[EncoderLayer, ...]
    upsample: Linear  # convolution, (512, 512, 5)
    embed_upsampled: tuple[Linear, Norm]
    layers_upsampled: tuple[EncoderLayer, ...]
    norm: Norm
    project: Linear  # (80, 512)


@torch.no_grad()
def fuse_encoder(saved: SavedTensors, device: torch.device, dtype: torch.dtype) -> Encoder:
    """Fuse the tensors of `flow`'s embedding, encoder and projection."""

    def put(tensor: Tensor) -> Tensor:
        return tensor.to(device).float().to(dtype).contiguous()

    def pair(of: SavedTensors, name: str) -> Linear:
        return put(of[f"{name}.weight"]), put(of[f"{name}.bias"])

    def layer(of: SavedTensors) -> EncoderLayer:
        attention = of.under("self_attn")
        parts = [[attention[f"linear_{name}.{kind}"] for name in "qkv"] for kind in ("weight", "bias")]
        return EncoderLayer(
            norm=pair(of, "norm_mha"),
            qkv=(put(torch.cat(parts[0])), put(torch.cat(parts[1]))),
            position=put(attention["linear_pos.weight"]),
            content_bias=put(attention["pos_bias_u"][:, None]),
            position_bias=put(attention["pos_bias_v"][:, None]),
            output=pair(attention, "linear_out"),
            mlp_norm=pair(of, "norm_ff"),
            up=pair(of, "feed_forward.w_1"),
            down=pair(of, "feed_forward.w_2"),
        )

    encoder = saved.under("encoder")
    return Encoder(
        tokens=put(saved["input_embedding.weight"]),
        embed=(pair(encoder, "embed.out.0"), pair(encoder, "embed.out.1")),
        look_ahead=pair(encoder, "pre_lookahead_layer.conv1"),
        look_back=pair(encoder, "pre_lookahead_layer.conv2"),
        layers=tuple(map(layer, encoder.blocks("encoders"))),
        upsample=pair(encoder, "up_layer.conv"),
        embed_upsampled=(pair(encoder, "up_embed.out.0"), pair(encoder, "up_embed.out.1")),
        layers_upsampled=tuple(map(layer, encoder.blocks("up_encoders"))),
        norm=pair(encoder, "after_norm"),
        project=pair(saved, "encoder_proj"),
    )


def encode(weights: Encoder, tokens: Tensor, lengths: Tensor) -> Tensor:
    """mu (B, 2 * T, 80) of tokens (B, T) int64. Row b has lengths[b] tokens, and so 2 * lengths[b] frames."""
    valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
    x = _embed(weights.embed, weights.tokens[tokens]) * valid[..., None]
    x = x + _apply_lookahead(weights, x)
    x = _run_layers(weights.layers, x, valid)
    x = _convolve(x.repeat_interleave(2, dim=1), weights.upsample, back=4)  # (B, 2 * T, 512)
    x = _run_layers(weights.layers_upsampled, _embed(weights.embed_upsampled, x), valid.repeat_interleave(2, dim=1))
    return F.linear(F.layer_norm(x, x.shape[-1:], *weights.norm, NORM_EPS), *weights.project)


def _embed(weights: tuple[Linear, Norm], x: Tensor) -> Tensor:
    linear, norm = weights
    width = x.shape[-1]
    return F.layer_norm(F.linear(x, *linear), (width,), *norm, NORM_EPS) * math.sqrt(width)


def _apply_lookahead(weights: Encoder, x: Tensor) -> Tensor:
    """Convolutions over three tokens ahead, then over two back. (B, T, 512)"""
    return _convolve(F.leaky_relu(_convolve(x, weights.look_ahead, ahead=3)), weights.look_back, back=2)


def _convolve(x: Tensor, convolution: Linear, back: int = 0, ahead: int = 0) -> Tensor:
    """Convolve by a matrix product: CUDA's convolutions prepare anew for each shape. (B, T, 512)"""
    windows = F.pad(x, (0, 0, back, ahead)).unfold(1, back + ahead + 1, 1)  # (B, T, 512, kernel size)
    return F.linear(windows.flatten(2), convolution[0].flatten(1), convolution[1])


def _run_layers(layers: tuple[EncoderLayer, ...], x: Tensor, valid: Tensor) -> Tensor:
    distances = encode_distances(x)
    mask = torch.zeros_like(valid, dtype=x.dtype).masked_fill(~valid, float("-inf"))[:, None, None]  # (B, 1, 1, T)
    for layer in layers:
        x = x + _attend(layer, F.layer_norm(x, x.shape[-1:], *layer.norm, LAYER_EPS), distances, mask)
        inner = F.layer_norm(x, x.shape[-1:], *layer.mlp_norm, LAYER_EPS)
        x = x + F.linear(F.silu(F.linear(inner, *layer.up)), *layer.down)
    return x


def encode_distances(x: Tensor) -> Tensor:
    """Transformer-XL's encoding of the distances T - 1 to 1 - T, sines and cosines alternating. (2 * T - 1, 512)"""
    length, width = x.shape[1:]
    distance = torch.arange(length - 1, -length, -1, device=x.device, dtype=torch.float32)
    rate = torch.exp(torch.arange(0, width, 2, device=x.device, dtype=torch.float32) * (-math.log(10_000) / width))
    angle = distance[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).to(x.dtype)


def _attend(layer: EncoderLayer, x: Tensor, distances: Tensor, mask: Tensor) -> Tensor:
    """Attention by content and by distance (Transformer-XL, section 3.3). x (B, T, 512); (B, T, 512)"""
    batch, length, width = x.shape
    heads, _, size = layer.content_bias.shape
    q, k, v = F.linear(x, *layer.qkv).view(batch, length, 3, heads, size).permute(2, 0, 3, 1, 4)  # (B, heads, T, 64)
    position = F.linear(distances, layer.position).view(-1, heads, size).permute(1, 2, 0)  # (heads, 64, 2 * T - 1)
    by_distance = (q + layer.position_bias) @ position  # (B, heads, T, 2 * T - 1)
    # Relative shift: query i finds key 0 at column T - 1 - i, one column less than the query above it.
    by_key = by_distance.as_strided(
        (batch, heads, length, length),
        (*by_distance.stride()[:2], 2 * length - 2, 1),
        by_distance.storage_offset() + length - 1,
    )
    bias = by_key * size**-0.5 + mask
    with sdpa_kernel(BACKENDS):
        attended = F.scaled_dot_product_attention(q + layer.content_bias, k, v, attn_mask=bias)
    return F.linear(attended.transpose(1, 2).reshape(batch, length, width), *layer.output)
