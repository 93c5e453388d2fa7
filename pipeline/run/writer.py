"""Makes speech durable on its own threads, so that the thread that drives the engine never waits for a disk.

Order: the WAV is made durable, then its row is appended. Knows nothing of engines, checks or watermarks.
"""

from collections import deque
from collections.abc import Callable, Set
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from pipeline.config import Precision
from pipeline.data import SAMPLE_RATE
from pipeline.run.retry import Task
from pipeline.run.row import Kept, RowMaker
from pipeline.store import RunFolder
from pipeline.store.index import replaced_row
from pipeline.store.journal import Journal
from pipeline.store.rollback import rollback_row
from pipeline.store.schema import Row
from pipeline.store.wav import write_wav

THREADS = 4  # they wait for the disk more than they compute, so that even two cores gain by each
QUEUE_S = 600.0  # seconds of audio that may wait to be written: 0.1 GB


class Writer:
    """Used as a context, which ends when all that was given is written. Only one thread calls it."""

    def __init__(
        self,
        rows: RowMaker,
        folder: RunFolder,
        journal: Journal,
        vouched: Set[str] = frozenset(),
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """`vouched`: ids whose last row says ok, whether their WAV is there or not. `tell` is called, on any thread,
        when an utterance's row is durable.
        """
        self._vouched, self._tell = vouched, tell
        self._rows, self._folder, self._journal = rows, folder, journal
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="writer")
        self._queue: deque[tuple[float, Future[Row]]] = deque()  # seconds of audio, and the row to be; oldest first
        self._queued_s = 0.0

    def keep(self, kept: Kept) -> list[Row]:
        """Queue a WAV and its row. Returns the rows that became durable since the last call.

        Waits while more than `QUEUE_S` is waiting. What went wrong on a thread is raised by one of the next calls:
        `WorkError` where the disk refuses.
        """
        return self._put(len(kept.pcm) / SAMPLE_RATE, self._pool.submit(self._keep, kept))

    def fail(self, task: Task) -> list[Row]:
        """Queue the row of a failed utterance; returns as `keep` does."""
        return self._put(0.0, self._pool.submit(self._finish, self._rows.make_failed(task)))

    def roll_back(self, precision: Precision) -> None:
        """A row that says what is used from here on; durable when it returns."""
        self._append(rollback_row(precision, self._rows.parameters))

    def flush(self) -> list[Row]:
        """The rest of the rows, when all are durable."""
        return self._finished(wait=True)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()

    def _put(self, seconds: float, row: Future[Row]) -> list[Row]:
        self._queue.append((seconds, row))
        self._queued_s += seconds
        return self._finished()

    def _finished(self, wait: bool = False) -> list[Row]:
        rows = []
        while self._queue and (wait or self._queued_s > QUEUE_S or self._queue[0][1].done()):
            seconds, row = self._queue.popleft()
            self._queued_s -= seconds
            rows.append(row.result())
        return rows

    def _keep(self, kept: Kept) -> Row:
        id, path = kept.task.planned.utterance.id, self._folder.wav(kept.task.planned.utterance)
        if path.exists() or id in self._vouched:  # another key's WAV, or a row that would vouch for this one
            self._append(replaced_row(id))
        with self._folder.writing():
            sha256 = write_wav(path, kept.pcm, SAMPLE_RATE)
        return self._finish(self._rows.make_ok(kept, path.relative_to(self._folder.root).as_posix(), sha256))

    def _finish(self, row: Row) -> Row:
        self._append(row)
        self._tell()
        return row

    def _append(self, row: Row) -> None:
        with self._folder.writing():
            self._journal.append(row)
