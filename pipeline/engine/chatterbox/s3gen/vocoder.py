"""HiFT: mel frames to samples, many utterances of any lengths at a time, with stock's results for each.

F0 comes from the mel, a source of sines and noise from F0, and speech from mel and source. Stock's network has no
masks and looks ahead, so padding is set to 0 before every convolution, as if the row ended there. A group's work
never waits for the host. Knows nothing of tokens, voices or files.
"""

import math
from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.device.convolution import conv_transpose1d
from pipeline.device.dtypes import float32_math, repeatable
from pipeline.device.graphs import compiles
from pipeline.device.hash import WORD
from pipeline.device.offload import Offloaded
from pipeline.device.padding import PaddingMeter, padded_batches
from pipeline.device.random import normal, uniform
from pipeline.engine.chatterbox.s3gen import vocoder_plain
from pipeline.engine.chatterbox.s3gen.streams import PHASES, SOURCE
from pipeline.engine.chatterbox.s3gen.vocoder_plain import mask_padding
from pipeline.engine.chatterbox.s3gen.vocoder_weights import ResidualBlock, VocoderStage, VocoderWeights, fold
from pipeline.engine.chatterbox.saved import SavedTensors
from pipeline.engine.chatterbox.tuning import get_tuning

FRAME_BYTES = 480_000  # peak memory per frame, measured: the last stage has some ten tensors of 31 kB a frame


