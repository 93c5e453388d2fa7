"""Finds tables of contents, by their title or by headings that are repeated later. Knows blocks only."""

import re
from collections.abc import Iterable, Sequence

from pipeline.text.structure.blocks import TextBlock, is_prose
from pipeline.text.structure.headings import is_contents

PAGE_NUMBER = re.compile(r"(?:\s*(?:\.\s?){2,}|\s*…+|\s{2,}|\t)\s*(?:\d{1,4}|[ivxlc]{1,7})$")
ENTRY_CHARS = 120
UNTITLED_ENTRIES = 3  # repeated headings that make a table without a title; fewer may head one chapter
HEADING_LEVELS = 4  # over one chapter, at most: volume, book, part, chapter


def find_contents(blocks: Sequence[TextBlock]) -> list[TextBlock]:
    """The blocks of all tables of contents; `blocks` are the spoken blocks of a book."""
    keys = [entry_key(block.lines) for block in blocks]
    last = {key: i for i, key in enumerate(keys)}
    found: list[TextBlock] = []
    start = 0
    while start < len(blocks):
        titled = is_contents(blocks[start].text)
        end = start + titled
        while end < len(blocks) and (blocks[end].heading or titled and _is_entry(blocks, end, start, last[keys[end]])):
            end += 1
        restart = _count_restart(blocks[start:end])
        if not restart and end > start and blocks[end - 1].heading and last[keys[end - 1]] == end - 1:
            restart = 1  # it is not repeated later, so it heads the text after it
        entries = range(start, end - restart)
        repeated = sum(last[keys[i]] > i for i in entries)
        if len(entries) > 1 if titled else repeated >= UNTITLED_ENTRIES:
            found += blocks[start : end - restart]
        start = max(end, start + 1)
    return found


def entry_key(lines: Iterable[str]) -> str:
    """A key that an entry shares with its heading: the words, without punctuation, case and page number."""
    return " ".join(re.findall(r"\w+", " ".join(map(_strip_page_number, lines)).casefold()))


def _strip_page_number(line: str) -> str:
    match = PAGE_NUMBER.search(line, max(0, len(line) - ENTRY_CHARS))  # bounded: slow in a long line of prose
    return line[: match.start()] if match else line


def _is_entry(blocks: Sequence[TextBlock], i: int, title: int, last: int) -> bool:
    lines = blocks[i].lines
    if i == title + 1 and len(lines) > 1 and not is_prose(lines):
        return True
    return (len(lines) == 1 and last > i) or all(_strip_page_number(line) != line for line in lines)


def _count_restart(candidates: Sequence[TextBlock]) -> int:
    """How many of the last blocks repeat earlier neighbours: with these headings the book itself begins."""
    for size in range(min(HEADING_LEVELS, len(candidates) - 1), 0, -1):
        keys = [entry_key(lines) for block in candidates[:-size] for lines in _entries(block)]
        tail = [entry_key(block.lines) for block in candidates[-size:]]
        if any(keys[i : i + size] == tail for i in range(len(keys) - size + 1)):
            return size
    return 0


def _entries(block: TextBlock) -> list[tuple[str, ...]]:
    return [block.lines] if block.heading else [(line,) for line in block.lines]
