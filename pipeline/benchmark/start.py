"""The time around a job's rendering: from the command to its plan, its weights, its first speech and its exit.

It runs `jobs.generate` as its users do, in processes of its own, and reads the time of each line that it logs. Imports
no torch: libraries that this process has mapped would stay in memory, and no start would be cold. Knows nothing of
Hydra.
"""

import logging
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.benchmark.table import Figure, Figures
from pipeline.config import BenchmarkConfig
from pipeline.engine.registry import build_engine
from pipeline.errors import WorkError

log = logging.getLogger(__name__)

WARM_RUNS = 3
MARKS = {  # what a job logs, in this order; with engine.memory=phased never that all weights are loaded
    "plan": r" utterances, \d+ to render",
    "weights": r"weights loaded",
    "first speech": r"first speech after",
    "last row": r"of the book's \d+ utterances are in",
}
IMPORTS = {  # what each process of a job imports before its work
    "supervisor": "jobs.cli, pipeline.run.session, pipeline.text.segment.sentences",
    "worker": "pipeline.run.session, torch, pipeline.engine.chatterbox.residency",
}


def measure(arguments: Sequence[str], config: BenchmarkConfig) -> list[Figure]:
    """Figures of a cold start and of warm ones, medians of three. `arguments`: of jobs.generate.

    A first job, which is not counted, writes and compiles what no earlier one has.
    """
    out, engine = Path(config.out), build_engine(config)
    run_job([*arguments, "limit=1"], out)
    figures = Figures("start", _hardware_name(), dict(checkpoint=engine.identity.model, arguments=list(arguments)))
    drop_from_memory([*engine.files(), *_libraries()])
    cold = run_job(arguments, out)
    warm = [run_job(arguments, out) for _ in range(WARM_RUNS)]
    for name in cold:
        figures.add(f"{name}, warm", statistics.median(run[name] for run in warm), "s")
        figures.add(f"{name}, cold", cold[name], "s")
    bare = _time(["-c", ""])
    for process, modules in IMPORTS.items():
        figures.add(f"imports of the {process}, warm", _time(["-c", f"import {modules}"]) - bare, "s")
    return figures.figures


def drop_from_memory(files: Sequence[Path]) -> None:
    """Let the system forget the files' bytes, so that they are read from the disk. It keeps what is mapped."""
    for path in files:
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _libraries() -> Iterator[Path]:
    for folder in {Path(folder) for folder in sys.path if folder.endswith("-packages")}:
        yield from (path for path in folder.rglob("*") if path.is_file())


def run_job(arguments: Sequence[str], out: Path) -> dict[str, float]:
    """Seconds from the command to each mark, and from the last row to the exit, of a job that renders everything."""
    folder = tempfile.mkdtemp(dir=out, prefix="start-")
    changed = [one for one in arguments if not one.startswith("out=")]
    command = [sys.executable, "-m", "jobs.generate", *changed, f"out='{folder}/run'"]
    begun, found, last = time.perf_counter(), {}, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            now, last = time.perf_counter() - begun, line
            found |= {name: now for name, pattern in MARKS.items() if name not in found and re.search(pattern, line)}
        error = process.stderr.read()
    ended = time.perf_counter() - begun
    shutil.rmtree(folder, ignore_errors=True)
    if process.returncode or "last row" not in found:
        raise WorkError(f"the job that was measured ended with code {process.returncode}: {(error or last).strip()}")
    log.info("%s, exit %.1f s", ", ".join(f"{name} {at:.1f} s" for name, at in found.items()), ended)
    times = {f"command to {name}": at for name, at in found.items()}
    return times | {"last row to exit": ended - found["last row"], "command to exit": ended}


def _time(arguments: Sequence[str]) -> float:
    """Seconds that a Python process takes, the fastest of three."""

    def run() -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - begun

    return min(run() for _ in range(3))


def _hardware_name() -> str:
    """The first GPU's name, or the number of CPU cores."""
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        if names := subprocess.run(query, capture_output=True, text=True).stdout.splitlines():
            return names[0]
    return f"{len(os.sched_getaffinity(0))} CPU cores"
