"""Perth's watermark on many utterances at once, on any device of torch. Knows nothing of engines, checks or files.

Perth takes one utterance at a time. Here the rows of a batch are padded to the longest of them, and every step that
looks around (the reflection at both ends, convolutions, overlapping frames, means, the loudest frame) is told where its
row ends: each comes out as if it were alone. The weights and the numbers of the transform are Perth's own.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from perth.perth_net.perth_net_implicit.model.encoder import magmask
from perth.perth_net.perth_net_implicit.model.perth_net import PerthNet
from perth.perth_net.perth_net_implicit.utils import cx_to_magphase, magphase_to_cx
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import Resample

from pipeline.device.convolution import conv_transpose1d
from pipeline.device.devices import device_errors
from pipeline.device.dtypes import float32_math, repeatable
from pipeline.device.memory import is_oom
from pipeline.device.padding import padded_batches
from pipeline.watermark.perth import ready_to_mark, ready_to_score

log = logging.getLogger(__name__)

GROUP_S = 160  # seconds of audio, padding included, that are computed together, in 0.8 GB
LEAST_STEP_S = 0.5  # between the lengths of groups
SPEEDS = (5, 4, 3)  # quarters of the frames' number: the decoder listens for a mark that was slowed down or sped up


class BatchedPerth:
    """Marks and finds marks in batches of any size and lengths; see `pipeline.watermark.Watermarker`."""

    batch_s = 320.0

    def __init__(self, net: PerthNet, device: str) -> None:
        self._device, self._group_s = torch.device(device), float(GROUP_S)
        self._hop, self._n_fft = net.hp.hop_size, net.hp.n_fft
        with device_errors(self._device):
            self._net = net.to(self._device).eval()
            self._window = torch.hann_window(self._n_fft, device=self._device)

    def apply(self, samples: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
        def mark(rows: Tensor, lengths: Tensor) -> Tensor:
            spectrum, frames = self._analyse(rows, lengths, rate)
            magnitude, phase = cx_to_magphase(self._net.hp, spectrum)
            marked = magphase_to_cx(self._net.hp, self._encode(magnitude, frames), phase)
            return self._sound(marked, frames, rate)

        rows = self._in_groups(mark, [ready_to_mark(row, rate) for row in samples], rate)
        return [row[: len(before)] for row, before in zip(rows, samples, strict=True)]

    def score(self, samples: Sequence[np.ndarray], rate: int) -> list[float]:
        """NaN (nothing audible to look at) counts as not found."""

        def find(rows: Tensor, lengths: Tensor) -> Tensor:
            spectrum, frames = self._analyse(rows, lengths, rate)
            magnitude, _ = cx_to_magphase(self._net.hp, spectrum)
            return self._decode(magnitude, frames).clip(0, 1).nan_to_num()

        return [float(score) for score in self._in_groups(find, [ready_to_score(row, rate) for row in samples], rate)]

    def _in_groups(
        self, work: Callable[[Tensor, Tensor], Tensor], samples: Sequence[np.ndarray], rate: int
    ) -> list[np.ndarray]:
        """`work` on rows (B, N) with lengths (B,), a group of similar lengths at a time; a result for each sample.

        Where memory runs out, groups are half as large from then on.
        """
        with torch.inference_mode(), device_errors(self._device):
            while self._group_s >= 1:
                try:
                    return self._in_groups_of(int(self._group_s * rate), work, samples, rate)
                except Exception as error:
                    if not is_oom(error):
                        raise
                self._group_s /= 2
                log.warning("out of memory on %s: watermarks in groups of %g s", self._device, self._group_s)
            return self._in_groups_of(0, work, samples, rate)

    def _in_groups_of(
        self, limit: int, work: Callable[[Tensor, Tensor], Tensor], samples: Sequence[np.ndarray], rate: int
    ) -> list[np.ndarray]:
        results: dict[int, np.ndarray] = {}
        for group, count, length in padded_batches([len(row) for row in samples], limit, int(LEAST_STEP_S * rate)):
            rows, lengths = torch.zeros(count, length), torch.full((count,), length)
            for number, i in enumerate(group):
                lengths[number] = len(samples[i])
                rows[number, : len(samples[i])] = torch.from_numpy(samples[i])
            rows, lengths = rows.to(self._device), lengths.to(self._device)
            with float32_math("fp32"), repeatable():
                done = work(rows, lengths)
            results.update(zip(group, done.cpu().numpy(), strict=False))  # rows behind them are silence
        return [results[i] for i in range(len(samples))]

    def _analyse(self, rows: Tensor, lengths: Tensor, rate: int) -> tuple[Tensor, Tensor]:
        """Rows (B, N) as spectra (B, F, T), and how many of the frames are a row's own (B,)."""
        model_rate = self._net.hp.sample_rate
        rows = resampler(rate, model_rate, self._device)(rows)  # (B, L)
        lengths = -(-lengths * model_rate // rate)  # rounded up
        ends = self._n_fft // 2
        at = torch.arange(-ends, rows.shape[1] + ends, device=self._device)  # (L + n_fft,)
        there_and_back = 2 * (lengths - 1)[:, None]
        at = at.remainder(there_and_back)
        rows = rows.gather(1, torch.minimum(at, there_and_back - at))  # each end mirrored at its own place
        spectra = torch.stft(rows, self._n_fft, self._hop, window=self._window, center=False, return_complex=True)
        return spectra, lengths // self._hop + 1

    def _encode(self, magnitude: Tensor, frames: Tensor) -> Tensor:
        """Magnitudes (B, F, T) with the mark in them."""
        encoder, own = self._net.encoder, own_places(frames, magnitude.shape[2])
        magnitude = magnitude * own
        change = layered(encoder.layers, magnitude[:, : encoder.subband], own) * magmask(magnitude)[:, None]
        magnitude[:, : encoder.subband] += change
        return magnitude

    def _sound(self, spectra: Tensor, frames: Tensor, rate: int) -> Tensor:
        """Spectra (B, F, T) as rows (B, N), silent behind their ends."""
        own = own_places(frames, spectra.shape[2])
        pieces = torch.fft.irfft(spectra, dim=1) * self._window[:, None] * own  # (B, n_fft, T)
        size = self._n_fft + self._hop * (spectra.shape[2] - 1)
        total = F.fold(pieces, (1, size), (1, self._n_fft), stride=(1, self._hop))[:, 0]  # (B, 1, size)
        weight = conv_transpose1d(own, self._window.square()[None, None], stride=self._hop)  # (B, 1, size)
        ends = self._n_fft // 2
        rows = (total / weight.clamp(min=1e-11))[..., ends:-ends]
        rows = rows * own_places(self._hop * (frames - 1), rows.shape[2])
        return resampler(self._net.hp.sample_rate, rate, self._device)(rows[:, 0])

    def _decode(self, magnitude: Tensor, frames: Tensor) -> Tensor:
        """Confidence that the mark is in the magnitudes (B, F, T), not yet clipped. (B,)"""
        decoder = self._net.decoder
        magnitude = magnitude * own_places(frames, magnitude.shape[2])
        audible, band = magmask(magnitude)[:, None], magnitude[:, : decoder.subband]
        found = []
        for layers, quarters in zip(
            (decoder.slow_layers, decoder.normal_layers, decoder.fast_layers), SPEEDS, strict=True
        ):
            sizes, size = frames * quarters // 4, magnitude.shape[2] * quarters // 4
            own = own_places(sizes, size)
            output = layered(layers, stretched(band, frames, sizes, size), own)  # (B, 2, S): attention, mark
            mask = repeated(audible, frames, sizes, size) * own
            found.append((output * mask).sum(2) / mask.sum(2))
        attention, mark = torch.stack(found, 2).unbind(1)  # (B, 3) each
        return (attention.softmax(1) * mark).sum(1)


@cache
def resampler(rate: int, new_rate: int, device: torch.device) -> Resample:
    """Steep and quiet: flat up to 94 % of the band, what would fold back is below -100 dB. Keeps zeros as they are."""
    options = dict(lowpass_filter_width=64, rolloff=0.9475937, beta=14.769656)
    return Resample(rate, new_rate, resampling_method="sinc_interp_kaiser", **options).to(device)


def own_places(lengths: Tensor, size: int) -> Tensor:
    """1 where a row of `size` is its own, 0 behind its end. (B, 1, size)"""
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).float()[:, None]


