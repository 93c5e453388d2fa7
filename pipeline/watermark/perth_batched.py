"""Perth's watermark on many utterances at once, on any torch device. Knows nothing of engines, checks or files.

Perth takes one utterance at a time. Here the rows of a batch are padded to the longest. Each operation beyond a single
frame (reflection at both ends, convolutions, overlap-add, means, the loudest frame) respects where a row ends, so each
row's result is as if it were alone. Weights and the transform's parameters are Perth's own. Magnitudes are in dB,
scaled so that the least is 0 and 15 dB above full scale is 1.

Letters in shapes: B rows, N samples, L samples at Perth's 32 kHz, F frequency bins, T frames, S frames after resampling
in time, C channels.
"""

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.transforms import Resample

from pipeline.device.convolution import conv_transpose1d
from pipeline.device.devices import device_errors, side_streams
from pipeline.device.dtypes import float32_math, repeatable
from pipeline.device.memory import catch_oom
from pipeline.device.padding import padded_batches
from pipeline.watermark.perth import pad_to_mark, pad_to_score
from pipeline.watermark.perth_weights import Layers, PerthWeights

log = logging.getLogger(__name__)

GROUP_S = 160  # seconds of audio, padding included, that are computed together; they take 0.8 GB
LEAST_STEP_S = 0.5  # least step between padded lengths
AUDIBLE = 0.05  # of the loudest frame's sum of magnitudes
HEADROOM_DB = 15
SPEEDS = (5, 4, 3)  # quarters of the frames: the detector also looks for marks in slowed and sped-up speech


