"""Transposed convolution without oneDNN's preparation. Knows no model."""

import torch.nn.functional as F
from torch import Tensor


def conv_transpose1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> Tensor:
    """torch's own; on a CPU a matrix product and an overlap-add. oneDNN takes up to 5 s to prepare for a new length.

    x (B, in, T); weight (in, out, kernel); returns (B, out, stride * (T - 1) + kernel - 2 * padding)
    """
    if x.device.type != "cpu":
        return F.conv_transpose1d(x, weight, bias, stride, padding)
    kernel = weight.shape[2]
    columns = weight.flatten(1).T @ x  # (B, out * kernel, T)
    size = stride * (x.shape[2] - 1) + kernel - 2 * padding
    added = F.fold(columns, (1, size), (1, kernel), padding=(0, padding), stride=(1, stride))[:, :, 0]
    return added if bias is None else added + bias[:, None]
