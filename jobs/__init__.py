"""Commands: `python -m jobs.<name>`. Each reads its configuration, calls the pipeline and returns an exit code."""
