"""Runs a job and sends it a signal at an exact moment of its own doing. Not a test; started by `test_faults`.

A moment is a file opened, renamed or removed, an fsync about to begin or just done, a verdict about to be given or
just given, a row about to be appended or just durable. Threads reach theirs in any order, so a moment is known by its
name and by how often that came before. Called with: the signal's number (0: only list the moments), the moment's name,
its occurrence from 0, a file for the list, the job, its options. A moment that does not come again (rows share
an fsync with others than before) is that of the process's end. If it came, the file has its name.
"""

import os
import runpy
import sys
import threading

EVENTS = {"open": 0, "os.rename": 1, "os.remove": 0, "os.truncate": 0, "os.mkdir": 0}  # which argument is the file


class Moments:
    def __init__(self, signum: int, name: str, occurrence: int, listing: str) -> None:
        self.signum, self.wanted, self.names, self.listing = signum, (name, occurrence), [], listing
        self.home, self._lock = os.getcwd(), threading.Lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            came = (name, self.names.count(name))
            self.names.append(name)
        if came == self.wanted and self.signum:
            self.write([name])
            self.end()

    def write(self, names: list[str]) -> None:
        with open(self.listing, "w") as file:
            file.write("\n".join(names))

    def end(self) -> None:
        if self.signum:
            signum, self.signum = self.signum, 0
            os.kill(os.getpid(), signum)

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


def main() -> None:
    signum, name, occurrence, listing, job = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
    sys.argv = [f"jobs/{job}.py", *sys.argv[6:]]
    import pipeline.run.loop
    import pipeline.store.journal

    moments = Moments(signum, name, occurrence, listing)
    os.fsync = around(moments, os.fsync, lambda fd: "fsync " + os.path.relpath(os.readlink(f"/proc/self/fd/{fd}")))
    judge = around(moments, pipeline.run.loop.judge, lambda speech, *_: f"verdict {speech.request.utterance.id}")
    pipeline.run.loop.judge = judge
    journal = pipeline.store.journal.Journal
    journal.append = around(moments, journal.append, lambda _, row: f"row {row['id']} {row['status']}")
    sys.addaudithook(moments.watch)
    try:
        runpy.run_module(f"jobs.{job}", run_name="__main__")
    finally:
        if signum == 0:
            moments.write(moments.names)
        moments.end()


if __name__ == "__main__":
    main()
