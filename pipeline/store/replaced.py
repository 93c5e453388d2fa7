"""Finished speech that a run would write over, and why. Knows nothing of how speech is made.

Speech whose key the plan still has is not lost: it is taken over. Files that no utterance of the plan has a name for
stay until an audit moves them aside.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.store import RunFolder
from pipeline.store.index import Entry, Index, has_wav
from pipeline.store.journal import read_row
from pipeline.store.plan_snapshot import PlanSnapshot
from pipeline.store.schema import Row

EDITED = "edits of the text"
NAMES = dict(
    revision="the model's revision",
    voice_sha256="voice",
    prompt_seconds="voice.prompt_seconds",
    watermark="watermark.enabled",
    audio_version="the program's audio version",
)  # of what `params` does not call as the option is called
OF_ALL_ENGINES = ("engine", "seed", "watermark.enabled")


def find_replaced(snapshot: PlanSnapshot, index: Index, folder: RunFolder) -> list[Entry]:
    """Finished utterances whose speech the plan has no more, though it has their ids."""
    keys = {item.key for item in snapshot.planned}
    entries = (index.get(item.utterance.id) for item in snapshot.planned)
    return [entry for entry in entries if entry and entry.key not in keys and _is_finished(entry, folder)]


def explain(replaced: Sequence[Entry], snapshot: PlanSnapshot) -> str:
    """Why, and how many for each reason, the most frequent first."""
    texts = {item.utterance.spoken_text for item in snapshot.planned}
    rows = map(read_row, (entry.place for entry in replaced))
    counts = Counter(_reason(row, snapshot) if row.get("spoken_text") in texts else EDITED for row in rows)
    return "; ".join(reason if len(counts) == 1 else f"{count} by {reason}" for reason, count in counts.most_common())


def _is_finished(entry: Entry, folder: RunFolder) -> bool:
    return entry.status == "ok" and has_wav(entry, folder)


def _reason(row: Row, snapshot: PlanSnapshot) -> str:
    """The options of a row that are not today's, with both values."""
    then, now = _flatten(_requested(row)), _flatten(snapshot.params)
    names = [name for name in now | then if then.get(name) != now.get(name)]
    if "engine" in names:  # each has options of its own
        names = [name for name in names if name in OF_ALL_ENGINES]
    values = [(_show(then, name, row.get("speaker")), _show(now, name, snapshot.speaker)) for name in names]
    return ", ".join(f"{name} {a} -> {b}" for name, (a, b) in zip(names, values, strict=True)) or EDITED


def _show(flat: Mapping[str, Any], name: str, speaker: str | None) -> str:
    """A value as a user knows it: a recording by its speaker's name and the start of its hash."""
    value = flat.get(name, "unset")
    if name != "voice":
        return str(value)
    return f"{speaker} ({value[:8]})" if value else str(speaker)


def _requested(row: Row) -> Mapping[str, Any]:
    """A row's `params` as they were asked for: theirs is the sampling of the attempt that was kept."""
    try:
        params = json.loads(row.get("params") or "{}")
        first = json.loads((row.get("attempts") or [{}])[0].get("sampling") or "null")
        return params | (dict(sampling=first) if first else {})
    except (ValueError, TypeError, AttributeError):
        return {}


def _flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """`params` by dotted names of options."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            prefix = "engine" if name == "options" else name
            flat |= {NAMES.get(one, f"{prefix}.{one}"): value[one] for one in value}
        else:
            flat[NAMES.get(name, name)] = value
    return flat
