"""S3Gen: speech tokens to samples, many utterances at a time, as stock computes them for one.

`flow` makes mels: `encoder` gives mu, and the `estimator` is solved over a `pack` of sequences; its arithmetic is in
`plain` and, for CUDA, in `kernels`. `vocoder` makes samples of mels; `vocoder_plain` and `vocoder_kernels` compute it.

Letters in shapes: B rows of a batch, N frames of a pack, T frames or tokens of a row, C channels, H harmonics.
"""
