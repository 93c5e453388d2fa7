"""The plan: which utterances are rendered, their keys, seeds and order. Pure: knows no engine, file or clock.

An utterance's key and seed depend on its text, its occurrence and the options; never on its neighbours, its shard or
the point at which a run was resumed.
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

AUDIO_VERSION = 5  # part of every key; increment it when the code changes samples for the same options
ONSET_S = 0.4  # audio around the words, added to every predicted length
MOST_EARLY, EARLY_SHARE = 16, 16  # utterances that a window begins with, at most 16, and one of 16


@dataclass(frozen=True)
class Planned:
    """An utterance with its key, its seed and the predicted length of its speech."""

    utterance: Utterance
    key: str  # hash of all that changes samples
    seed: int
    predicted_s: float


def make_plan(utterances: Iterable[Utterance], params: Mapping[str, Any], chars_per_second: float) -> list[Planned]:
    """Plan the whole book, in reading order. `params` come from `parameters`."""
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
    """All that changes samples besides the text: the options as requested, not what the device made of them."""
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
    """The key of an utterance's speech. `occurrence`: how often the same text came before in the book."""
    return _digest(params, spoken_text, occurrence).hex()[:32]


def retry_seed(seed: int, attempt: int) -> int:
    """A new seed for a later attempt. It depends on `seed` and `attempt` only, so a resumed run draws the same one."""
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
    """The utterances of one process: take `chapters`, then the first `limit`, then a contiguous shard.

    Shards have about equal predicted seconds. `UserError` for chapters or a shard that do not exist.
    """
    wanted = _parse_chapters(chapters, planned)
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


def _parse_chapters(spec: str | None, planned: Sequence[Planned]) -> set[int]:
    """Chapter numbers from `1-3` or `0,2,5-7`; None: all. `UserError` for numbers that the book does not have."""
    existing = {p.utterance.chapter for p in planned}
    if spec is None:
        return existing
    wanted: set[int] = set()
    for part in spec.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        if not found:
            raise UserError(f"chapters={spec} is not a list of chapter numbers such as 1-3 or '0,2,5-7'")
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last:
            raise UserError(f"chapters={spec}: {first}-{last} is reversed; write {last}-{first}")
        if not min(existing) <= first <= last <= max(existing):
            raise UserError(f"chapters={spec}: the book has chapters {min(existing)} to {max(existing)} only")
        wanted |= existing & set(range(first, last + 1))
    return wanted


def windows(planned: Sequence[Planned], size: int) -> list[Sequence[Planned]]:
    """Consecutive windows of `size` utterances, which are rendered, checked and retried together."""
    return [planned[i : i + size] for i in range(0, len(planned), size)]


def render_order(window: Sequence[Planned]) -> list[Planned]:
    """The order in which a window is rendered: a few short ones, so that speech comes soon, then longest first."""
    ordered = longest_first(window)
    begin = len(ordered) - min(len(ordered) // EARLY_SHARE, MOST_EARLY)
    return ordered[begin:] + ordered[:begin]


def longest_first(planned: Iterable[Planned]) -> list[Planned]:
    """An order that leaves the fewest slots idle at the end."""
    return sorted(planned, key=lambda item: (-item.predicted_s, item.utterance.id))
