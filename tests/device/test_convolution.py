"""A transposed convolution without oneDNN's preparations: the same numbers as torch's."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.device.convolution import conv_transpose1d


@pytest.mark.parametrize("padding", [0, 3])
def test_a_transposed_convolution_is_torchs(padding):
    x, weight, bias = torch.randn(2, 5, 9), torch.randn(5, 4, 11), torch.randn(4)
    ours = conv_transpose1d(x, weight, bias, 5, padding)
    expected = F.conv_transpose1d(x, weight, bias, 5, padding)
    assert ours.shape == expected.shape and torch.allclose(ours, expected, atol=1e-5)
