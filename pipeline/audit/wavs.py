"""Each WAV against its journal row: length, hash, format, watermark. Knows nothing of what is missing."""

import hashlib
import io
import random
import sys
import wave
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.audit.finding import Finding, Kind
from pipeline.plan import Planned
from pipeline.store.finished import FinishedRun
from pipeline.store.index import AUDIO
from pipeline.store.manifest import GROUP, rows_of
from pipeline.store.schema import Row
from pipeline.store.wav import HEADER_BYTES, to_float

Detector = Callable[[np.ndarray, int], float | None]  # samples (num_samples,) float32 and rate: confidence, 0 to 1
Wrong = tuple[Kind | None, str]  # None: nothing is wrong

ONE_IN = 20  # WAVs of a sample
FEWEST = 20  # WAVs of a sample, if there are so many
FOUND = 0.5  # confidence that counts as found, or the row's own score if lower
TOLERANCE = 0.01  # of that confidence: another version of torch rounds otherwise


def sample(count: int, share: str) -> set[int]:
    """Indices of WAVs whose watermark is looked for: of all, none, or a new random sample each time."""
    size = dict(all=count, none=0, sample=min(count, max(FEWEST, count // ONE_IN)))[share]
    return set(random.sample(range(count), size))


def check_wavs(
    run: FinishedRun, spoken: Sequence[Planned], listened: set[int], detect: Detector
) -> Iterator[tuple[Row, Finding | None]]:
    """The row of each of `spoken` with what is wrong with row or WAV. `listened`: indices for the watermark."""
    from tqdm import tqdm

    marked = bool(run.snapshot.params["watermark"])

    def check(one: tuple[int, tuple[Planned, Row]]) -> tuple[Row, Finding | None]:
        number, (item, row) = one
        path = run.folder.wav(item.utterance)
        name = path.relative_to(run.folder.root).as_posix()
        kind, detail = _find_wrong(path, name, row, marked, detect if number in listened else None)
        aside = run.wav(row) if row["file_name"] else path  # the file that the row vouches for, wrong as that may be
        return row, kind and Finding(kind, name, detail, aside, explains=[item.utterance.id])

    rows = zip(spoken, rows_of(run.snapshot, spoken, run.index), strict=True)
    numbered = enumerate(tqdm(rows, total=len(spoken), unit="wav", disable=not sys.stderr.isatty()))
    with ThreadPoolExecutor() as pool:
        while group := list(islice(numbered, GROUP)):
            yield from pool.map(check, group)


def _find_wrong(path: Path, name: str, row: Row, marked: bool, detect: Detector | None) -> Wrong:
    if lacking := next((column for column in AUDIO if row[column] is None), ""):
        return Kind.ROW, f"has a row without {lacking}"
    if row["file_name"] != name:
        return Kind.ROW, f"is not the file that its row names, {row['file_name']}"
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Kind.LOST, "is gone"
    except IsADirectoryError:
        return Kind.LOST, "is a folder (fix=true moves it aside)"
    except OSError as error:
        return Kind.LOST, f"cannot be read ({error.strerror})"
    belied = _compare(data, row)
    if hashlib.sha256(data).hexdigest() != row["audio_sha256"]:
        return Kind.CHANGED, belied or "has another hash"
    if belied:
        return Kind.ROW, f"is as it was written, and {belied}"
    if marked and not row["watermarked"]:
        return Kind.UNMARKED, "was written without one, and the run did not ask for that"
    return _listen(data, row, detect) if detect and row["watermarked"] else (None, "")


def _compare(data: bytes, row: Row) -> str:
    """How length and format are not what the row says; empty: they are."""
    length = HEADER_BYTES + 2 * row["num_samples"]
    if len(data) != length:
        return f"has {len(data)} bytes where its row says {length}"
    try:
        with wave.open(io.BytesIO(data)) as file:
            form = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate(), file.getnframes())
    except (EOFError, wave.Error) as error:
        return f"is no WAV ({error})"
    if form != (1, 16, row["sample_rate"], row["num_samples"]):
        return "has {} channel(s) of {} bits at {} Hz and {} samples, not what its row says".format(*form)
    seconds = row["num_samples"] / row["sample_rate"]
    if row["duration"] not in (None, seconds):
        return f"lasts {seconds} s where its row says {row['duration']} s"
    return ""


def _listen(data: bytes, row: Row, detect: Detector) -> Wrong:
    score = detect(to_float(np.frombuffer(data, np.int16, offset=HEADER_BYTES)), row["sample_rate"])
    found_then = row["watermark_score"] if row["watermark_score"] is not None else FOUND
    if score < min(FOUND, found_then) - TOLERANCE:
        return Kind.UNMARKED, f"has one with a confidence of {score:.2f} only"
    return None, ""
