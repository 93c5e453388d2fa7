"""Offload: weights that take turns on a device. They must not change; knows no model."""

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
CPU = torch.device("cpu")


class Offloaded(Generic[T]):
    """A dataclass of weights: on its device, or in host memory while others need the room.

    The first offload keeps a copy in host memory, so that later ones move nothing off the device.
    """

    def __init__(self, weights: T, device: torch.device) -> None:
        self._device = device
        self._here: T | None = weights
        self._kept: T | None = None

    def get(self) -> T:
        """On the device, fetched there if need be, on the current stream."""
        if self._here is None:
            self._here = copy_to(self._kept, self._device)
        return self._here

    def look(self) -> T:
        """Wherever they are."""
        return self._kept if self._here is None else self._here

    def offload(self) -> None:
        if self._kept is None:
            self._kept = copy_to(self._here, CPU)
        self._here = None


def copy_to(tree: Any, device: torch.device) -> Any:
    """A copy of dataclasses, tuples, modules and tensors on another device; what else they hold is shared."""
    if isinstance(tree, Tensor):
        return tree.cpu().pin_memory() if tree.is_cuda else tree.to(device, non_blocking=True)
    if isinstance(tree, nn.Module):
        return copy.deepcopy(tree).to(device)
    if is_dataclass(tree):
        return replace(tree, **{field.name: copy_to(getattr(tree, field.name), device) for field in fields(tree)})
    return tuple(copy_to(one, device) for one in tree) if isinstance(tree, tuple) else tree


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """All that are in dataclasses, tuples and modules."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, nn.Module):
        yield from tree.parameters()
        yield from tree.buffers()
    elif is_dataclass(tree):
        for field in fields(tree):
            yield from tensors_of(getattr(tree, field.name))
    elif isinstance(tree, tuple):
        for one in tree:
            yield from tensors_of(one)


def num_bytes(tree: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(tree))
