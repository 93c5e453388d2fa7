"""From a file to utterances. Knows nothing of voices, engines or runs.

`formats/` decodes a file into text, `structure/` finds headings and contents, `reader` makes a `Book` of them.
`segment/` cuts the book's paragraphs into utterances; `spoken/` turns an utterance's text into what the model is given.
Paragraphs, utterances and unspoken spans keep their offsets into `Book.text`, so that each can be found in the book.
"""

from dataclasses import dataclass
from enum import Enum

from pipeline.data import Unspoken


class ParagraphKind(Enum):
    """What a paragraph is; the pause after it depends on this."""

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
    """Number 0 is the text before the first heading; the others are numbered from 1 in reading order."""

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
