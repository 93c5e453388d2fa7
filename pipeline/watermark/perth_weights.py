"""Perth's weights and parameters, read from its package's files. Knows no arithmetic.

Importing `perth` takes two seconds or more, for librosa. Its files are found without that.
"""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from torch import Tensor

from pipeline.errors import UserError

Layer = tuple[Tensor, Tensor]  # a convolution's weight (out, in, size) and bias (out,)
Layers = tuple[Layer, ...]  # a leaky ReLU behind each but the last


@dataclass(frozen=True)
class PerthWeights:
    sample_rate: int  # Hz
    n_fft: int
    hop: int  # samples
    least_magnitude: float
    subband: int  # the lowest bins, which hold the mark
    encoder: Layers
    decoders: tuple[Layers, Layers, Layers]  # for slowed, unchanged and sped-up speech

    def to(self, device: torch.device) -> "PerthWeights":
        def move(layers: Layers) -> Layers:
            return tuple((weight.to(device), bias.to(device)) for weight, bias in layers)

        return replace(self, encoder=move(self.encoder), decoders=tuple(map(move, self.decoders)))


def read_perth() -> PerthWeights:
    """Perth's implicit watermark, on the CPU. `UserError` if its files are not there or not readable."""
    try:
        folder = _find_package() / "perth_net" / "pretrained" / "implicit"
        given = yaml.safe_load((folder / "hparams.yaml").read_text())
        newest = max(folder.glob("*.pth.tar"), key=lambda path: int(path.name.split(".")[0].rpartition("_")[2]))
        tensors = torch.load(newest, map_location="cpu", weights_only=True)["model"]
        return _build(given, tensors)
    except (ImportError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"no watermarker: Perth's weights cannot be read ({error}); install resemble-perth, "
            "or set watermark.enabled=false to write unmarked speech"
        ) from error


def _find_package() -> Path:
    spec = importlib.util.find_spec("perth")
    if spec is None:
        raise ImportError("No module named 'perth'")
    return Path(spec.submodule_search_locations[0])


def _build(given: dict, tensors: dict[str, Tensor]) -> PerthWeights:
    def layers(name: str) -> Layers:
        numbers = sorted(
            {int(found[len(name) + 1 :].split(".")[0]) for found in tensors if found.startswith(f"{name}.")}
        )
        return tuple(tuple(tensors[f"{name}.{i}.conv.{kind}"] for kind in ("weight", "bias")) for i in numbers)

    return PerthWeights(
        sample_rate=given["sample_rate"],
        n_fft=given["n_fft"],
        hop=given["hop_size"],
        least_magnitude=given["stft_magnitude_min"],
        subband=round((given["n_fft"] // 2 + 1) * given["max_wmark_freq"] / (given["sample_rate"] / 2)),
        encoder=layers("encoder.layers"),
        decoders=tuple(layers(f"decoder.{speed}_layers") for speed in ("slow", "normal", "fast")),
    )
