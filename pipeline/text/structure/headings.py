"""Recognises headings. Knows single lines only: `blocks` and `reader` look at the lines around.

Precision matters more than recall: a missed heading costs a longer pause, a false one splits a chapter.
"""

import re
from dataclasses import dataclass

from pipeline.text.spoken.normalise import CHAPTER_WORDS, ROMAN, roman_value

TITLE_CHARS = 120
NEXT_TITLE_CHARS = 80

ONES = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth last"
TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
WORD_NUMBER = "|".join([*f"{ONES} eighteen nineteen".split(), *ORDINALS.split()])
WORD_NUMBER = rf"(?:(?:{TENS})(?:[ -](?:{WORD_NUMBER}))?|{WORD_NUMBER})"
NUMBER = rf"(?:\d{{1,4}}|[ivxlc]+|(?:the )?{WORD_NUMBER})"
NAMED = "prologue|epilogue|preface|introduction|foreword|afterword|appendix|conclusion|interlude|postscript"

CHAPTER = re.compile(
    rf"(?P<word>{CHAPTER_WORDS}|chap\.|vol\.) (?P<number>{NUMBER})\b(?P<mark> ?[.:—–-]+)? ?(?P<title>.*)", re.I
)
ALONE = re.compile(rf"(?P<word>{NAMED})(?: (?P<number>{NUMBER}|[a-z]))?(?:(?P<mark> ?[.:—–-]+) ?(?P<title>.*))?", re.I)
NUMERAL = re.compile(r"(?P<number>\d{1,3}|[IVXLC]+)(?:[.:)](?: (?P<title>.+))?)?")
MARKDOWN = re.compile(r"(?P<marks>#{1,3}) (?P<title>.*\w.*)")


@dataclass(frozen=True)
class Heading:
    """Headings in a row head one chapter if their levels differ, as a part's and a chapter's do."""

    level: str
    number: int | None = None  # of a bare numeral, which is a heading only in an unbroken row
    titled: bool = False


def parse_heading(line: str) -> Heading | None:
    """`line` as a heading, or None. Its white space must be collapsed."""
    if len(line) > TITLE_CHARS + 40:
        return None
    if markdown := MARKDOWN.fullmatch(line):
        return Heading(markdown["marks"], titled=True)
    line = line.strip("*_ ")
    if match := CHAPTER.fullmatch(line) or ALONE.fullmatch(line):
        return _parse_worded(match)
    if (match := NUMERAL.fullmatch(line)) and (not match["title"] or match["title"].isupper()):
        return _parse_numeral(match["number"], bool(match["title"]))
    return None


def _parse_worded(match: re.Match[str]) -> Heading | None:
    word, title = match["word"].lower().rstrip("."), match["title"]
    number = match["number"] or ""
    if re.fullmatch(r"[ivxlc]+", number, re.I) and not ROMAN.fullmatch(number):
        return None
    if not title:
        return Heading(word) if match[0][0].isupper() or word == "chapter" else None
    # "Chapter 3 was dull." and "Part I played" are prose: a title without a mark before it must be capitalised
    if not match[0][0].isupper() or not is_title(title) or not (match["mark"] or _is_capitalised(title)):
        return None
    return Heading(word, titled=True)


def _parse_numeral(number: str, titled: bool) -> Heading | None:
    if not number.isdigit() and not ROMAN.fullmatch(number):
        return None
    form = "number" if number.isdigit() else "roman"
    value = int(number) if number.isdigit() else roman_value(number)
    return Heading(f"titled {form}" if titled else form, value, titled)


def is_title(text: str) -> bool:
    """Whether the rest of a heading can be its title: capitalised, or not a sentence."""
    first = text.lstrip("\"'“‘_*([")[:1]
    if len(text) > TITLE_CHARS or not (first.isupper() or first.isdigit()):
        return False
    return _is_capitalised(text) or text[-1] not in ".!?,;:"


def is_title_block(text: str) -> bool:
    """Whether a block after a bare heading can be its title. Stricter than `is_title`: it may be prose."""
    plain = text.strip("_* ")
    if len(plain) > NEXT_TITLE_CHARS or not plain[:1].isupper() or not is_title(plain):
        return False
    return plain.isupper() or plain[-1] not in ".,;:—-"


def is_contents(line: str) -> bool:
    return bool(
        re.fullmatch(r"(#+ )?(table of contents|contents|(list of )?illustrations)[.:]?", line.strip("*_ "), re.I)
    )


def _is_capitalised(text: str) -> bool:
    words = re.findall(r"[^\W\d_]{4,}", text) or re.findall(r"[^\W\d_]+", text)
    return bool(words) and words[0][0].isupper() and sum(word[0].isupper() for word in words) * 2 >= len(words)
