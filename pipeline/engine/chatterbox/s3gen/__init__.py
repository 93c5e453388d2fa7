"""The engine's own S3Gen: speech tokens to samples, many utterances at a time, as stock computes them one by one.

`vocoder` turns mel frames into samples, with `vocoder_weights`; `noise` draws for it and for the flow. What touches a
device's memory most is in `vocoder_plain` for CPU and MPS, and in `vocoder_kernels` and `noise_kernels` for CUDA.
"""
