"""Sends a signal to a job at an exact moment of its worker's doing. Not a test; runs in the worker, see `processes.py`.

A moment is a file opened, renamed or removed, an fsync about to begin or just done, a verdict about to be given or
just given, a row about to be appended or just durable. Threads reach theirs in any order, so a moment is known by its
name and by how often that came before. A moment that does not come again (rows share an fsync with others than
before) is that of the worker's end. The file `listing` has the moment's name if it came, and is empty if it did not.
It is there once the signal is sent: a second worker of the job gets none.
"""

import json
import os
import signal
import threading

EVENTS = {"open": 0, "os.rename": 1, "os.remove": 0, "os.truncate": 0, "os.mkdir": 0}  # which argument is the file


class Moments:
    """`signum` 0: only list the moments. `to`: who gets the signal, worker, supervisor, or group: both of them."""

    def __init__(self, signum: int, name: str, occurrence: int, listing: str, to: str) -> None:
        self.signum, self.wanted, self.names, self.listing = signum, (name, occurrence), [], listing
        self.to, self.home, self._lock = to, os.getcwd(), threading.Lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            came = (name, self.names.count(name))
            self.names.append(name)
        if came == self.wanted and self.signum:
            self.send([name])

    def write(self, names: list[str]) -> None:
        with open(self.listing, "w") as file:
            file.write("\n".join(names))

    def send(self, names: list[str]) -> None:
        if self.signum:
            signum, self.signum = self.signum, 0
            self.write(names)
            if self.to == "group":
                os.killpg(os.getpgrp(), signum)
            else:
                os.kill(os.getppid() if self.to == "supervisor" else os.getpid(), signum)
            if signum == signal.SIGKILL:
                threading.Event().wait()  # for its death; it would come to no end of its own

    def end(self) -> None:
        if self.signum:
            self.send([])
        elif not os.path.exists(self.listing):
            self.write(self.names)

    def watch(self, event: str, args: tuple) -> None:
        if event in EVENTS and isinstance(path := args[EVENTS[event]], str | os.PathLike):
            path = os.path.abspath(os.fspath(path))
            if isinstance(path, str) and path.startswith(self.home):
                self(f"{event} {os.path.relpath(path, self.home)}")


def around(moments: Moments, function, name_of):
    """`function` with a moment before and one after it."""

    def watched(*args, **kwargs):
        name = name_of(*args)
        moments(f"before {name}")
        result = function(*args, **kwargs)
        moments(f"after {name}")
        return result

    return watched


def arm() -> None:
    import sys

    import pipeline.run.loop
    import pipeline.store.journal

    moments = Moments(**json.loads(os.environ["MOMENT"]))
    os.fsync = around(moments, os.fsync, lambda fd: "fsync " + os.path.relpath(os.readlink(f"/proc/self/fd/{fd}")))
    judge = around(moments, pipeline.run.loop.judge, lambda speech, *_: f"verdict {speech.request.utterance.id}")
    pipeline.run.loop.judge = judge
    journal = pipeline.store.journal.Journal
    journal.append = around(moments, journal.append, lambda _, row: f"row {row['id']} {row['status']}")
    exit_now = os._exit
    os._exit = lambda code: (moments.end(), exit_now(code))
    sys.addaudithook(moments.watch)


if __name__ == "in_worker" and not os.path.exists(json.loads(os.environ["MOMENT"])["listing"]):
    arm()
