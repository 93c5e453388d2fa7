"""Runs a job and sends it a signal at an exact moment of its own doing. Not a test; started by `test_faults`.

A moment is a file opened, renamed or removed, an fsync about to begin or just done, a verdict about to be given or
just given. Called with: the signal's number (0: only list the moments), the number of the moment, a file for the list,
the job, its options.
"""

import os
import runpy
import sys

EVENTS = {"open": 0, "os.rename": 1, "os.remove": 0, "os.truncate": 0, "os.mkdir": 0}  # which argument is the file


class Moments:
    def __init__(self, signum: int, wanted: int) -> None:
        self.signum, self.wanted, self.count, self.names = signum, wanted, 0, []
        self.home = os.getcwd()

    def __call__(self, name: str) -> None:
        if self.signum == 0:
            self.names.append(name)
        elif self.count == self.wanted:
            self.count += 1
            os.kill(os.getpid(), self.signum)
        self.count += 1

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
    signum, wanted, listing, job = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    sys.argv = [f"jobs/{job}.py", *sys.argv[5:]]
    import pipeline.synthesize

    moments = Moments(signum, wanted)
    os.fsync = around(moments, os.fsync, lambda fd: "fsync " + os.path.relpath(os.readlink(f"/proc/self/fd/{fd}")))
    judge = around(moments, pipeline.synthesize.judge, lambda speech, *_: f"verdict {speech.request.utterance.id}")
    pipeline.synthesize.judge = judge
    sys.addaudithook(moments.watch)
    try:
        runpy.run_module(f"jobs.{job}", run_name="__main__")
    finally:
        if signum == 0:
            with open(listing, "w") as file:
                file.write("\n".join(moments.names))


if __name__ == "__main__":
    main()
