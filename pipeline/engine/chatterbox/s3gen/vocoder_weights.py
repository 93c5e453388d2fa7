"""The vocoder's weights as it reads them: weight norm folded, the convolutions to speech in one dtype.

Knows no arithmetic of its own. Stock's modules apply weight norm at every read of a weight; here it is read once.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from chatterbox.models.s3gen.hifigan import HiFTGenerator, ResBlock
from torch import Tensor, nn

from pipeline.device.convolution import conv_transpose1d


@dataclass(frozen=True)
class Convolution:
    weight: Tensor  # (out, in, size); (in, out, size) if transposed
    bias: Tensor  # (out,)
    stride: int
    padding: int
    dilation: int
    transposed: bool

    def __call__(self, x: Tensor) -> Tensor:
        """(B, in, T) to (B, out, about T / stride), or T * stride if transposed"""
        if self.transposed:
            return conv_transpose1d(x, self.weight, self.bias, self.stride, self.padding)
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)


@dataclass(frozen=True)
class ResidualLayer:
    """Of a residual block: adds narrow(snake(wide(snake(x)))) to x."""

    before: Tensor  # (C,), the first snake's alpha
    wide: Convolution  # dilated
    between: Tensor  # (C,), the second snake's alpha
    narrow: Convolution


ResidualBlock = tuple[ResidualLayer, ...]


@dataclass(frozen=True)
class VocoderStage:
    up: Convolution
    source_down: Convolution  # the source's spectrum at this stage's rate
    source_block: ResidualBlock
    blocks: tuple[ResidualBlock, ...]  # parallel; the stage's output is their mean
    slope: float  # of the leaky ReLU behind the mean


@dataclass(frozen=True)
class VocoderWeights:
    f0: tuple[Convolution, ...]  # an ELU behind each but the last, which outputs Hz
    harmonics: Tensor  # (9,), weight of each in the source
    harmonics_bias: Tensor  # (1,)
    pre: Convolution
    slope: float  # of the leaky ReLU behind it
    stages: tuple[VocoderStage, ...]
    post: Convolution
    analysis: Tensor  # (18, 1, 16): the source to spectra, real parts, then imaginary parts
    synthesis: Tensor  # (18, 1, 16): spectra to windowed speech
    window_squared: Tensor  # (1, 1, 16)
    hop: int  # samples from one spectrum to the next
    sample_rate: int  # Hz
    frame: int  # samples of a mel frame
    sine_amp: float
    noise_std: float  # in voiced frames; a third of sine_amp elsewhere
    voiced_hz: float  # a frame above it is voiced
    limit: float  # largest absolute sample

    @property
    def device(self) -> torch.device:
        return self.harmonics.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions to speech."""
        return self.pre.weight.dtype


@torch.no_grad()
def fold(stock: HiFTGenerator, device: torch.device, dtype: torch.dtype) -> VocoderWeights:
    """Copy stock's weights with weight norm folded; the module stays as it is."""

    def put(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, torch.float32, copy=True).contiguous()

    def convolution(module: nn.Module, dtype: torch.dtype = dtype) -> Convolution:
        return Convolution(
            put(module.weight).to(dtype),  # this read applies weight norm
            put(module.bias).to(dtype),
            *(numbers[0] for numbers in (module.stride, module.padding, module.dilation)),
            transposed=isinstance(module, nn.ConvTranspose1d),
        )

    def block(module: ResBlock) -> ResidualBlock:
        parts = module.activations1, module.convs1, module.activations2, module.convs2
        return tuple(
            ResidualLayer(put(before.alpha), convolution(wide), put(between.alpha), convolution(narrow))
            for before, wide, between, narrow in zip(*parts, strict=True)
        )

    def stage(number: int) -> VocoderStage:
        first, last = number * stock.num_kernels, number == stock.num_upsamples - 1
        return VocoderStage(
            up=convolution(stock.ups[number]),
            source_down=convolution(stock.source_downs[number]),
            source_block=block(stock.source_resblocks[number]),
            blocks=tuple(block(one) for one in stock.resblocks[first : first + stock.num_kernels]),
            slope=0.01 if last else stock.lrelu_slope,  # stock uses torch's default in the last stage
        )

    classifier, sines = stock.f0_predictor.classifier, stock.m_source.l_sin_gen
    hz = Convolution(put(classifier.weight)[..., None], put(classifier.bias), 1, 0, 1, transposed=False)
    analysis, synthesis, window_squared = make_transforms(stock.stft_window)
    return VocoderWeights(
        f0=(*(convolution(one, torch.float32) for one in _convolutions(stock.f0_predictor.condnet)), hz),
        harmonics=put(stock.m_source.l_linear.weight[0]),
        harmonics_bias=put(stock.m_source.l_linear.bias),
        pre=convolution(stock.conv_pre),
        slope=stock.lrelu_slope,
        stages=tuple(stage(number) for number in range(stock.num_upsamples)),
        post=convolution(stock.conv_post),
        analysis=put(analysis),
        synthesis=put(synthesis),
        window_squared=put(window_squared),
        hop=stock.istft_params["hop_len"],
        sample_rate=stock.sampling_rate,
        frame=int(stock.f0_upsamp.scale_factor),
        sine_amp=sines.sine_amp,
        noise_std=sines.noise_std,
        voiced_hz=sines.voiced_threshold,
        limit=stock.audio_limit,
    )


def make_transforms(window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of convolutions: STFT of a real signal and its inverse, (N + 2, 1, N) each, and the squared window,
    (1, 1, N). All float32; window (N,).

    Bin k has the real part sum_n w[n] x[n] cos(2 pi k n / N) and the imaginary part -sum_n w[n] x[n] sin(2 pi k n / N).
    The inverse counts each bin twice, for its mirror image; the first and the last have none.
    """
    window, size = window.double().cpu(), len(window)
    angle = 2 * math.pi / size * torch.arange(size // 2 + 1)[:, None] * torch.arange(size)  # (N / 2 + 1, N)
    waves = torch.cat([angle.double().cos(), -angle.double().sin()])[:, None] * window
    twice = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64)
    twice[[0, -1]] = 1.0
    inverse = waves * twice.repeat(2)[:, None, None] / size
    return waves.float(), inverse.float(), window.square()[None, None].float()


def _convolutions(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [module for module in modules if isinstance(module, nn.Conv1d)]