class Vocoder:
    """Stock's HiFT on one device. `saved` are the tensors of `mel2wav`."""

    def __init__(
        self,
        saved: SavedTensors,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        meter: PaddingMeter | None = None,
    ) -> None:
        self._meter = meter or PaddingMeter()
        self.offloaded = Offloaded(fold(saved, device, dtype), device)

    @property
    def weights(self) -> VocoderWeights:
        return self.offloaded.get()

    def offload(self) -> None:
        """Move the weights off the device; the next use moves them back."""
        self.offloaded.offload()

    @torch.inference_mode()
    def __call__(self, mels: Sequence[Tensor], seeds: Sequence[int], number_format: str, memory: int) -> list[Tensor]:
        """Samples (480 * frames,) float32 of mels (80, frames) float32, frames >= 1, all on the device.

        `number_format` is that of the convolutions to speech, and fits their weights' dtype; all else is FP32. A seed,
        0 <= seed < 2**63, decides an utterance's noise. A group takes at most `memory` bytes, unless it is one row.
        """
        weights, device = self.weights, self.weights.device
        results: list[Tensor | None] = [None] * len(mels)
        tuning = get_tuning(device)
        limit = min(tuning.vocoder_frames, memory // FRAME_BYTES)
        batches = padded_batches([mel.shape[1] for mel in mels], limit, tuning.vocoder_step)
        for rows, count, length in batches:
            self._meter.add("vocoder groups", sum(mels[row].shape[1] for row in rows), count * length)
            padded = mels[rows[0]].new_zeros(count, mels[rows[0]].shape[0], length)  # (B, 80, T)
            for row, mel in zip(padded, (mels[row] for row in rows), strict=False):
                row[:, : mel.shape[1]] = mel
            pairs = [(mels[row].shape[1], seeds[row]) for row in rows] + [(0, 0)] * (count - len(rows))
            lengths, group_seeds = torch.tensor(pairs).to(device, non_blocking=True).T.contiguous()  # (B,) int64 each
            samples = vocode(weights, padded, lengths, group_seeds, number_format)  # (B, 480 T)
            for row, speech, (frames, _) in zip(rows, samples, pairs, strict=False):
                results[row] = speech[: frames * weights.frame]
        return results


def vocode(weights: VocoderWeights, mels: Tensor, lengths: Tensor, seeds: Tensor, number_format: str) -> Tensor:
    """A group's samples (B, 480 T), 0 behind a row's end. mels (B, 80, T); lengths (B,) frames; seeds (B,)

    A row's bits depend on B, T and the row only. Nothing waits for the host, so a CUDA graph can capture it.
    """
    with repeatable():
        excitation = make_source(weights, predict_f0(weights, mels, lengths), seeds)
        return decode(weights, mels, excitation, lengths, number_format)


def predict_f0(weights: VocoderWeights, mels: Tensor, lengths: Tensor) -> Tensor:
    """F0 (B, T) of each frame in Hz, 0 behind a row's end. mels (B, 80, T); lengths (B,) frames

    Never in TF32: its rounding would change the pitch audibly.
    """
    *hidden, last = weights.f0
    x = mask_padding(mels, lengths)
    with float32_math("fp32"):
        for convolution in hidden:
            x = mask_padding(F.elu(convolution(x)), lengths)  # (B, 512, T)
        return mask_padding(last(x).abs(), lengths)[:, 0]


def make_source(weights: VocoderWeights, f0: Tensor, seeds: Tensor) -> Tensor:
    """The source (B, 480 T): nine harmonics of F0 in voiced frames, and noise. f0 (B, T) Hz; seeds (B,)

    A harmonic's phase is the sum of all steps before it. Stock sums in FP32, which is 0.02 rad off after 40 s. Here a
    period is 2^32 and the sum is of integers, so it is exact in any order. Stock adds noise to each harmonic and sums
    them by weight. That sum is normal noise too, scaled by the weights' norm, and is drawn as such.
    """
    w, (batch, frames) = weights, f0.shape
    number = torch.arange(1, len(w.harmonics) + 1, device=f0.device)[:, None]
    step = (f0[:, None] * number / w.sample_rate * 2.0**32).round().long()  # (B, 9, T)
    advance = step * w.frame
    start = (advance.cumsum(2) - advance) & WORD
    offsets = F.pad(math.pi * (2 * uniform(seeds, PHASES, len(w.harmonics) - 1) - 1), (1, 0))  # 0 for F0 itself
    sines = choose_vocoder_ops(f0.device).sum_harmonics(start, step & WORD, offsets, w.harmonics, w.frame)  # (B, 480 T)
    noise = normal(seeds, SOURCE, frames * w.frame) * w.harmonics.norm()

    voiced = (f0 > w.voiced_hz)[..., None]  # (B, T, 1)
    noise_amp = torch.where(voiced, w.noise_std, w.sine_amp / 3)
    by_frame = (batch, frames, w.frame)
    excitation = w.sine_amp * voiced * sines.view(by_frame) + noise_amp * noise.view(by_frame)
    return (excitation + w.harmonics_bias).tanh().flatten(1)


def decode(weights: VocoderWeights, mels: Tensor, source: Tensor, lengths: Tensor, number_format: str) -> Tensor:
    """Samples (B, 480 T), 0 behind a row's end. mels (B, 80, T); source (B, 480 T); lengths (B,) frames"""
    w = weights
    spectrum = analyse(w, source, lengths).to(w.dtype)  # (B, 18, 120 T + 1)
    with float32_math(number_format):
        x = mask_padding(F.leaky_relu(w.pre(mask_padding(mels, lengths).to(w.dtype)), w.slope), lengths)  # (B, 512, T)
        live = lengths
        for stage in w.stages[:-1]:
            live = live * stage.up.stride
            x = _run_stage(stage, stage.up(x), spectrum, live)  # (B, 256, 8 T), (B, 128, 40 T)
        last = w.stages[-1]
        x = F.pad(last.up(x), (1, 0), mode="reflect")  # the spectra are one more: the first is centred on sample 0
        x = _run_stage(last, x, spectrum, live * last.up.stride + 1)  # (B, 64, 120 T + 1)
        x = w.post(x).float()  # (B, 18, 120 T + 1)
    return synthesise(w, x, lengths)


def _run_stage(stage: VocoderStage, x: Tensor, spectrum: Tensor, live: Tensor) -> Tensor:
    """A stage behind its upsampling. x (B, C, T'); live (B,), how many of T' are valid; (B, C, T')"""
    update, residual = _run_block(stage.source_block, stage.source_down(spectrum), live)
    x = x + update + residual
    updates, residuals = zip(*(_run_block(block, x, live) for block in stage.blocks), strict=True)
    return choose_vocoder_ops(x.device).leaky_mean(updates, residuals, stage.slope, live)


def _run_block(block: ResidualBlock, x: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """Two terms whose sum is the block's output, arbitrary behind a row's end. (B, C, T') each"""
    ops, update = choose_vocoder_ops(x.device), None
    for layer in block:
        if update is None:
            activated = ops.snake(x, layer.before, live)
        else:
            activated, x = ops.add_snake(update, x, layer.before, live)
        update = layer.narrow(ops.snake(layer.wide(activated), layer.between, live))
    return update, x


def analyse(weights: VocoderWeights, source: Tensor, lengths: Tensor) -> Tensor:
    """STFT of the source: spectra (B, 18, 120 T + 1), one every 4 samples, 0 behind a row's end.

    A row's first and last are centred on its ends, where it is mirrored. source (B, 480 T); lengths (B,) frames
    """
    w, (_, length) = weights, source.shape
    half, samples = w.analysis.shape[2] // 2, lengths[:, None] * w.frame  # (B, 1)
    at = torch.arange(-half, length + half, device=source.device).abs()  # (480 T + 16,)
    at = torch.where(at < samples, at, 2 * (samples - 1) - at).clamp(0, length - 1)  # (B, 480 T + 16)
    with float32_math("fp32"):
        spectra = F.conv1d(source.gather(1, at)[:, None], w.analysis, stride=w.hop)
    return mask_padding(spectra, lengths * (w.frame // w.hop) + 1)


def synthesise(weights: VocoderWeights, x: Tensor, lengths: Tensor) -> Tensor:
    """Inverse STFT: samples (B, 480 T) by overlap-add, divided by the sum of the row's own squared windows.

    x (B, 18, 120 T + 1): log magnitudes, then values whose sines are the phases; lengths (B,) frames
    """
    w, live = weights, lengths * (weights.frame // weights.hop) + 1
    log_magnitude, phase = x.chunk(2, dim=1)  # (B, 9, 120 T + 1) each
    magnitude, phase = log_magnitude.exp().clamp(max=100.0), phase.sin()
    spectra = mask_padding(torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1), live)
    ones = mask_padding(torch.ones_like(spectra[:, :1]), live)
    with float32_math("fp32"):
        overlapped = conv_transpose1d(spectra, w.synthesis, stride=w.hop)  # (B, 1, 480 T + 16)
        windows = conv_transpose1d(ones, w.window_squared, stride=w.hop)
    half = w.synthesis.shape[2] // 2
    speech = mask_padding((overlapped / windows)[..., half:-half], lengths * w.frame)
    return speech.clamp(-w.limit, w.limit)[:, 0]


def choose_vocoder_ops(device: torch.device) -> ModuleType:
    """`vocoder_plain` or `vocoder_kernels`, which have the same functions."""
    if not compiles(device):
        return vocoder_plain
    from pipeline.engine.chatterbox.s3gen import vocoder_kernels  # imports Triton

    return vocoder_kernels
