"""Offload: weights that leave a device for host memory and come back. They must not change. Knows no model."""

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
CPU = torch.device("cpu")


class Offloaded(Generic[T]):
    """A dataclass of weights, on its device or offloaded to host memory.

    The first offload copies the weights to host memory and keeps the copy. Later ones copy nothing.
    """

    def __init__(self, weights: T, device: torch.device) -> None:
        self._device = device
        self._on_device: T | None = weights
        self._on_host: T | None = None

    def get(self) -> T:
        """The weights on the device. If they are offloaded, they are copied there on the current stream."""
        if self._on_device is None:
            self._on_device = copy_to(self._on_host, self._device)
        return self._on_device

    def look(self) -> T:
        """The weights wherever they are."""
        return self._on_host if self._on_device is None else self._on_device

    def offload(self) -> None:
        """Free the weights' memory on the device."""
        if self._on_host is None:
            self._on_host = copy_to(self._on_device, CPU)
        self._on_device = None


def copy_to(tree: Any, device: torch.device) -> Any:
    """Copy dataclasses, tuples, modules and tensors to another device, from CUDA always to pinned host memory.

    Other values are shared.
    """
    if isinstance(tree, Tensor):
        return tree.cpu().pin_memory() if tree.is_cuda else tree.to(device, non_blocking=True)
    if isinstance(tree, nn.Module):
        return copy.deepcopy(tree).to(device)
    if is_dataclass(tree):
        return replace(tree, **{field.name: copy_to(getattr(tree, field.name), device) for field in fields(tree)})
    return tuple(copy_to(one, device) for one in tree) if isinstance(tree, tuple) else tree


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """All tensors in dataclasses, tuples and modules."""
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
    """Bytes of all tensors in `tree`."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(tree))
