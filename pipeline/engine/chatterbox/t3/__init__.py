"""T3: text tokens to speech tokens, many utterances at a time, drawn from stock's distribution.

`batch.decode` feeds a `decoder.Decoder`. A step runs `transformer` over `weights` and `cache`, then `sampler`. The
operations that are bound by memory bandwidth are in `plain` for CPU and MPS, and in `kernels` for CUDA.

Letters in shapes: B slots; R rows of the cache (2B with CFG, the conditional ones first; else B); G prompts prefilled
together; T positions of a row's own; P or S positions of the shared prefix (P in prefill, S in decoding); N rows of a
matrix; V ids of the vocabulary (8194).
"""
