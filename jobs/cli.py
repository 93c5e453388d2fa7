"""From a command line to a job's exit code: Hydra, one-line errors, signals. Knows nothing of what a job does.

Exit codes: 0 all ok, 1 work failed, 2 wrong configuration or input (one line, no traceback), 128 + n stopped by
signal n. A job returns its code instead of exiting, so that under --multirun the shards after it still run.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import hydra
from omegaconf import DictConfig

from jobs.options import one_line, register, to_dataclass
from pipeline.errors import UserError, WorkError


class JobFailed(Exception):
    """Tells a launcher of other processes that its shard did not succeed."""


class Stop:
    """Around what must not be torn apart: a signal is remembered, and asked for by calling the object.

    A second signal ends the process at once; what is durable stays so.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.signum != 0

    def __enter__(self) -> None:
        self._before = {signum: signal.signal(signum, self._handle) for signum in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, _frame: Any) -> None:
        if self.signum:
            os._exit(128 + signum)
        self.signum = signum
        print(f"{signal.Signals(signum).name}: finishing what is in flight; again to stop at once", file=sys.stderr)


def main(name: str, schema: type, job: Callable[[Any, Stop], int]) -> None:
    """Run `job(config, stop)` under Hydra with `conf/<name>.yaml` over `schema`; exits the process."""
    register(name, schema)
    started, codes, home = False, [], os.getpid()

    def task(config: DictConfig) -> None:
        nonlocal started
        started = True
        stop = Stop()
        code = run_job(job, config, schema, stop)
        if stop():
            raise SystemExit(128 + stop.signum)  # under --multirun, too: the signal meant all shards
        codes.append(code)
        if code and os.getpid() != home:
            raise JobFailed(f"exit code {code}")

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what is wrong instead of printing it its own way
    # Threads that spin while they wait make a job four times slower beside any other busy process (2 cores, espeak).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.raiseExceptions = False  # a log line that cannot be written is no reason for a traceback
    try:
        sys.stdout.reconfigure(errors="backslashreplace")  # a title that the terminal cannot show
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=name)(task)()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if started:
            raise  # a bug
        codes.append(tell(one_line(error), 2))
    sys.exit(max(codes, default=0))


def run_job(job: Callable[[Any, Stop], int], config: DictConfig, schema: type, stop: Stop) -> int:
    """The job's exit code; what it raises on purpose becomes one line. Bugs pass through."""
    try:
        return job(to_dataclass(config, schema), stop)
    except UserError as error:
        return tell(str(error), 2)
    except WorkError as error:
        return tell(str(error), 1)


def tell(line: str, code: int) -> int:
    print(f"error: {line}", file=sys.stderr)
    return code
