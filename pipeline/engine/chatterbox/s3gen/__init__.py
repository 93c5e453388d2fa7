"""S3Gen: speech tokens to samples, many utterances at a time, with stock's results for each.

`flow` makes mels: `encoder` computes mu, and `estimator` the velocity for a `pack` of sequences. The estimator's
operations are in `plain` and, for CUDA, in `kernels`. `vocoder` makes samples of mels, with the operations in
`vocoder_plain` and `vocoder_kernels`.

Letters in shapes: B rows of a batch; N frames of a pack, both halves of CFG; T tokens (encoder) or mel frames (vocoder)
of a row, padding included; T' positions of a row after upsampling; C channels; H harmonics.
"""
