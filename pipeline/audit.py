"""Holds a finished run against what was promised, from its files alone. Knows no engine, option or network.

The plan says what should be there, the book's text whether the plan is whole, the journal what was written, and the
WAVs whether it still is. A bad WAV can be moved aside, so that the next run renders it again.
"""

import hashlib
import io
import os
import random
import sys
import wave
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.durable import fsync_folder, make_folder
from pipeline.plan import Planned, key_of
from pipeline.store import RunFolder
from pipeline.store.finished import DamagedRun, FinishedRun, open_run
from pipeline.store.manifest import GROUP, merge, schema_of, tables
from pipeline.store.plan_snapshot import PlanSnapshot
from pipeline.store.reuse import find_held, find_reusable
from pipeline.store.schema import Row, choose_schema
from pipeline.store.wav import HEADER_BYTES, to_float

Detector = Callable[[np.ndarray, int], float | None]  # samples (num_samples,) float32 and rate: confidence, 0 to 1

ONE_IN = 20  # WAVs of a sample
FEWEST = 20  # WAVs of a sample, if there are so many
FOUND = 0.5  # confidence that counts as found, or the row's own score if lower
TOLERANCE = 0.01  # of that confidence: another version of torch rounds otherwise


@dataclass(frozen=True)
class Finding:
    """One broken promise. `path` is a file that fixing moves aside."""

    what: str
    detail: str
    path: Path | None = None


@dataclass(frozen=True)
class Report:
    """What an audit found. No finding: every promise holds."""

    findings: Sequence[Finding]
    failed: Sequence[Mapping[str, Any]] = ()  # rows that failed: reported, but no finding
    planned: int = 0
    ok: int = 0
    audio_s: float = 0.0
    watermarks: int = 0  # looked for


def examine(folder: RunFolder, detect: Detector, share: str) -> Report:
    """Check everything; `share` of the watermarks is looked for: all, sample or none."""
    try:
        run = open_run(folder.root)
    except DamagedRun:
        damage = "or book.txt is missing or damaged: run the same jobs.generate again"
        return Report([Finding(folder.plan.name, damage)])
    snapshot, ok = run.snapshot, run.by_status["ok"]
    findings = [
        *_text(snapshot),
        *_keys(snapshot),
        *_missing(run),
        *_table(run, folder.manifest, "ok"),
        *_table(run, folder.failed, "failed"),
        *_strangers(run),
    ]
    marked = bool(snapshot.params["watermark"])
    listened = _sample(len(ok), share) if marked else set()
    audio_s = 0.0
    with ThreadPoolExecutor() as pool:
        for row, wrong in _check_wavs(run, listened, detect, pool):
            audio_s += row["duration"] or 0.0
            if marked and not row["watermarked"]:
                wrong = wrong or "has no watermark, and the run did not ask for that"
            if wrong:
                findings.append(Finding(row["file_name"], wrong, run.wav(row)))
    return Report(findings, list(run.rows("failed")), len(snapshot.planned), len(ok), audio_s, len(listened))


def fix(folder: RunFolder, findings: Iterable[Finding]) -> Path:
    """Move every file that a finding names aside, under its own name, and write the manifest anew; returns where to."""
    aside = folder.root / "aside" / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    for path in {finding.path for finding in findings if finding.path and finding.path.exists()}:
        target = aside / path.relative_to(folder.root)
        make_folder(target.parent)
        os.replace(path, target)
        fsync_folder(target.parent)
        fsync_folder(path.parent)
    with suppress(DamagedRun), folder.writing():
        merge(folder, open_run(folder.root).snapshot)
    return aside


def describe(report: Report, most: int = 20) -> str:
    """The report in words; `most` findings are shown, and every failed utterance."""
    counts = f"planned {report.planned}, ok {report.ok}, failed {len(report.failed)}"
    lines = [f"{counts}; {report.audio_s / 3600:.2f} hours; watermarks looked for: {report.watermarks}"]
    lines += [f"failed: {row['id']}: {row['error']}: {row['text']}" for row in report.failed]
    lines += [f"WRONG: {finding.what} {finding.detail}" for finding in report.findings[:most]]
    if len(report.findings) > most:
        lines += [f"WRONG: {len(report.findings) - most} more"]
    return "\n".join(lines)


def _text(snapshot: PlanSnapshot) -> Iterator[Finding]:
    """Every character that is not white space is in one utterance or one span left out on purpose, in order."""
    left = list(snapshot.text)
    for span in snapshot.unspoken:
        left[span.start : span.end] = " " * (span.end - span.start)
    places: Counter[int] = Counter()
    behind = 0
    for item in snapshot.planned:
        said = item.utterance
        if said.char_start < behind:
            yield Finding(said.id, f"begins at {said.char_start}, before the one in front of it ends")
        if said.text.split() != "".join(left[said.char_start : said.char_end]).split():
            yield Finding(said.id, f"is not what the book says at {said.char_start}")
        if said.index != places[said.chapter]:
            yield Finding(
                said.id, f"has index {said.index} where chapter {said.chapter} goes on with {places[said.chapter]}"
            )
        places[said.chapter] = said.index + 1
        behind = said.char_end
        left[said.char_start : said.char_end] = " " * (said.char_end - said.char_start)
    if rest := "".join(left).split():
        yield Finding(
            "book.txt",
            f"has text in no utterance and no unspoken span, at {snapshot.text.index(rest[0])}: {' '.join(rest)[:60]}",
        )


def _keys(snapshot: PlanSnapshot) -> Iterator[Finding]:
    """Each key is the hash of what it should be."""
    seen: Counter[str] = Counter()
    for item in snapshot.planned:
        text = item.utterance.spoken_text
        if item.key != key_of(snapshot.params, text, seen[text]):
            yield Finding(item.utterance.id, "has a key that is not of its text and options")
        seen[text] += 1


