"""From a command line to a job's exit code: Hydra, one-line errors, signals. Knows nothing of what a job does.

A job returns its exit code (see `pipeline.run.exit_code`) instead of exiting, so that under --multirun the later
shards still run.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from jobs.answers import one_line
from jobs.command_line import arrange_words
from jobs.options import register, to_dataclass
from pipeline.process import flush_streams
from pipeline.run.exit_code import exit_code_of, print_error
from pipeline.run.stop import Stop


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
        code = run_job(job, config, schema, stop)
        stop.check()  # under --multirun, too: the signal stops all shards
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
        flush_streams()
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if started:
            raise  # a bug
        codes.append(print_error(one_line(error, schema), 2))
    flush_streams()
    sys.exit(max(codes, default=0))


def run_job(job: Callable[[Any, Stop], int], config: DictConfig, schema: type, stop: Stop) -> int:
    """Run the job and return its exit code. Errors raised on purpose are printed in one line; bugs pass through."""

    def run() -> int:
        typed = to_dataclass(config, schema)
        stop.grace_s = typed.grace_s
        return job(typed, stop)

    return exit_code_of(run)


def log_settings() -> dict[str, Any]:
    """What Hydra has configured of `logging`, `hydra.verbose` included, for another process."""
    hydra_config = HydraConfig.get()
    settings = OmegaConf.to_container(hydra_config.job_logging, resolve=True)
    if hydra_config.verbose is True:
        settings.setdefault("root", {})["level"] = "DEBUG"
    elif hydra_config.verbose:
        names = [hydra_config.verbose] if isinstance(hydra_config.verbose, str) else hydra_config.verbose
        settings.setdefault("loggers", {}).update({name: {"level": "DEBUG"} for name in names})
    return settings
