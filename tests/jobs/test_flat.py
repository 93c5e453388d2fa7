"""A long run takes no more memory at its end than at its beginning."""

import re
from pathlib import Path

import pytest

from ..conftest import rows_of
from .processes import workers_of
from .test_signals import JOURNAL, rows_written, start, wait_for  # noqa: F401  (a fixture)

COUNT = 5_000
NAMES = "Alice Bella Clara Dora Edith Fanny Grace Hetty Ida June".split()
WORDS = "walks sings reads sleeps waits calls looks turns stays runs".split()


def memory_mib(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def handles(pid: int) -> int:
    """How many are open now, those of the files that are just being written among them."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.long
def test_memory_and_handles_do_not_grow_over_5000_utterances(start, tmp_path):  # noqa: F811
    lines = [f"{NAMES[n % 10]} {WORDS[n // 10 % 10]} to number {n}." for n in range(COUNT)]
    (tmp_path / "story.txt").write_text("\n\n".join(lines))
    process = start("wandb.mode=offline", "plan.window=500", "watermark.enabled=true")
    seen = []
    for rows in (2000, 4900):  # libraries fill their caches of shapes first
        wait_for(process, lambda rows=rows: rows_written() >= rows)
        (worker,) = workers_of(process.pid)
        seen.append((memory_mib(worker), min(handles(worker) for _ in range(100))))
    assert process.wait() == 0
    assert seen[1][0] < seen[0][0] + 100 and seen[1][1] <= seen[0][1] + 2
    assert len(rows_of(JOURNAL.parent.parent / "metadata.parquet")) == COUNT
