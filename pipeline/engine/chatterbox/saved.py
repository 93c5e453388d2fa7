"""The tensors of a safetensors file by stock's names, as they are saved. Knows nothing of what they mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class SavedTensors:
    """Tensors whose names begin with `prefix`."""

    tensors: Mapping[str, Tensor]
    prefix: str = ""

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def under(self, name: str) -> "SavedTensors":
        """The part called `name`."""
        return SavedTensors(self.tensors, f"{self.prefix}{name}.")

    def blocks(self, name: str) -> list["SavedTensors"]:
        """The parts of a stack: `name.0`, `name.1` and so on."""
        begin = f"{self.prefix}{name}."
        numbers = {found[len(begin) :].split(".", 1)[0] for found in self.tensors if found.startswith(begin)}
        return [self.under(f"{name}.{number}") for number in range(len(numbers))]


def read_saved(path: Path) -> SavedTensors:
    """The tensors of a file. They are mapped into memory: none is read before it is used."""
    return SavedTensors({current_name(name): tensor for name, tensor in load_file(path).items()})


def current_name(name: str) -> str:
    """Map weight norm's older names, which PyTorch still loads, to those of the parametrization."""
    for old, new in (("_g", "0"), ("_v", "1")):
        if name.endswith(f".weight{old}"):
            return f"{name.removesuffix(old).removesuffix('weight')}parametrizations.weight.original{new}"
    return name
