"""Splits text into blocks at blank lines; a block is prose, a heading, or unspoken for a reason.

Knows nothing of chapters. Every character that is not white space is in exactly one block.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pipeline.text.spoken.normalise import ILLUSTRATION, SYMBOLS, normalise
from pipeline.text.structure.headings import Heading, is_contents, is_title, is_title_block, parse_heading

LONG_LINE = 150  # a line as long as this means that lines are not wrapped: each is a paragraph
LIST_LINE = 60  # wrapped prose has longer lines

SILENCE_CHARS = 100  # shorter silences are joined to the words beside them

SCENE_BREAK = re.compile(r"(?:[*#~=_+•·⁂❦❧☙✻✽◆◇■□●○†‡§–—⸻-]\s*)+")
SILENCE = re.compile(rf"(?:{ILLUSTRATION.pattern}|[^\w{''.join(SYMBOLS)}]|_)+", re.IGNORECASE)


@dataclass(frozen=True)
class TextBlock:
    """`Book.text[start:end]` and its lines. `reason`: why it is not spoken; None if it is spoken."""

    start: int
    end: int
    lines: tuple[str, ...]
    heading: Heading | None
    reason: str | None

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.lines).split())


def find_blocks(text: str, start: int, end: int) -> list[TextBlock]:
    """The blocks of `text[start:end]`, in order."""
    blocks: list[TextBlock] = []
    for lines in _split_at_blank_lines(text, start, end):
        after_contents = bool(blocks) and is_contents(blocks[-1].text)
        for part, heading in _split_into_blocks(lines, after_contents):
            blocks += _cut_at_long_silence(text, _make_block(part, heading))
    return _merge_titles(_drop_stray_numerals(blocks))


@dataclass(frozen=True)
class Line:
    start: int
    text: str  # without white space at its ends


def _split_at_blank_lines(text: str, start: int, end: int) -> Iterator[list[Line]]:
    marks = iter(ILLUSTRATION.finditer(text, start, end))
    mark = next(marks, None)
    lines: list[Line] = []
    for raw in text[start:end].splitlines(keepends=True):
        while mark and mark.end() <= start:
            mark = next(marks, None)
        if stripped := raw.strip():
            lines.append(Line(start + raw.index(stripped), stripped))
        elif lines and not (mark and mark.start() < start):  # a caption may hold blank lines
            yield lines
            lines = []
        start += len(raw)
    if lines:
        yield lines


def _split_into_blocks(lines: Sequence[Line], after_contents: bool) -> Iterator[tuple[Sequence[Line], Heading | None]]:
    """Split lines without a blank one between them into blocks, each with its heading or None."""
    texts = [" ".join(line.text.split()) for line in lines]
    if after_contents and not is_prose(texts):
        yield lines, parse_heading(" ".join(texts))
        return
    unwrapped = max(map(len, texts)) >= LONG_LINE and not ILLUSTRATION.search(" ".join(texts))
    start = 0
    while start < len(lines):
        size, heading = (1, parse_heading(texts[start])) if unwrapped else _measure_first_block(texts, start)
        yield lines[start : start + size], heading
        start += size
        if start < len(lines) and is_contents(texts[start - 1]):
            yield from _split_into_blocks(lines[start:], after_contents=True)
            return


def _measure_first_block(texts: Sequence[str], start: int) -> tuple[int, Heading | None]:
    """How many lines from `start` on make one block, and its heading or None."""
    if is_contents(texts[start]):
        return 1, None
    first = parse_heading(texts[start])
    end = start + 1
    while end < len(texts) and not _starts_block(texts[end], texts[end - 1], first is not None):
        end += 1
    if first is None or first.level.startswith("#") or end == start + 1:
        return (end - start if first is None else 1), first
    if heading := parse_heading(" ".join(texts[start:end])):
        return end - start, heading
    if is_title(" ".join(texts[start + 1 : end])):
        return end - start, replace(first, titled=True)
    return 1, first


def _starts_block(line: str, before: str, in_list: bool) -> bool:
    is_break = bool(SCENE_BREAK.fullmatch(line))
    return is_break != bool(SCENE_BREAK.fullmatch(before)) or (in_list and parse_heading(line) is not None)


def is_prose(lines: Sequence[str]) -> bool:
    return parse_heading(lines[0]) is None and max(map(len, lines)) > LIST_LINE and lines[-1][-1] in ".!?\"'”’"


def _make_block(lines: Sequence[Line], heading: Heading | None) -> TextBlock:
    end = lines[-1].start + len(lines[-1].text)
    block = TextBlock(lines[0].start, end, tuple(line.text for line in lines), heading, None)
    return block if normalise(block.text) else replace(block, heading=None, reason=_unspoken_reason(block.text))


def _cut_at_long_silence(text: str, block: TextBlock) -> list[TextBlock]:
    """Cut a paragraph at each long rule or caption inside it, which becomes an unspoken block."""
    cuts = [block.start]
    for silence in SILENCE.finditer(text, block.start, block.end) if not (block.heading or block.reason) else ():
        if len(silence[0]) >= SILENCE_CHARS and len(" ".join(silence[0].split())) >= SILENCE_CHARS:
            cuts += silence.span()
    if len(cuts) == 1:
        return [block]
    spans = [(start, text[start:end]) for start, end in pairwise([*cuts, block.end])]
    return [
        _make_block([Line(start + raw.index(raw.strip()), raw.strip())], None) for start, raw in spans if raw.strip()
    ]


def _unspoken_reason(text: str) -> str:
    if SCENE_BREAK.fullmatch(text):
        return "scene break"
    return "illustration" if ILLUSTRATION.search(text) else "nothing to speak"


def _drop_stray_numerals(blocks: Sequence[TextBlock]) -> list[TextBlock]:
    """Bare numerals are headings only in an unbroken row 1, 2, …; the others lose their heading.

    They may be page numbers or years.
    """
    followed = {block.heading.level: i for i, block in enumerate(blocks) if block.heading and block.heading.number == 2}
    last: dict[str, int] = {}
    kept = []
    for i, block in enumerate(blocks):
        heading = block.heading
        if heading and heading.number is not None:
            first = heading.number == 1 and i < followed.get(heading.level, -1)
            if first or heading.number == last.get(heading.level, -1) + 1:
                last[heading.level] = heading.number
            else:
                block = replace(block, heading=None)
        kept.append(block)
    return kept


def _merge_titles(blocks: Sequence[TextBlock]) -> list[TextBlock]:
    """Merge "CHAPTER I", a blank line, and "Down the Rabbit-Hole" into one heading."""
    merged: list[TextBlock] = []
    for block in blocks:
        before = merged[-1] if merged else None
        is_title_of = before and before.heading and not before.heading.titled and not (block.heading or block.reason)
        if is_title_of and len(block.lines) == 1 and is_title_block(block.text):
            heading = replace(before.heading, titled=True)
            merged[-1] = TextBlock(before.start, block.end, before.lines + block.lines, heading, None)
        else:
            merged.append(block)
    return merged
