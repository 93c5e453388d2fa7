"""What is rendered, under which key and seed, in what order. Pure: knows no engine, file or clock.

An utterance's key and seed depend on its own text and on the options, never on its neighbours, its shard or the
point at which a run was resumed.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import SpeechConfig
from pipeline.data import Identity, Utterance
from pipeline.errors import UserError

AUDIO_VERSION = 5  # raise it when the code changes samples for the same options: it enters every utterance's key
ONSET_S = 0.4  # speech before and after the words, added to every predicted length


@dataclass(frozen=True)
class Planned:
    """An utterance with all that identifies and sizes its speech."""

    utterance: Utterance
    key: str  # hash of all that changes samples
    seed: int
    predicted_s: float


def make_plan(utterances: Iterable[Utterance], params: Mapping[str, Any], chars_per_second: float) -> list[Planned]:
    """Plan the whole book, in reading order. `params` is what `parameters` returns."""
    seen: Counter[str] = Counter()
    planned = []
    for utterance in utterances:
        text, occurrence = utterance.spoken_text, seen[utterance.spoken_text]
        seen[text] += 1
        planned.append(
            Planned(
                utterance,
                key=key_of(params, text, occurrence),
                seed=_seed(params["seed"], text, occurrence),
                predicted_s=ONSET_S + len(text) / chars_per_second,
            )
        )
    return planned


def parameters(identity: Identity, config: SpeechConfig) -> dict[str, Any]:
    """All that changes samples beside the text, as requested (not as a device happened to grant it)."""
    return dict(
        engine=config.engine.name,
        model=identity.model,
        revision=identity.revision,
        voice_sha256=identity.voice_sha256,
        options=identity.options,
        sampling=asdict(config.sampling),
        precision=asdict(config.precision),
        watermark=config.watermark.enabled,
        seed=config.seed,
        audio_version=AUDIO_VERSION,
    )


def key_of(params: Mapping[str, Any], spoken_text: str, occurrence: int) -> str:
    """Names an utterance's samples: `occurrence` is how often the text came before in the book."""
    return _digest(params, spoken_text, occurrence).hex()[:32]


def retry_seed(seed: int, attempt: int) -> int:
    """The seed of a later attempt: new, but the same whenever and wherever it is made."""
    return _seed(seed, "attempt", attempt)


def _seed(*parts: Any) -> int:
    return int.from_bytes(_digest(*parts)[:8], "big") >> 1  # 63 bits: torch seeds are signed


def _digest(*parts: Any) -> bytes:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def choose(
    planned: Sequence[Planned],
    chapters: str | None = None,
    limit: int | None = None,
    shard: int = 0,
    num_shards: int = 1,
) -> list[Planned]:
    """What a process renders: `chapters`, then `limit`, then its contiguous `shard` of predicted seconds."""
    wanted = _chapters(chapters, planned)
    chosen = [item for item in planned if item.utterance.chapter in wanted][:limit]
    if shard >= num_shards:
        raise UserError(f"shard={shard} does not exist: num_shards={num_shards} makes 0 to {num_shards - 1}")
    total, before, part = sum(p.predicted_s for p in chosen), 0.0, []
    for item in chosen:
        middle = before + item.predicted_s / 2
        if int(middle / total * num_shards) == shard:
            part.append(item)
        before += item.predicted_s
    return part


def _chapters(spec: str | None, planned: Sequence[Planned]) -> set[int]:
    """`1-3` or `0,2,5-7` as a set, held against the book's chapters; None: all."""
    there = {p.utterance.chapter for p in planned}
    if spec is None:
        return there
    wanted: set[int] = set()
    for part in spec.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        if not found:
            raise UserError(f"chapters={spec} is not a list of chapter numbers such as 1-3 or '0,2,5-7'")
        first, last = int(found[1]), int(found[2] or found[1])
        if not min(there) <= first <= last <= max(there):
            raise UserError(f"chapters={spec}: the book has chapters {min(there)} to {max(there)} only")
        wanted |= there & set(range(first, last + 1))
    return wanted


def windows(planned: Sequence[Planned], size: int) -> list[Sequence[Planned]]:
    """Consecutive windows in reading order: what is rendered, checked and retried together."""
    return [planned[i : i + size] for i in range(0, len(planned), size)]


def longest_first(window: Iterable[Planned]) -> list[Planned]:
    """The order in which a window is rendered: it wastes the least slots at the end."""
    return sorted(window, key=lambda item: (-item.predicted_s, item.utterance.id))
