"""A job as a call: `run_book(config, stop)` renders what is missing of a book. Knows nothing of Hydra or exit codes.

`session` holds the folder, `loop` drives the engine, `retry` decides what is tried again, `writer` makes it durable.
"""

from pipeline.run.session import Outcome, run_book
from pipeline.run.stop import Stop

__all__ = ["Outcome", "Stop", "run_book"]
