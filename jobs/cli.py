"""From a command line to a job's exit code: Hydra, one-line errors, signals. Knows nothing of what a job does.

Exit codes: 0 all ok, 1 work failed, 2 wrong configuration or input (one line, no traceback), 128 + n stopped by
signal n. A job returns its code instead of exiting, so that under --multirun the shards after it still run.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from jobs.options import one_line, register, to_dataclass
from pipeline.errors import DeviceLost, UserError, WorkError
from pipeline.run.stop import Stop

log = logging.getLogger(__name__)

RESTARTED = "CHATTERBOX_BATCH_RESTARTED"  # set in the environment of a process that has begun anew


class JobFailed(Exception):
    """Tells a launcher of other processes that its shard did not succeed."""


def main(name: str, schema: type, job: Callable[[Any, Stop], int]) -> None:
    """Run `job(config, stop)` under Hydra with `conf/<name>.yaml` over `schema`; exits the process."""
    register(name, schema)
    started, codes, home, stop = False, [], os.getpid(), Stop()

    def task(config: DictConfig) -> None:
        nonlocal started
        started = True
        stop.listen()
        code = run_job(job, config, schema, stop, may_restart=os.getpid() == home)
        if stop():
            raise SystemExit(128 + stop.signum)  # under --multirun, too: the signal meant all shards
        codes.append(code)
        if code and os.getpid() != home:
            raise JobFailed(f"exit code {code}")

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what is wrong instead of printing it its own way
    # Threads that spin while they wait make a job four times slower beside any other busy process (2 cores, espeak);
    # threads that go to sleep at once make T3 nearly twice as slow (2 cores): they spin for some 50 us.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    stop.listen()
    logging.raiseExceptions = False  # a log line that cannot be written is no reason for a traceback
    try:
        sys.stdout.reconfigure(errors="backslashreplace")  # a title that the terminal cannot show
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=name)(task)()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if started:
            raise  # a bug
        codes.append(print_error(one_line(error), 2))
    sys.exit(max(codes, default=0))


def run_job(
    job: Callable[[Any, Stop], int], config: DictConfig, schema: type, stop: Stop, may_restart: bool = False
) -> int:
    """The job's exit code; what it raises on purpose becomes one line. Bugs pass through.

    A device that was lost comes back only to a new process: the command begins anew, once.
    """
    try:
        typed = to_dataclass(config, schema)
        stop.grace_s = typed.grace_s
        return job(typed, stop)
    except UserError as error:
        return print_error(str(error), 2)
    except DeviceLost as error:
        if RESTARTED in os.environ or not may_restart or stop():
            return print_error(f"{error}; what is done is kept: run the same command again", 1)
        log.warning("%s; beginning anew, once: what is done is kept", error)
        restart()
    except WorkError as error:
        return print_error(str(error), 1)


def restart() -> NoReturn:
    """Replace this process by one with the same command, which takes over its id, its output and who waits for it."""
    os.environ[RESTARTED] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def print_error(line: str, code: int) -> int:
    print(f"error: {line}", file=sys.stderr)
    return code
