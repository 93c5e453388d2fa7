"""A worker that gives no sign of life is told of, once; with hang=replace another one takes its place."""

import os
import signal
import time
from pathlib import Path

import pytest

from ..conftest import rows_of
from .processes import until, workers_of
from .test_generate import OUT
from .test_signals import STUCK, start, wait_for  # noqa: F401  (a fixture)

# The first worker hangs after five utterances; the second one does not.
STUCK_ONCE = """
import time
from pathlib import Path
from pipeline.engine import registry
from pipeline.engine.espeak import EspeakEngine
class StuckOnce(EspeakEngine):
    def synthesize(self, requests, stopping):
        for number, speech in enumerate(super().synthesize(requests, stopping)):
            if number == 5 and not Path("hung").exists():
                Path("hung").touch()
                time.sleep(1000)
            yield speech
registry.ENGINES["espeak"] = lambda config: StuckOnce(config.engine)
"""
# Neither rendering nor at an end for a while, as when a large folder is hashed or weights are loaded.
SLOW = """
import time
from pipeline.run import session
read_index = session.read_index
session.read_index = lambda folder: (time.sleep(3), read_index(folder))[1]
"""


@pytest.mark.long
def test_a_worker_that_hangs_is_replaced_and_the_job_ends(start):  # noqa: F811
    job = start("hang=replace", "hang_s=3", code=STUCK_ONCE)
    out, err = job.communicate()
    assert job.returncode == 0 and err == "" and out.count("a new worker goes on") == 1
    assert "the worker gave no sign of life for 3 s; what is durable is kept, a new worker goes on (1 of" in out
    assert len(rows_of(OUT / "metadata.parquet")) == 30


@pytest.mark.long
def test_a_worker_that_hangs_is_logged_once_and_left_alone(start):  # noqa: F811
    job = start("hang_s=1", "grace_s=1", code=STUCK)
    wait_for(job, lambda: list(OUT.glob("runs/*.json")))
    (worker,) = workers_of(job.pid)
    time.sleep(3)
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate()
    assert out.count("hang=replace would replace it") == 1 and "a new worker" not in out
    assert job.returncode == 143


@pytest.mark.long
def test_a_worker_that_is_slow_before_it_renders_is_not_replaced(start):  # noqa: F811
    job = start("hang=replace", "hang_s=1", code=SLOW)
    out, _ = job.communicate()
    assert job.returncode == 0 and "it is not rendering" in out and "a new worker" not in out


@pytest.mark.long
def test_time_in_which_the_job_was_stopped_is_no_silence(start):  # noqa: F811
    job = start("hang=replace", "hang_s=2", code=STUCK_ONCE.replace("time.sleep(1000)", "time.sleep(1)"))
    wait_for(job, lambda: Path("hung").exists())
    os.killpg(job.pid, signal.SIGSTOP)
    time.sleep(3)
    os.killpg(job.pid, signal.SIGCONT)
    out, _ = job.communicate()
    assert job.returncode == 0 and "a new worker" not in out


@pytest.mark.long
def test_a_worker_alone_that_was_stopped_is_replaced(start):  # noqa: F811
    job = start(
        "hang=replace",
        "hang_s=2",
        code=STUCK_ONCE.replace("time.sleep(1000)", "os.kill(os.getpid(), 19)").replace(
            "import time", "import os, time"
        ),
    )
    out, _ = job.communicate()
    assert job.returncode == 0 and "gave no sign of life for 2 s; what is durable is kept" in out
    until(lambda: not workers_of(job.pid))
