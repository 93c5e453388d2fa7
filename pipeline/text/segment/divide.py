"""One paragraph into pieces of a good length. Knows nothing of chapters, pauses or engines.

No piece is longer than MAX_CHARS, for the model garbles from 300 to 350 on; and only a paragraph that is short itself
makes a short piece, for the model garbles those too.
"""

import re
import unicodedata
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil, inf

from pipeline.text.segment.sentences import Span
from pipeline.text.spoken.normalise import ILLUSTRATION, spoken

MAX_CHARS = 280  # of the text and of the spoken text
SHORT_CHARS = 20
SHORT_WORDS = 3

PLAIN = str.maketrans("“”„«»‘’‚", '"""""\'\'\'')
CLOSING = r"(?:[\"')\]]+(?=\s))?"
CONJUNCTIONS = "and|but|or|for|nor|so|yet|because|that|which|who|whom|whose|when|while|where|if|as|until|though|than"
CLAUSE_MARK = re.compile(rf"(?:[;:…](?=[\s\"')])|—|--+|\s[–-](?=\s)){CLOSING}")
COMMA = re.compile(rf",{CLOSING}(?=\s)")
CONJUNCTION = re.compile(rf"\s+(?=(?:{CONJUNCTIONS})\s)")
SPACE = re.compile(r"\s+")


def plain(text: str) -> str:
    """`text`, character for character, with ASCII quotes and spaces, and illustration marks as one unbroken word."""
    text = ILLUSTRATION.sub(lambda mark: "_" * len(mark[0]), text)
    return SPACE.sub(lambda space: " " * len(space[0]), text).translate(PLAIN)


@dataclass(frozen=True)
class Passage:
    """A paragraph, its plain twin, and where its sentences end, which is where the next begin."""

    text: str
    plain: str
    ends: Sequence[int]

    def words(self, span: Span) -> str:
        return " ".join(self.text[slice(*span)].split())

    def tight(self, span: Span) -> Span:
        text = self.text[slice(*span)]
        return span[1] - len(text.lstrip()), span[0] + len(text.rstrip())

    def size(self, span: Span) -> int:
        words = self.words(span)
        return max(len(words), len(spoken(words)))

    def is_short(self, span: Span) -> bool:
        words = self.words(span)
        return any(len(text) < SHORT_CHARS or len(text.split()) < SHORT_WORDS for text in (words, spoken(words)))


def divide(passage: Passage, join_chars: int) -> list[Span]:
    """The pieces of the passage, without white space at their ends."""
    starts = [0, *passage.ends[:-1]]
    pieces = [piece for sentence in zip(starts, passage.ends, strict=True) for piece in _fit(passage, sentence)]
    return _without_short(passage, _joined(passage, pieces, join_chars))


def _fit(passage: Passage, span: Span) -> list[Span]:
    """The span, cut in as few and as even pieces as its marks allow."""
    start, end = passage.tight(span)
    size = passage.size((start, end))
    if size <= MAX_CHARS:
        return [(start, end)]
    cut = _best_cut(passage, (start, end), ceil(size / MAX_CHARS))
    return _fit(passage, (start, cut)) + _fit(passage, (cut, end))


def _best_cut(passage: Passage, span: Span, parts: int) -> int:
    """The place nearest the ideal one, of the best kind that has one near, with no short piece beside it."""
    start, end = span
    ideal = start + (end - start) * (parts // 2) // parts
    near = (end - start) / parts / 2
    for places, reach in _places(passage, span, near):
        within = (place for place in places if start < place < end and abs(place - ideal) <= reach)
        for place in sorted(within, key=lambda place: abs(place - ideal)):
            if not passage.is_short((start, place)) and not passage.is_short((place, end)):
                return place
    forwards_then_back = chain(range(ideal, end), range(ideal, start, -1))
    return next((i for i in forwards_then_back if i > start and not _is_mark(passage.text[i])), ideal)


def _places(passage: Passage, span: Span, near: float) -> Iterator[tuple[Iterable[int], float]]:
    yield passage.ends[bisect(passage.ends, span[0]) : bisect(passage.ends, span[1])], near
    for mark in (CLAUSE_MARK, COMMA, CONJUNCTION):
        yield (match.end() for match in mark.finditer(passage.plain, *span)), near
    yield (match.end() for match in SPACE.finditer(passage.plain, *span)), inf


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"  # an accent stays with its letter


def _joined(passage: Passage, pieces: Iterable[Span], join_chars: int) -> list[Span]:
    joined: list[Span] = []
    for piece in pieces:
        both = (joined[-1][0], piece[1]) if joined else piece
        if joined and len(passage.words(both)) <= join_chars and passage.size(both) <= MAX_CHARS:
            joined[-1] = both
        else:
            joined.append(piece)
    return joined


def _without_short(passage: Passage, pieces: list[Span]) -> list[Span]:
    """Short pieces joined to their smaller neighbour; where that is too long, the two are divided anew."""
    pieces = list(pieces)
    i = 0
    while i < len(pieces) and len(pieces) > 1:
        if not passage.is_short(pieces[i]):
            i += 1
            continue
        for left in _smaller_pair_first(passage, pieces, i):
            parts = _fit(passage, (pieces[left][0], pieces[left + 1][1]))
            if len(parts) == 1 or _weakest(passage, parts) > _weakest(passage, [pieces[i]]):
                pieces[left : left + 2] = parts
                i = left if len(parts) == 1 else left + len(parts)
                break
        else:
            i += 1
    return pieces


def _smaller_pair_first(passage: Passage, pieces: Sequence[Span], i: int) -> list[int]:
    pairs = [left for left in (i - 1, i) if 0 <= left < len(pieces) - 1]
    return sorted(pairs, key=lambda left: passage.size((pieces[left][0], pieces[left + 1][1])))


def _weakest(passage: Passage, pieces: Iterable[Span]) -> int:
    return min(len(spoken(passage.words(piece))) for piece in pieces)
