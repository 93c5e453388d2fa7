"""Named choices, in YAML. Types, ranges and defaults are in `pipeline.config`."""
