"""Whoever reads the output is gone, or the terminal is: nothing is lost, and the exit code is right."""

import fcntl
import os
import pty
import re
import signal
import subprocess
import termios

import pytest

from ..conftest import UNMARKED, rows_of
from .processes import GENERATE, environment, in_group, until
from .test_generate import OUT
from .test_signals import LONG

OPTIONS = ("book=story.txt", "engine=espeak", UNMARKED, "wandb.mode=disabled")


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(LONG)


def shell(line: str) -> subprocess.CompletedProcess[str]:
    command = " ".join([*GENERATE, *OPTIONS])
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("JOB", command)],
        env=environment(),
        capture_output=True,
        text=True,
    )


LINES = ["JOB >&-", "JOB | head -1", "JOB 2>&1 | true", "JOB >&- 2>&- <&-", "JOB > /dev/full"]


@pytest.mark.parametrize("line", LINES[:1] + [pytest.param(line, marks=pytest.mark.long) for line in LINES[1:]])
def test_with_its_output_closed_a_job_renders_everything(book, line):
    ended = shell(line)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
    assert len(rows_of(OUT / "metadata.parquet")) == 30


@pytest.mark.long
def test_what_is_wrong_is_exit_2_with_its_output_closed_too(book):
    assert shell("JOB limit=0 2>&1 >&- | true").returncode == 2


def on_a_terminal(ignored: bool) -> tuple[subprocess.Popen, int]:
    """A job with a terminal of its own, as its session's leader; returns the other end, too."""
    mine, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 120))

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    job = subprocess.Popen(
        [*GENERATE, *OPTIONS],
        env=environment(),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(its)
    return job, mine


SOME = rb"[5-9]/30 .*utt/s"  # of the bar


def see(terminal: int, wanted: bytes) -> bytes:
    """What is shown, up to this regular expression."""
    shown = b""
    while not re.search(wanted, shown):
        shown += os.read(terminal, 4096)
    return shown


@pytest.mark.long
def test_a_terminal_shows_a_bar_and_when_it_is_gone_the_job_ends_with_129_and_nothing_is_lost(book):
    job, terminal = on_a_terminal(ignored=False)
    see(terminal, SOME)
    os.close(terminal)
    assert job.wait(60) == 128 + signal.SIGHUP
    until(lambda: not in_group(job.pid))
    assert 5 <= len(rows_of(OUT / "metadata.parquet")) <= 30
    assert shell("JOB").returncode == 0 and len(rows_of(OUT / "metadata.parquet")) == 30


@pytest.mark.long
def test_with_sighup_ignored_it_goes_on_without_its_terminal_to_the_end(book):
    job, terminal = on_a_terminal(ignored=True)
    see(terminal, SOME)
    os.close(terminal)
    assert job.wait(60) == 0
    assert len(rows_of(OUT / "metadata.parquet")) == 30


@pytest.mark.long
def test_ctrl_c_on_a_terminal_reaches_both_processes_and_counts_once(book):
    job, terminal = on_a_terminal(ignored=False)
    see(terminal, SOME)
    os.write(terminal, b"\x03")
    shown = see(terminal, b"finishing what is in flight")
    assert job.wait(60) == 130 and b"Traceback" not in shown
    until(lambda: not in_group(job.pid))
    assert 5 <= len(rows_of(OUT / "metadata.parquet")) <= 30
