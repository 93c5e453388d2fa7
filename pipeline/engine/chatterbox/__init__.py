"""English Chatterbox: `engine` is the engine that the protocol asks for; it imports torch only to run.

`checkpoint` finds the five stock files, `stock` and `loaded` load them, `voice` computes conditionals. `residency`
holds both stages: `token_stage` decodes speech tokens with `t3/`, `waveform_stage` makes samples of them with `s3gen/`.
"""