def layered(layers: nn.Sequential, x: Tensor, own: Tensor) -> Tensor:
    """`layers` on x (B, C, T): each sees zeros behind a row's end, as it does behind the end of one that is alone."""
    for layer in layers:
        x = layer(x) * own
    return x


def stretched(x: Tensor, frames: Tensor, sizes: Tensor, size: int) -> Tensor:
    """Each row of x (B, C, T), `frames` long, drawn out to its own of `sizes`, from frame to frame in a straight line.

    Returns (B, C, size).
    """
    step = (frames - 1) / (sizes - 1).clamp(min=1)  # (B,)
    at = torch.arange(size, device=x.device) * step[:, None]  # (B, S)
    last = frames[:, None] - 1
    left = torch.minimum(at.long(), last)
    right = torch.minimum(left + 1, last)
    return torch.lerp(taken(x, left), taken(x, right), (at - left)[:, None])


def repeated(x: Tensor, frames: Tensor, sizes: Tensor, size: int) -> Tensor:
    """The same by saying frames twice, or leaving some out."""
    at = torch.arange(size, device=x.device) * (frames / sizes)[:, None]  # (B, S)
    return taken(x, torch.minimum(at.long(), frames[:, None] - 1))


def taken(x: Tensor, at: Tensor) -> Tensor:
    """x (B, C, T) at the places (B, S) of each row. (B, C, S)"""
    return x.gather(2, at[:, None].expand(-1, x.shape[1], -1))
