"""The vocoder's weights as it reads them: weight norm folded, the convolutions to speech in one dtype.

Knows no arithmetic of its own. Weight norm is applied on the CPU, whatever device computes: it rounds elsewhere
differently.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data import SAMPLE_RATE
from pipeline.device.convolution import conv_transpose1d
from pipeline.engine.chatterbox.saved import SavedTensors

UPSAMPLINGS = (8, 5, 3)  # of the stages; the last spectrum has a value every 4 samples
DILATIONS = (1, 3, 5)  # of a residual block's layers
FFT, HOP = 16, 4  # of the spectra, in samples
SLOPE, LAST_SLOPE = 0.1, 0.01  # of leaky ReLUs; stock uses torch's default in the last stage
SINE_AMP, NOISE_STD, VOICED_HZ = 0.1, 0.003, 10.0  # of the source
LIMIT = 0.99


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
def fold(saved: SavedTensors, device: torch.device, dtype: torch.dtype) -> VocoderWeights:
    """Copy the tensors of `mel2wav`, with weight norm folded."""

    def put(tensor: Tensor) -> Tensor:
        return tensor.to(device, torch.float32, copy=True).contiguous()

    def convolution(
        of: SavedTensors, name: str, stride: int = 1, dilation: int = 1, dtype: torch.dtype = dtype
    ) -> Convolution:
        """A convolution that keeps the length, or divides it by `stride`."""
        weight = _weight(of, name)
        padding = stride // 2 if stride > 1 else dilation * (weight.shape[2] - 1) // 2
        return Convolution(
            put(weight).to(dtype), put(of[f"{name}.bias"]).to(dtype), stride, padding, dilation, transposed=False
        )

    def upsampling(name: str, stride: int) -> Convolution:
        weight, bias = put(_weight(saved, name)).to(dtype), put(saved[f"{name}.bias"]).to(dtype)
        return Convolution(weight, bias, stride, (weight.shape[2] - stride) // 2, 1, transposed=True)

    def block(of: SavedTensors) -> ResidualBlock:
        return tuple(
            ResidualLayer(
                before=put(of[f"activations1.{layer}.alpha"]),
                wide=convolution(of, f"convs1.{layer}", dilation=dilation),
                between=put(of[f"activations2.{layer}.alpha"]),
                narrow=convolution(of, f"convs2.{layer}"),
            )
            for layer, dilation in enumerate(DILATIONS)
        )

    def stage(number: int) -> VocoderStage:
        blocks, count = saved.blocks("resblocks"), len(UPSAMPLINGS)
        return VocoderStage(
            up=upsampling(f"ups.{number}", UPSAMPLINGS[number]),
            source_down=convolution(saved, f"source_downs.{number}", stride=math.prod(UPSAMPLINGS[number + 1 :])),
            source_block=block(saved.under(f"source_resblocks.{number}")),
            blocks=tuple(
                block(one) for one in blocks[number * len(blocks) // count : (number + 1) * len(blocks) // count]
            ),
            slope=LAST_SLOPE if number == count - 1 else SLOPE,
        )

    f0 = saved.under("f0_predictor")
    hidden = [convolution(f0, f"condnet.{2 * i}", dtype=torch.float32) for i in range(len(f0.blocks("condnet")))]
    hz = Convolution(put(f0["classifier.weight"])[..., None], put(f0["classifier.bias"]), 1, 0, 1, transposed=False)
    analysis, synthesis, window_squared = make_transforms(make_window())
    return VocoderWeights(
        f0=(*hidden, hz),
        harmonics=put(saved["m_source.l_linear.weight"][0]),
        harmonics_bias=put(saved["m_source.l_linear.bias"]),
        pre=convolution(saved, "conv_pre"),
        slope=SLOPE,
        stages=tuple(map(stage, range(len(UPSAMPLINGS)))),
        post=convolution(saved, "conv_post"),
        analysis=put(analysis),
        synthesis=put(synthesis),
        window_squared=put(window_squared),
        hop=HOP,
        sample_rate=SAMPLE_RATE,
        frame=HOP * math.prod(UPSAMPLINGS),
        sine_amp=SINE_AMP,
        noise_std=NOISE_STD,
        voiced_hz=VOICED_HZ,
        limit=LIMIT,
    )


def _weight(saved: SavedTensors, name: str) -> Tensor:
    """A convolution's weight, with weight norm applied if it has one."""
    if f"{name}.weight" in saved:
        return saved[f"{name}.weight"]
    norm, direction = (saved[f"{name}.parametrizations.weight.original{i}"].float() for i in range(2))
    return torch._weight_norm(direction, norm, 0)


def make_window() -> Tensor:
    """The periodic Hann window of the spectra. (16,) float32"""
    return (0.5 - 0.5 * (2 * math.pi / FFT * torch.arange(FFT, dtype=torch.float64)).cos()).float()


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