class BatchedPerth:
    """Batches of any size and lengths; see `pipeline.watermark.Watermarker`."""

    batch_s = 320.0

    def __init__(self, weights: PerthWeights, device: str) -> None:
        self._device, self._group_s = torch.device(device), float(GROUP_S)
        self._hop, self._n_fft = weights.hop, weights.n_fft
        with device_errors(self._device):
            self._stream = side_streams(self._device).watermarks if self._device.type == "cuda" else None
            with torch.cuda.stream(self._stream):  # does nothing for None
                self._weights = weights.to(self._device)
                self._window = torch.hann_window(self._n_fft, device=self._device)

    def apply(self, samples: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
        def mark(rows: Tensor, lengths: Tensor) -> Tensor:
            spectrum, frames = self._analyse(rows, lengths, rate)
            magnitude = self._encode(self._scale(spectrum), frames)
            return self._synthesise(self._unscale(magnitude, torch.angle(spectrum)), frames, rate)

        rows = self._run_in_groups(mark, [pad_to_mark(row, rate) for row in samples], rate)
        return [row[: len(before)] for row, before in zip(rows, samples, strict=True)]

    def score(self, samples: Sequence[np.ndarray], rate: int) -> list[float]:
        """A score of NaN (no audible frame) becomes 0."""

        def find(rows: Tensor, lengths: Tensor) -> Tensor:
            spectrum, frames = self._analyse(rows, lengths, rate)
            return self._decode(self._scale(spectrum), frames).clip(0, 1).nan_to_num()

        return [float(score) for score in self._run_in_groups(find, [pad_to_score(row, rate) for row in samples], rate)]

    def _run_in_groups(
        self, work: Callable[[Tensor, Tensor], Tensor], samples: Sequence[np.ndarray], rate: int
    ) -> list[np.ndarray]:
        """Run `work` on rows (B, N) and lengths (B,), by groups of similar lengths; a result for each of `samples`.

        On out of memory, groups are half as large from then on.
        """
        with torch.inference_mode(), device_errors(self._device), torch.cuda.stream(self._stream):
            while self._group_s >= 1:
                with catch_oom():
                    return self._run_groups(int(self._group_s * rate), work, samples, rate)
                self._group_s /= 2
                log.warning("out of memory on %s: watermarks in groups of %g s", self._device, self._group_s)
            return self._run_groups(0, work, samples, rate)

    def _run_groups(
        self, limit: int, work: Callable[[Tensor, Tensor], Tensor], samples: Sequence[np.ndarray], rate: int
    ) -> list[np.ndarray]:
        results: dict[int, np.ndarray] = {}
        for group, count, length in padded_batches([len(row) for row in samples], limit, int(LEAST_STEP_S * rate)):
            rows, lengths = torch.zeros(count, length), torch.full((count,), length)
            for row, i in enumerate(group):
                lengths[row] = len(samples[i])
                rows[row, : len(samples[i])] = torch.from_numpy(samples[i])
            rows, lengths = rows.to(self._device), lengths.to(self._device)
            with float32_math("fp32"), repeatable():
                done = work(rows, lengths)
            results.update(zip(group, done.cpu().numpy(), strict=False))  # rows without a sample are padding
        return [results[i] for i in range(len(samples))]

    def _analyse(self, rows: Tensor, lengths: Tensor, rate: int) -> tuple[Tensor, Tensor]:
        """STFT of rows (B, N): spectra (B, F, T), and each row's number of frames (B,)."""
        model_rate = self._weights.sample_rate
        rows = get_resampler(rate, model_rate, self._device)(rows)  # (B, L)
        lengths = -(-lengths * model_rate // rate)  # rounded up
        ends = self._n_fft // 2
        at = torch.arange(-ends, rows.shape[1] + ends, device=self._device)  # (L + n_fft,)
        period = 2 * (lengths - 1)[:, None]  # of a row that is mirrored again and again, (B, 1)
        at = at.remainder(period)
        rows = rows.gather(1, torch.minimum(at, period - at))  # each row mirrored at its own end
        spectra = torch.stft(rows, self._n_fft, self._hop, window=self._window, center=False, return_complex=True)
        return spectra, lengths // self._hop + 1

    def _scale(self, spectra: Tensor) -> Tensor:
        """Magnitudes of spectra, any shape: 0 for Perth's least, 1 for 15 dB."""
        least = self._weights.least_magnitude
        least_db = 20 * math.log10(least)
        return (20 * torch.log10(spectra.abs().clip(least)) - least_db) / (HEADROOM_DB - least_db)

    def _unscale(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """Spectra of scaled magnitudes and phases, any shape."""
        least_db = 20 * math.log10(self._weights.least_magnitude)
        db = magnitude * (HEADROOM_DB - least_db) + least_db
        return 10.0 ** (db / 20).clip(max=10) * torch.exp(1j * phase)

    def _encode(self, magnitude: Tensor, frames: Tensor) -> Tensor:
        """Add the mark to magnitudes (B, F, T)."""
        subband, mask = self._weights.subband, make_mask(frames, magnitude.shape[2])
        magnitude = magnitude * mask
        change = run_layers(self._weights.encoder, magnitude[:, :subband], mask) * find_audible(magnitude)
        magnitude[:, :subband] += change
        return magnitude

    def _synthesise(self, spectra: Tensor, frames: Tensor, rate: int) -> Tensor:
        """Inverse STFT of spectra (B, F, T): rows (B, N), silent behind their ends."""
        mask = make_mask(frames, spectra.shape[2])
        pieces = torch.fft.irfft(spectra, dim=1) * self._window[:, None] * mask  # (B, n_fft, T)
        size = self._n_fft + self._hop * (spectra.shape[2] - 1)
        total = F.fold(pieces, (1, size), (1, self._n_fft), stride=(1, self._hop))[:, 0]  # (B, 1, size)
        weight = conv_transpose1d(mask, self._window.square()[None, None], stride=self._hop)  # (B, 1, size)
        ends = self._n_fft // 2
        rows = (total / weight.clamp(min=1e-11))[..., ends:-ends]
        rows = rows * make_mask(self._hop * (frames - 1), rows.shape[2])
        return get_resampler(self._weights.sample_rate, rate, self._device)(rows[:, 0])

    def _decode(self, magnitude: Tensor, frames: Tensor) -> Tensor:
        """Confidence (B,), not yet clipped, that the mark is in magnitudes (B, F, T)."""
        magnitude = magnitude * make_mask(frames, magnitude.shape[2])
        audible, band = find_audible(magnitude), magnitude[:, : self._weights.subband]
        found = []
        for layers, quarters in zip(self._weights.decoders, SPEEDS, strict=True):
            sizes, size = frames * quarters // 4, magnitude.shape[2] * quarters // 4
            mask = make_mask(sizes, size)
            output = run_layers(layers, interpolate(band, frames, sizes, size), mask)  # (B, 2, S): attention, mark
            weight = interpolate_nearest(audible, frames, sizes, size) * mask
            found.append((output * weight).sum(2) / weight.sum(2))
        attention, mark = torch.stack(found, 2).unbind(1)  # (B, 3) each
        return (attention.softmax(1) * mark).sum(1)


@cache
def get_resampler(rate: int, new_rate: int, device: torch.device) -> Resample:
    """A steep resampler: flat up to 94 % of the band, aliases below -100 dB. Zeros stay zeros."""
    options = dict(lowpass_filter_width=64, rolloff=0.9475937, beta=14.769656)
    return Resample(rate, new_rate, resampling_method="sinc_interp_kaiser", **options).to(device)


def make_mask(lengths: Tensor, size: int) -> Tensor:
    """1 within a row's length, 0 behind it. lengths (B,); (B, 1, size) float32"""
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).float()[:, None]


def find_audible(magnitude: Tensor) -> Tensor:
    """1 for frames that are loud beside the loudest of their row. magnitude (B, F, T); (B, 1, T) float32"""
    total = magnitude.sum(dim=1, keepdim=True)  # (B, 1, T)
    return (total > AUDIBLE * total.amax(dim=2, keepdim=True)).float()


def run_layers(layers: Layers, x: Tensor, mask: Tensor) -> Tensor:
    """`layers` on x (B, C, T). Each reads zeros behind a row's end, as it would if the row were alone."""
    *hidden, (weight, bias) = layers
    for one, its_bias in hidden:
        x = F.leaky_relu(F.conv1d(x, one, its_bias, padding=one.shape[2] // 2)) * mask
    return F.conv1d(x, weight, bias, padding=weight.shape[2] // 2) * mask


def interpolate(x: Tensor, frames: Tensor, sizes: Tensor, size: int) -> Tensor:
    """Resample x (B, C, T) in time by linear interpolation: row b from frames[b] to sizes[b] frames. (B, C, size)"""
    step = (frames - 1) / (sizes - 1).clamp(min=1)  # (B,)
    at = torch.arange(size, device=x.device) * step[:, None]  # (B, S)
    last = frames[:, None] - 1
    left = torch.minimum(at.long(), last)
    right = torch.minimum(left + 1, last)
    return torch.lerp(gather_frames(x, left), gather_frames(x, right), (at - left)[:, None])


def interpolate_nearest(x: Tensor, frames: Tensor, sizes: Tensor, size: int) -> Tensor:
    """As `interpolate`, but with the nearest frame at or before each position."""
    at = torch.arange(size, device=x.device) * (frames / sizes)[:, None]  # (B, S)
    return gather_frames(x, torch.minimum(at.long(), frames[:, None] - 1))


def gather_frames(x: Tensor, at: Tensor) -> Tensor:
    """x (B, C, T) at each row's frames `at` (B, S). (B, C, S)"""
    return x.gather(2, at[:, None].expand(-1, x.shape[1], -1))
