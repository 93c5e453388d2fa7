"""From a text file to a `Book`: its chapters and its unspoken spans. Knows nothing of sentences or speech.

Every character that is not white space is in exactly one heading or prose paragraph, or in exactly one unspoken span
outside them. Scene breaks, and illustration marks inside a paragraph, are listed as unspoken too.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from pipeline.data import Unspoken
from pipeline.errors import UserError
from pipeline.text import Book, Chapter, Paragraph, ParagraphKind
from pipeline.text.formats.plain import read_text
from pipeline.text.spoken.normalise import ILLUSTRATION
from pipeline.text.structure.blocks import TextBlock, find_blocks
from pipeline.text.structure.contents import entry_key, find_contents
from pipeline.text.structure.headings import Heading

NAME_BYTES = 80  # leaves room for the rest of a WAV's file name, in any alphabet

GUTENBERG_START = re.compile(r"\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG[^*]{0,300}\*\*\*", re.IGNORECASE)
GUTENBERG_END = re.compile(r"\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG", re.IGNORECASE)


def read_book(path: str | Path) -> Book:
    """Read a plain text file; `UserError` if it cannot be read or has nothing to speak."""
    path = Path(path)
    text = read_text(path)
    notices, start, end = _split_off_notices(text)
    blocks = _classify(find_blocks(text, start, end))
    chapters = tuple(_build_chapters(blocks))
    if not chapters:
        raise UserError(f"{path}: nothing in it can be spoken; give a text file with words in it")
    unspoken = sorted([*notices, *_find_unspoken(text, blocks)], key=lambda span: span.start)
    return Book(name_book(path), text, chapters, tuple(unspoken))


def name_book(path: str | Path) -> str:
    """A book's name, by its file's, fit to be part of a file's name."""
    name = re.sub(r"[^\w.]+", "-", unicodedata.normalize("NFC", Path(path).stem))
    return name.strip("-.").encode()[:NAME_BYTES].decode(errors="ignore").strip("-.") or "book"


def _split_off_notices(text: str) -> tuple[list[Unspoken], int, int]:
    """Project Gutenberg's notices before and after the book, and the book's start and end."""
    start, end = 0, len(text)
    notices = []
    if match := GUTENBERG_START.search(text):
        start = match.end()
        notices.append(_strip_span(text, 0, start, "Project Gutenberg notice"))
    if match := GUTENBERG_END.search(text, start):
        end = match.start()
        notices.append(_strip_span(text, end, len(text), "Project Gutenberg notice"))
    return notices, start, end


def _strip_span(text: str, start: int, end: int, reason: str) -> Unspoken:
    stripped = text[start:end].strip()
    start = text.index(stripped, start)
    return Unspoken(start, start + len(stripped), reason)


def _classify(blocks: Iterable[TextBlock]) -> list[TextBlock]:
    """Mark the table of contents as unspoken, and lines that repeat one of its entries as headings."""
    blocks = list(blocks)
    contents = find_contents([block for block in blocks if not block.reason])
    listed = {block.start for block in contents}
    named = {entry_key([line]) for block in contents for line in block.lines}
    entry = Heading("entry", titled=True)
    classified = []
    for block in blocks:
        if block.start in listed:
            block = replace(block, heading=None, reason="table of contents")
        elif not (block.heading or block.reason) and len(block.lines) == 1 and entry_key(block.lines) in named:
            block = replace(block, heading=entry)
        classified.append(block)
    return classified


@dataclass
class Draft:
    """A chapter while blocks are added to it."""

    paragraphs: list[Paragraph] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    levels: set[str] = field(default_factory=set)
    has_prose: bool = False

    def accepts(self, heading: Heading) -> bool:
        """Whether `heading` joins this chapter: "Part I" and "Chapter 1" share one, two chapter headings do not."""
        return bool(self.titles) and not self.has_prose and heading.level not in self.levels


def _build_chapters(blocks: Iterable[TextBlock]) -> Iterator[Chapter]:
    drafts = [Draft()]
    for reason, group in groupby(blocks, key=lambda block: block.reason):
        members = list(group)
        if reason == "scene break":
            drafts[-1].paragraphs.append(Paragraph(members[0].start, members[-1].end, ParagraphKind.SCENE_BREAK))
        for block in members if reason is None else ():
            _add_block(drafts, block)
    if drafts[0].has_prose:
        yield Chapter(0, "", tuple(drafts[0].paragraphs))
    for number, draft in enumerate(drafts[1:], 1):
        yield Chapter(number, _join_titles(draft.titles), tuple(draft.paragraphs))


def _add_block(drafts: list[Draft], block: TextBlock) -> None:
    if block.heading is None:
        drafts[-1].paragraphs.append(Paragraph(block.start, block.end, ParagraphKind.PROSE))
        drafts[-1].has_prose = True
        return
    if not drafts[-1].accepts(block.heading):
        drafts.append(Draft())
    drafts[-1].paragraphs.append(Paragraph(block.start, block.end, ParagraphKind.HEADING))
    drafts[-1].titles.append(block.text.strip("#*_ "))
    drafts[-1].levels.add(block.heading.level)


def _join_titles(titles: Iterable[str]) -> str:
    return " ".join(title if title[-1] in ".:!?—" else f"{title}." for title in titles).removesuffix(".")


def _find_unspoken(text: str, blocks: Iterable[TextBlock]) -> Iterator[Unspoken]:
    for reason, group in groupby(blocks, key=lambda block: block.reason):
        members = list(group)
        if reason is not None:
            yield Unspoken(members[0].start, members[-1].end, reason)
            continue
        for block in members:
            for mark in ILLUSTRATION.finditer(text, block.start, block.end):
                yield Unspoken(mark.start(), mark.end(), "illustration")
