"""Commands: `python -m jobs.<name>`. Each reads its configuration, calls the pipeline and returns an exit code."""

import sys

from pipeline.process import hear_signals, open_missing_streams

if sys.argv[0] == "-m":  # Python is still looking for the command: nothing has been imported that takes time
    open_missing_streams()
    hear_signals()
