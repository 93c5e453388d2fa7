"""Books: from a file's bytes to the utterances that are spoken. Knows nothing of voices, engines or runs.

`reader` finds chapters and paragraphs, `normalise` turns characters into spoken text, `segment` cuts paragraphs
into utterances. Every piece keeps its offsets into `Book.text`, so that what is spoken can be held against the book.
"""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a paragraph is; decides the pause after it."""

    HEADING = "heading"
    PROSE = "prose"
    SCENE_BREAK = "scene break"  # a pause, never spoken


@dataclass(frozen=True)
class Paragraph:
    """`Book.text[start:end]`, without surrounding white space."""

    start: int
    end: int
    kind: Kind


@dataclass(frozen=True)
class Chapter:
    """Number 0 is what stands before the first heading; the others count from 1 in the order of the book."""

    number: int
    title: str
    paragraphs: tuple[Paragraph, ...]


@dataclass(frozen=True)
class Unspoken:
    """`Book.text[start:end]` is left out on purpose, and why."""

    start: int
    end: int
    reason: str


@dataclass(frozen=True)
class Book:
    """A decoded document. `name` is safe in file names; offsets count characters of `text`."""

    name: str
    text: str
    chapters: tuple[Chapter, ...]
    unspoken: tuple[Unspoken, ...]


@dataclass(frozen=True)
class Utterance:
    """The unit of work: one synthesis call, one WAV, one row of the manifest."""

    id: str  # <book>-<chapter>-<index>, as in alice-001-00042
    book: str
    chapter: int
    chapter_title: str
    index: int  # in the chapter, from 0
    paragraph: int  # in the chapter, from 0
    char_start: int
    char_end: int
    text: str  # the book's characters; runs of white space are one space
    spoken_text: str  # exactly what the model is given
    pause_after_s: float
