"""What an audit can find, the worst first, and what mends it. Knows nothing of how it is found."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

AGAIN = "run jobs.generate again"
ASIDE = "fix=true moves it aside"
ASIDE_AGAIN = f"{ASIDE}; then {AGAIN}"
EITHER = f"{AGAIN}, or {ASIDE}"


class Kind(Enum):
    """A kind of damage: its name in the report, and what mends it. The order is that of the report."""

    PLAN = "plan that is not whole, so that nothing else was checked", AGAIN
    TEXT = "text that is not spoken as the book has it", AGAIN
    KEY = "key that is not of its text and options", AGAIN
    CHANGED = "WAV that is not what was written", AGAIN
    UNMARKED = "WAV without a watermark", ASIDE_AGAIN
    ROW = "journal row that its WAV belies", ASIDE_AGAIN
    LOST = "WAV that is lost", AGAIN
    JOURNAL = "journal that has lost rows", AGAIN
    UNVOUCHED = "WAV that no journal row vouches for", EITHER
    WAITING = "speech that waits to be taken over", AGAIN
    MISSING = "utterance that is not rendered", AGAIN
    TABLE = "table that is not what the journal says", AGAIN
    RECORD = "run record that cannot be read", ASIDE
    SUPERSEDED = "WAV of an earlier edition or of other options", ASIDE
    STRANGER = "file that is of no run", ASIDE
    LEFTOVER = "file that was never finished", EITHER

    def __init__(self, title: str, cure: str) -> None:
        self.title = title
        self.cure = cure


@dataclass(frozen=True)
class Finding:
    """One broken promise."""

    kind: Kind
    thing: str  # an utterance's id, or a file relative to the run's folder
    detail: str = ""  # what is wrong with it, as the rest of a sentence about `thing`
    path: Path | None = None  # a file that fixing moves aside
    explains: Collection[str] = ()  # ids of the utterances that it accounts for


@dataclass(frozen=True)
class Report:
    """What an audit found. No finding: every promise holds."""

    findings: Sequence[Finding]
    failed: Sequence[Mapping[str, Any]] = ()  # rows that failed: reported, but no finding
    planned: int = 0
    ok: int = 0  # utterances whose speech is there, with nothing found against it
    unchosen: int = 0  # utterances that no run was asked for, and that are not there
    audio_s: float = 0.0  # of those that are ok
    watermarks: int = 0  # looked for
