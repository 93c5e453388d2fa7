"""From how a job ends to its exit code, and one line for an error raised on purpose. Knows nothing of what a job does.

0 all ok, 1 work failed or a bug, 2 wrong configuration or input, 128 + n stopped by signal n.
"""

import sys
from collections.abc import Callable
from contextlib import suppress

from pipeline.errors import DeviceLost, UserError, WorkError

KEPT = "what is done is kept: run the same command again"


def exit_code_of(job: Callable[[], int]) -> int:
    """Run `job` and return its exit code. Errors raised on purpose are printed in one line; bugs pass through."""
    try:
        return job()
    except UserError as error:
        return print_error(str(error), 2)
    except DeviceLost as error:
        return print_error(f"{error}; {KEPT}", 1)
    except WorkError as error:
        return print_error(str(error), 1)


def print_error(line: str, code: int) -> int:
    with suppress(OSError):  # the terminal, or whoever read the lines, may be gone
        print(f"error: {line}", file=sys.stderr)
    return code
