"""From a command line to a job's exit code: Hydra, one-line errors, signals. Knows nothing of what a job does.

Exit codes: 0 all ok, 1 work failed, 2 wrong configuration or input (one line, no traceback), 128 + n stopped by
signal n. A job returns its code instead of exiting, so that under --multirun the shards after it still run.
"""

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
    """Called, tells whether a signal has asked the job to stop; a second signal ends the process at once."""

    signum = 0

    def __call__(self) -> bool:
        return self.signum != 0

    def listen(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._handle)

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
        stop.listen()
        code = run_job(job, config, schema, stop)
        if stop():
            raise SystemExit(128 + stop.signum)  # under --multirun, too: the signal meant all shards
        codes.append(code)
        if code and os.getpid() != home:
            raise JobFailed(f"exit code {code}")

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what is wrong instead of printing it its own way
    # Threads that spin while they wait make a job four times slower beside any other busy process (2 cores, espeak).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=name)(task)()
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
