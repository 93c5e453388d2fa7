"""From a command line to a job's exit code: Hydra, one-line errors, signals. Knows nothing of what a job does.

Exit codes: 0 all ok, 1 work failed, 2 wrong configuration or input (one line, no traceback), 128 + n stopped by
signal n. A job returns its code instead of exiting, so that under --multirun the later shards still run.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from jobs.answers import one_line
from jobs.command_line import arrange_words
from jobs.options import register, to_dataclass
from pipeline.errors import DeviceLost, UserError, WorkError
from pipeline.run.stop import Stop

log = logging.getLogger(__name__)

RESTARTED = "CHATTERBOX_BATCH_RESTARTED"  # an environment variable, set in a process that was restarted


class JobFailed(Exception):
    """Raised in a process of a Hydra launcher: the shard failed."""


def main(name: str, schema: type, job: Callable[[Any, Stop], int]) -> None:
    """Run `job(config, stop)` under Hydra, with `conf/<name>.yaml` over `schema`. Exits the process."""
    register(name, schema)
    started, codes, main_pid, stop = False, [], os.getpid(), Stop()

    def task(config: DictConfig) -> None:
        nonlocal started
        started = True
        stop.listen()
        code = run_job(job, config, schema, stop, may_restart=os.getpid() == main_pid)
        if stop():
            raise SystemExit(128 + stop.signum)  # under --multirun, too: the signal stops all shards
        codes.append(code)
        if code and os.getpid() != main_pid:
            raise JobFailed(f"exit code {code}")

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    # How OpenMP threads wait, measured on 2 cores. Spinning makes an espeak job four times slower beside another busy
    # process; sleeping at once makes T3 nearly twice as slow. So they spin for some 50 us, then sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    stop.listen()
    logging.raiseExceptions = False  # no traceback for a log line that cannot be written
    try:
        sys.stdout.reconfigure(errors="backslashreplace")  # for titles that the terminal cannot show
        sys.argv[1:] = arrange_words(sys.argv[1:], schema)
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=name)(task)()
    except BrokenPipeError:  # `| head` has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if started:
            raise  # a bug
        codes.append(print_error(one_line(error, schema), 2))
    sys.exit(max(codes, default=0))


def run_job(
    job: Callable[[Any, Stop], int], config: DictConfig, schema: type, stop: Stop, may_restart: bool = False
) -> int:
    """Run the job and return its exit code. Errors raised on purpose are printed in one line; bugs pass through.

    After a lost device the command is restarted once, because only a new process can use the device again.
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
    """Replace this process by a new one with the same command; process id, output and parent stay the same."""
    os.environ[RESTARTED] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def print_error(line: str, code: int) -> int:
    print(f"error: {line}", file=sys.stderr)
    return code
