"""The engine's own T3 decoder: text tokens to speech tokens, many utterances at a time, as stock draws them.

`batch.decode` feeds a `decoder.Decoder`; a step runs `transformer` over `weights` and `cache`, then `sampler`. What
uses memory bandwidth most is in `plain` for CPU and MPS, and in `kernels` for CUDA.

Letters in shapes: B slots, R rows of the cache (2B with CFG, the conditional ones first), G prompts read together,
T positions of a row, P or S positions of the shared prefix, N rows of a matrix, V ids of the vocabulary (8194).
"""
