"""A job in a worker that is replaced when it dies or hangs. Knows nothing of what the job does, nor of any device.

A worker that died goes on from what is durable. That is pointless where two in a row die without a new row.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.config import GenerateConfig
from pipeline.errors import WorkError
from pipeline.run.exit_code import KEPT
from pipeline.run.signs import ENDED, LOST, RENDERING, ROW, WAITING
from pipeline.run.stop import Stop, nothing
from pipeline.run.worker import WorkerTask
from pipeline.run.worker_process import WorkerProcess, describe_end

log = logging.getLogger(__name__)

TICK_S = 0.2  # how soon a signal is passed on


@dataclass
class Life:
    """What a worker did, as far as its supervisor knows."""

    rows: int = 0
    rendering: bool = False
    ended: bool = False  # on purpose
    lost: bytes | None = None  # what the worker says it has lost
    silent_s: float = 0.0
    death: str = ""  # why it is to be replaced, as a predicate
    code: int = 0  # of its exit; -n after signal n

    def hear(self, signs: bytes) -> None:
        self.silent_s = 0.0
        if self.lost is not None:  # the rest of what came before
            self.lost += signs
            return
        signs, mark, what = signs.partition(LOST)
        self.lost = what if mark else None
        self.rows += signs.count(ROW)
        self.ended |= ENDED in signs
        if phases := [sign for sign in signs if sign in RENDERING + WAITING]:
            self.rendering = phases[-1] in RENDERING

    def end(self, code: int) -> None:
        """It has ended with this exit code."""
        self.code = code
        if self.lost is not None:
            self.death = f"lost its device: {self.lost.decode()}"
        elif not self.death and (not self.ended or code < 0):
            self.death = describe_end(code)

    def is_hanging(self, silent_s: float, limit_s: float) -> bool:
        """Whether with these seconds its silence becomes too long: true once. Only what is waited for is counted:
        a supervisor that was stopped itself (Ctrl-Z) has heard nothing.
        """
        before, self.silent_s = self.silent_s, self.silent_s + silent_s
        return before < limit_s <= self.silent_s


def supervise(
    job: str, config: GenerateConfig, log_settings: dict[str, Any], stop: Stop, prepare: Callable[[], Any]
) -> int:
    """Do `job` ("module:function") in a worker; returns its exit code.

    `prepare` is called once, while the first worker imports what it needs. Each worker gets what it returns.
    `WorkError` if workers die too often, or twice in a row without a new row. Once `stop`, no worker is started.
    """
    task = WorkerTask(job, config, log_settings, sys.argv)
    worker, restarts, barren = WorkerProcess(task), 0, 0
    with killing(worker, stop):
        prepared = prepare()
    with stop.deferred():
        while not stop():
            worker.send(prepared)
            life = live(worker, config, stop)
            if not life.death or stop():
                return life.code
            barren = 0 if life.rows else barren + 1
            if barren == 2:
                raise WorkError(f"the worker {life.death}, the second in a row without a new utterance; {KEPT}")
            if restarts == config.max_restarts:
                raise WorkError(f"the worker {life.death}; max_restarts={restarts} are used up; {KEPT}")
            restarts += 1
            log.warning(
                "the worker %s; what is durable is kept, a new worker goes on (%d of max_restarts=%d)",
                *(life.death, restarts, config.max_restarts),
            )
            worker = WorkerProcess(task)
    worker.kill()
    return 128 + stop.signum


@contextmanager
def killing(worker: WorkerProcess, stop: Stop) -> Iterator[None]:
    """If the block does not end, or the supervisor has to leave at once, the worker ends, too."""
    stop.leaving = worker.kill
    try:
        yield
    except BaseException:  # a launcher's handler may have raised
        worker.kill()
        raise
    finally:
        stop.leaving = nothing


def live(worker: WorkerProcess, config: GenerateConfig, stop: Stop) -> Life:
    """Watch over a worker to its end, and pass on the first signal; at the second one `stop` itself ends both."""
    life, asked = Life(), False
    with killing(worker, stop):
        while (signs := worker.listen(TICK_S)) != b"":
            if stop() and not asked:
                asked = True
                worker.ask_to_stop(stop.signum)
            if signs:
                life.hear(signs)
            elif life.is_hanging(TICK_S, config.hang_s):
                meet_hang(life, worker, config)
        life.end(worker.end())
    return life


def meet_hang(life: Life, worker: WorkerProcess, config: GenerateConfig) -> None:
    """Log a silence of `hang_s`, or end it. Loading, hashing and merging may be slow, and would be slow again."""
    silent = f"gave no sign of life for {config.hang_s:g} s"
    if not life.rendering:
        log.warning("the worker %s; it is not rendering, so it may only be slow, and is left alone", silent)
    elif config.hang == "log":
        log.warning("the worker %s; it is left alone (hang=replace would replace it)", silent)
    else:
        life.death = silent
        worker.kill()
