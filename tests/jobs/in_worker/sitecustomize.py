"""The way into workers, which are processes of their own: see `tests/jobs/processes.py`. Not a test.

Python runs this file at the start of each process that has its folder on the path.
"""

import os
import sys

if "pipeline.run.worker" in sys.orig_argv and (path := os.environ.get("IN_WORKER")):
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), {"__name__": "in_worker"})
