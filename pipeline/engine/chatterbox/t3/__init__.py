"""The engine's own decoder of T3: text tokens to speech tokens, many utterances at a time, as stock draws them.

`batch.decode` feeds a `decoder.Decoder`; a step runs `transformer` over `weights` and `cache`, then `sampler`. What
touches a device's memory most is in `plain` for CPU and MPS, and in `kernels` for CUDA.
"""
