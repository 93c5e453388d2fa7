"""English Chatterbox. `engine` implements the engine protocol and imports torch only to run.

`checkpoint` finds the five stock files, `stock` and `loaded` load them, `voice` computes conditionals. `residency`
owns both stages: `token_stage` decodes speech tokens with `t3/`, `waveform_stage` makes samples of them with `s3gen/`.
"""
