"""Commands: `python -m jobs.<name>`. Thin: read the configuration, call the pipeline, set the exit code."""