def _missing(run: FinishedRun) -> Iterator[Finding]:
    """Planned, and neither ok nor failed."""
    there = {item.utterance.id for items in run.by_status.values() for item in items}
    for item in run.snapshot.planned:
        if item.utterance.id not in there:
            yield Finding(item.utterance.id, f"{_why(item, run)}: run jobs.generate again")


def _why(item: Planned, run: FinishedRun) -> str:
    entry = run.index.get(item.utterance.id)
    if find_reusable([item], run.index, run.folder) and (other := run.index.spoken[item.key].id) != item.utterance.id:
        return f"is there under another id, {other}, and not taken over yet"
    if entry is None:
        return "is not rendered yet"
    if entry.status == "replaced":
        return "was being rendered when the job ended"
    if entry.key != item.key:
        return "is there for another text or other options only"
    return f"has lost its WAV {entry.file_name}, or part of it"


def _table(run: FinishedRun, path: Path, status: str) -> Iterator[Finding]:
    """A table is what journal and plan say, row by row, in the columns of the version that wrote it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = schema_of(run.snapshot, [item for items in run.by_status.values() for item in items], run.index)
        found: Iterable[Any] = ()
        if path.exists():
            file = pq.ParquetFile(path)
            found, schema = file.iter_batches(GROUP), choose_schema(file.schema_arrow, schema)
        for there, wanted in zip_longest(found, tables(run.rows(status), schema)):
            if there is None or wanted is None or not pa.Table.from_batches([there]).equals(wanted):
                yield Finding(
                    path.name, f"is not what the journal says{_first(there, wanted)}: run jobs.generate again"
                )
                return
    except (OSError, pa.ArrowException) as error:
        yield Finding(path.name, f"cannot be read ({str(error).splitlines()[0]}): run jobs.generate again")


def _first(there: Any, wanted: Any) -> str:
    """The first row that differs, and in which columns."""
    before, after = (part.to_pylist() if part is not None else [] for part in (there, wanted))
    for one, other in zip_longest(before, after):
        if one != other:
            columns = [name for name in one if one[name] != (other or {}).get(name)] if one and other else ["row"]
            return f", from {(other or one)['id']} on ({', '.join(columns)})"
    return ""


def _strangers(run: FinishedRun) -> Iterator[Finding]:
    """Files that no row of the manifest names."""
    folder, index = run.folder, run.index
    known = {folder.root / index[item.utterance.id].file_name for item in run.by_status["ok"]}
    journaled = {folder.root / entry.file_name for entry in index.values() if entry.file_name}
    waiting = {folder.root / entry.file_name for _, entry in find_reusable(run.snapshot.planned, index, folder)}
    for path in sorted(path for path in (folder.root / "wavs").rglob("*") if path.is_file() and path not in known):
        if path in waiting:  # it stays: the next run needs it
            yield Finding(str(path.relative_to(folder.root)), "waits to be taken over: run jobs.generate again")
            continue
        why = "is of an earlier edition or other options" if path in journaled else "has no row in any journal"
        yield Finding(str(path.relative_to(folder.root)), why, path)
    for path in folder.leftovers():
        if path.parent.parent != folder.root / "wavs":
            yield Finding(str(path.relative_to(folder.root)), "was never finished", path)
    planned = {item.key for item in run.snapshot.planned}
    held = find_held(folder)
    if held.keys() & planned:  # it stays, too
        yield Finding(folder.reuse.name, "holds speech that was being taken over: run jobs.generate again")
    for key in sorted(held.keys() - planned):
        yield Finding(f"{folder.reuse.name}/{held[key].name}", "is of an earlier edition or other options", held[key])


def _sample(count: int, share: str) -> set[int]:
    """Indices of WAVs whose watermark is looked for; a new random sample each time."""
    size = dict(all=count, none=0, sample=min(count, max(FEWEST, count // ONE_IN)))[share]
    return set(random.sample(range(count), size))


def _check_wavs(
    run: FinishedRun, listened: set[int], detect: Detector, pool: ThreadPoolExecutor
) -> Iterator[tuple[Row, str]]:
    """Each row that is ok with what is wrong with its WAV, if anything is."""
    from tqdm import tqdm

    numbered = enumerate(tqdm(run.rows("ok"), unit="wav", disable=not sys.stderr.isatty()))
    while group := list(islice(numbered, GROUP)):
        work = lambda item: _wrong(run.wav(item[1]), item[1], detect if item[0] in listened else None)  # noqa: E731
        yield from zip((row for _, row in group), pool.map(work, group), strict=True)


def _wrong(path: Path, row: Row, detect: Detector | None) -> str:
    """What is wrong with a row's WAV; empty: nothing."""
    try:
        data = path.read_bytes()
        with wave.open(io.BytesIO(data)) as file:
            form = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate(), file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        return f"is no WAV ({error})"
    if form != (1, 16, row["sample_rate"], row["num_samples"]):
        return "has {} channel(s) of {} bits at {} Hz and {} samples, not what its row says".format(*form)
    if row["duration"] not in (None, row["num_samples"] / row["sample_rate"]):
        return f"lasts {row['num_samples'] / row['sample_rate']} s, not the {row['duration']} s of its row"
    if hashlib.sha256(data).hexdigest() != row["audio_sha256"]:
        return "is not what was written: its hash differs"
    if detect and row["watermarked"]:
        score = detect(to_float(np.frombuffer(data, np.int16, offset=HEADER_BYTES)), row["sample_rate"])
        found_then = row["watermark_score"] if row["watermark_score"] is not None else FOUND
        if score < min(FOUND, found_then) - TOLERANCE:
            return f"has no watermark: found with a confidence of {score:.2f} only"
    return ""
