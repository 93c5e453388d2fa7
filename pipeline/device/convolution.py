"""Transposed convolutions that are quick to begin. Knows no model."""

import torch.nn.functional as F
from torch import Tensor


def conv_transpose1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> Tensor:
    """torch's own. On a CPU by a product, laid over one another: oneDNN takes up to 5 s to prepare for a new length.

    x (B, in, T); weight (in, out, places); (B, out, stride * (T - 1) + places - 2 * padding)
    """
    if x.device.type != "cpu":
        return F.conv_transpose1d(x, weight, bias, stride, padding)
    places = weight.shape[2]
    pieces = weight.flatten(1).T @ x  # (B, out * places, T)
    size = stride * (x.shape[2] - 1) + places - 2 * padding
    laid = F.fold(pieces, (1, size), (1, places), padding=(0, padding), stride=(1, stride))[:, :, 0]
    return laid if bias is None else laid + bias[:, None]
