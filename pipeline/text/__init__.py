"""Books: from a file's bytes to the utterances that are spoken. Knows nothing of voices, engines or runs.

`reader` finds chapters and paragraphs, `normalise` turns characters into spoken text, `segment` cuts paragraphs
into utterances. Every piece keeps its offsets into `Book.text`, so that what is spoken can be held against the book.
"""

from dataclasses import dataclass
from enum import Enum

from pipeline.data import Unspoken


class ParagraphKind(Enum):
    """What a paragraph is; decides the pause after it."""

    HEADING = "heading"
    PROSE = "prose"
    SCENE_BREAK = "scene break"  # a pause, never spoken


@dataclass(frozen=True)
class Paragraph:
    """`Book.text[start:end]`, without surrounding white space."""

    start: int
    end: int
    kind: ParagraphKind


@dataclass(frozen=True)
class Chapter:
    """Number 0 is what stands before the first heading; the others count from 1 in the order of the book."""

    number: int
    title: str
    paragraphs: tuple[Paragraph, ...]


@dataclass(frozen=True)
class Book:
    """A decoded document. `name` is safe in file names; offsets count characters of `text`."""

    name: str
    text: str
    chapters: tuple[Chapter, ...]
    unspoken: tuple[Unspoken, ...]
