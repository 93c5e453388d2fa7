"""Many threads on a disk that is slow or refuses: the order of what becomes durable, and what the main thread hears."""

import errno
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import WorkError
from pipeline.run import writer
from pipeline.store import RunFolder
from pipeline.store import journal as journals
from pipeline.store.index import changed_on_disk, is_done, read_index
from pipeline.store.journal import Journal, read_rows

from .test_loop import run


class Disk:
    """Knows what is durable, and looks at every step whether the journal vouches for anything that is not.

    Its fsync takes a while, and refuses at the steps in `refused`.
    """

    def __init__(self, root: Path, monkeypatch, refused=()) -> None:
        self.root, self.refused = root, refused
        self.files: set[str] = set()  # temporary ones whose bytes are durable
        self.names: set[str] = set()  # durable with their bytes
        self.replaced: set[str] = set()  # ids whose WAV no durable row vouches for any more
        self.wrong: list[str] = []
        self.syncs: list[str] = []
        self._random, self._lock = random.Random(0), threading.Lock()
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)

    def fsync(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        names = set(os.listdir(path)) if os.path.isdir(path) else set()
        rows = list(read_rows(self.root / "journal"))
        with self._lock:
            self.syncs.append(path)
            number, pause = len(self.syncs), self._random.random() / 200
        time.sleep(pause)
        if number in self.refused:
            raise OSError(errno.EIO, "refused")
        self._fsync(fd)
        with self._lock:
            self.names |= names & {name.removesuffix(".tmp") for name in self.files}
            self.files |= {os.path.basename(path)}
            if path.endswith(".jsonl"):
                self.replaced |= {row["id"] for _, row in rows if row["status"] == "replaced"}
        self.look()

    def replace(self, source: Path, target: Path) -> None:
        if target.exists() and target.stem not in self.replaced:
            self.wrong.append(f"{target.name} is overwritten while its row may stand")
        self._replace(source, target)

    def look(self) -> None:
        """Rows count even before they are durable."""
        rows = [row for _, row in read_rows(self.root / "journal") if row["status"] == "ok"]
        with self._lock:
            self.wrong += [f"{row['id']} has a row, no WAV" for row in rows if f"{row['id']}.wav" not in self.names]


def vouched(root: Path) -> set[str]:
    """Ids with an `ok` row, whose WAVs are what the rows say."""
    folder, index = RunFolder(root), read_index(RunFolder(root))
    good = {id for id, entry in index.items() if entry.status == "ok"}
    assert all(is_done(index[id], index[id].key, folder) for id in good)
    assert not changed_on_disk((index[id] for id in good), folder)
    return good


def test_no_row_comes_before_its_wav_is_durable_and_no_wav_is_replaced_before_its_row_is_gone(tmp_path, monkeypatch):
    old = {f"b-001-{n:05d}" for n in range(0, 40, 3)}
    (tmp_path / "wavs" / "001").mkdir(parents=True)
    for id in old:
        (tmp_path / "wavs" / "001" / f"{id}.wav").write_bytes(b"of other options")
    disk = Disk(tmp_path, monkeypatch)
    _, rows = run(tmp_path, [["ok"]] * 40)
    disk.look()
    assert not disk.wrong and disk.replaced == old and len(rows) == len(vouched(tmp_path)) == 40


@pytest.mark.parametrize("refused", [1, 2, 3, 7, 12, 20, 33, 50])
def test_a_disk_that_refuses_once_ends_the_run_and_vouches_for_nothing_that_is_not_there(
    tmp_path, monkeypatch, refused
):
    disk = Disk(tmp_path, monkeypatch)
    RunFolder(tmp_path).create()
    Journal(tmp_path / "journal" / "0-of-1.jsonl", 1).close()
    disk.refused = (len(disk.syncs) + 1 + refused,)  # +1: opening the journal again
    with pytest.raises(WorkError, match="refused; fix that, then run the same command again"):
        run(tmp_path, [["ok"]] * 40)
    disk.look()
    assert not disk.wrong and len(vouched(tmp_path)) < 40 and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("batch_s", [0.0, 5.0])
def test_a_bug_on_a_thread_is_raised_as_it_is_and_leaves_no_row(tmp_path, monkeypatch, batch_s):
    write_wav = writer.write_wav

    def broken(path, *rest):
        return 1 / 0 if path.stem.endswith("7") else write_wav(path, *rest)

    monkeypatch.setattr(writer, "write_wav", broken)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, [["ok"]] * 30, batch_s=batch_s)
    assert not any(id.endswith("7") for id in vouched(tmp_path))


def test_a_bug_in_the_checks_is_raised_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.run.loop.judge", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, [["ok"]])
    assert not vouched(tmp_path)


def test_no_more_waits_than_the_queue_holds(tmp_path, monkeypatch):
    write_wav, waiting, most = writer.write_wav, [], []

    def slow(path, *rest):
        time.sleep(0.02)
        waiting.pop()
        return write_wav(path, *rest)

    keep = writer.Writer.keep

    def counted(self, kept):
        waiting.append(kept)
        most.append(len(waiting))
        return keep(self, kept)

    monkeypatch.setattr(writer, "write_wav", slow)
    monkeypatch.setattr(writer.Writer, "keep", counted)
    monkeypatch.setattr(writer, "QUEUE_S", 6.0)
    _, rows = run(tmp_path, [["ok"]] * 40, batch_s=1000)
    assert len(rows) == 40 and writer.THREADS < max(most) <= 6 + 1


def test_500_utterances_leave_no_thread_behind(tmp_path):
    before = set(threading.enumerate())
    _, rows = run(tmp_path, [["ok"]] * 500)
    assert len(rows) == 500 and set(threading.enumerate()) == before


def test_rows_that_wait_together_share_an_fsync_and_each_is_durable_when_it_returns(tmp_path, monkeypatch):
    path = tmp_path / "0-of-1.jsonl"
    journal = Journal(path, 1)
    synced: list[int] = []  # bytes, at each fsync

    def fsync(fd):
        size = path.stat().st_size
        while path.read_bytes().count(b"\n") < 9:  # the others arrive meanwhile
            time.sleep(0.001)
        synced.append(size)

    def append(n):
        journal.append(dict(id=f"b-{n}", key="", status="failed"))
        return path.read_bytes().index(b'"id":"b-%d"' % n) < synced[-1]

    monkeypatch.setattr(journals.os, "fsync", fsync)
    with ThreadPoolExecutor(9) as pool:
        assert all(pool.map(append, range(9)))
    assert len(synced) <= 3 and len(list(read_rows(tmp_path))) == 9


def test_after_an_fsync_that_failed_no_row_is_said_to_be_durable(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "0-of-1.jsonl", 1)
    fsync, failing = os.fsync, [True]

    def once(fd):
        if failing and failing.pop():
            raise OSError(errno.EIO, "the disk is gone")
        fsync(fd)

    monkeypatch.setattr(journals.os, "fsync", once)
    for n in range(3):
        with pytest.raises(OSError, match="the disk is gone"):
            journal.append(dict(id=str(n), key="", status="failed"))
