"""Cuts one paragraph into pieces of a length that suits the model. Knows nothing of chapters, pauses or engines.

No piece is longer than MAX_CHARS, because the model garbles texts from 300 to 350 characters on. It garbles short texts
too, so only a short paragraph makes a short piece.
"""

import re
import unicodedata
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil, inf

from pipeline.config import MAX_CHARS
from pipeline.text.segment.sentences import Span
from pipeline.text.spoken.normalise import ILLUSTRATION, normalise

SHORT_CHARS = 20
SHORT_WORDS = 3

PLAIN = str.maketrans("“”„«»‘’‚", '"""""\'\'\'')
CLOSING = r"(?:[\"')\]]+(?=\s))?"
CONJUNCTIONS = "and|but|or|for|nor|so|yet|because|that|which|who|whom|whose|when|while|where|if|as|until|though|than"
CLAUSE_MARK = re.compile(rf"(?:[;:…](?=[\s\"')])|—|--+|\s[–-](?=\s)){CLOSING}")
COMMA = re.compile(rf",{CLOSING}(?=\s)")
CONJUNCTION = re.compile(rf"\s+(?=(?:{CONJUNCTIONS})\s)")
SPACE = re.compile(r"\s+")


def make_plain(text: str) -> str:
    """`text` in the same number of characters: ASCII quotes and spaces, each illustration mark one unbroken word."""
    text = ILLUSTRATION.sub(lambda mark: "_" * len(mark[0]), text)
    return SPACE.sub(lambda space: " " * len(space[0]), text).translate(PLAIN)


@dataclass(frozen=True)
class Passage:
    """A paragraph and the ends of its sentences."""

    text: str
    plain: str  # `make_plain(text)`
    ends: Sequence[int]  # each sentence begins where the one before ends

    def text_of(self, span: Span) -> str:
        return " ".join(self.text[slice(*span)].split())

    def strip_span(self, span: Span) -> Span:
        text = self.text[slice(*span)]
        return span[1] - len(text.lstrip()), span[0] + len(text.rstrip())

    def size(self, span: Span) -> int:
        """Characters of the text or of the spoken text, whichever is longer."""
        words = self.text_of(span)
        return max(len(words), len(normalise(words)))

    def is_short(self, span: Span) -> bool:
        words = self.text_of(span)
        return any(len(text) < SHORT_CHARS or len(text.split()) < SHORT_WORDS for text in (words, normalise(words)))


def divide(passage: Passage, join_chars: int) -> list[Span]:
    """Spans of the pieces, without white space at their ends. Sentences are joined up to `join_chars` characters."""
    starts = [0, *passage.ends[:-1]]
    pieces = [piece for sentence in zip(starts, passage.ends, strict=True) for piece in _cut_to_fit(passage, sentence)]
    return _merge_short(passage, _join(passage, pieces, join_chars))


def _cut_to_fit(passage: Passage, span: Span) -> list[Span]:
    """Cut the span into pieces of at most MAX_CHARS: as few and as equal as its punctuation allows."""
    start, end = passage.strip_span(span)
    size = passage.size((start, end))
    if size <= MAX_CHARS:
        return [(start, end)]
    cut = _best_cut(passage, (start, end), ceil(size / MAX_CHARS))
    return _cut_to_fit(passage, (start, cut)) + _cut_to_fit(passage, (cut, end))


def _best_cut(passage: Passage, span: Span, parts: int) -> int:
    """Where to cut `span` so that the first part is about `parts // 2` of `parts`.

    Sentence ends come before clause marks, commas, conjunctions and spaces. No cut leaves a short piece if another can.
    """
    start, end = span
    ideal = start + (end - start) * (parts // 2) // parts
    near = (end - start) / parts / 2
    for places, reach in _cut_places(passage, span, near):
        within = (place for place in places if start < place < end and abs(place - ideal) <= reach)
        for place in sorted(within, key=lambda place: abs(place - ideal)):
            if not passage.is_short((start, place)) and not passage.is_short((place, end)):
                return place
    forwards_then_back = chain(range(ideal, end), range(ideal, start, -1))
    return next((i for i in forwards_then_back if i > start and not _is_combining(passage.text[i])), ideal)


def _cut_places(passage: Passage, span: Span, near: float) -> Iterator[tuple[Iterable[int], float]]:
    """Candidates of each kind, the best kind first, and how far from the ideal place they may be."""
    yield passage.ends[bisect(passage.ends, span[0]) : bisect(passage.ends, span[1])], near
    for mark in (CLAUSE_MARK, COMMA, CONJUNCTION):
        yield (match.end() for match in mark.finditer(passage.plain, *span)), near
    yield (match.end() for match in SPACE.finditer(passage.plain, *span)), inf


def _is_combining(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"  # a combining accent stays with its letter


def _join(passage: Passage, pieces: Iterable[Span], join_chars: int) -> list[Span]:
    """Join neighbours while they fit in `join_chars` and MAX_CHARS."""
    joined: list[Span] = []
    for piece in pieces:
        both = (joined[-1][0], piece[1]) if joined else piece
        if joined and len(passage.text_of(both)) <= join_chars and passage.size(both) <= MAX_CHARS:
            joined[-1] = both
        else:
            joined.append(piece)
    return joined


def _merge_short(passage: Passage, pieces: list[Span]) -> list[Span]:
    """Join each short piece to its smaller neighbour; if the two are too long together, cut them again."""
    pieces = list(pieces)
    i = 0
    while i < len(pieces) and len(pieces) > 1:
        if not passage.is_short(pieces[i]):
            i += 1
            continue
        for left in _pairs_by_size(passage, pieces, i):
            parts = _cut_to_fit(passage, (pieces[left][0], pieces[left + 1][1]))
            if len(parts) == 1 or _shortest_spoken(passage, parts) > _shortest_spoken(passage, [pieces[i]]):
                pieces[left : left + 2] = parts
                i = left if len(parts) == 1 else left + len(parts)
                break
        else:
            i += 1
    return pieces


def _pairs_by_size(passage: Passage, pieces: Sequence[Span], i: int) -> list[int]:
    pairs = [left for left in (i - 1, i) if 0 <= left < len(pieces) - 1]
    return sorted(pairs, key=lambda left: passage.size((pieces[left][0], pieces[left + 1][1])))


def _shortest_spoken(passage: Passage, pieces: Iterable[Span]) -> int:
    return min(len(normalise(passage.text_of(piece))) for piece in pieces)
