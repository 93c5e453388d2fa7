"""150 broken books, and what is no book at all."""

import os
from pathlib import Path
from random import Random

import pytest

from pipeline.config import EspeakConfig, GenerateConfig, TextConfig
from pipeline.data import NO_IDENTITY
from pipeline.dry_run import describe_plan
from pipeline.errors import UserError
from pipeline.plan import choose, make_plan, parameters
from pipeline.text.reader import read_book
from pipeline.text.segment import segment

from ..conftest import STORY
from ..text.test_reader import assert_covered_once
from ..text.test_segment import assert_sound
from .conftest import assert_planned_or_refused, damaged, one_line

START = "*** START OF THE PROJECT GUTENBERG EBOOK A TALE ***"
END = "*** END OF THE PROJECT GUTENBERG EBOOK A TALE ***"
PIECES = [
    *("word", "Mr.", "I.", "I", "II", "3", "²", "Ⅷ", "１２", "CHAPTER I", "PART ONE", "Contents", "The Sea   3"),
    *("# Sea", "[Illustration]", "[Illustration", "[1]", "[", "]", "(", "“", "”", "'", '"', START, END, "<!--", "-->"),
    *("* * *", "##", "_", "*", "=", "--", "—", "…", "...", ". . . ", "!", "?", ",", ";", "&", "@", "§", "°", "×"),
    *("\u202e", "\u200b", "\ufeff", "\u0300" * 50, "e\u0301", "שלום", "مرحبا", "ﷺ", "ß", "İ", "ŉ", "ﬃ", "𝕬", "👨"),
    *("\x00", "\x07", "\x1b[31m", "\x0c", "\x1c", "\x85", "\u2028", "\ufffd", "\u3000", "x" * 500, "word " * 100),
]
GAPS = ["", " ", "\n", "\n\n", "\r\n\r\n", "\r", "\t"]
ENCODINGS = [
    *("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-7"),
    *("cp1252", "mac_roman", "cp037", "koi8-r", "shift_jis", "gb18030"),
]
MARKS = [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"+/v8", b"\xef\xbb"]
MAGIC = [
    b"\x89PNG\r\n\x1a\n",
    b"PK\3\4",
    b"%PDF-1.7\n",
    b"\x1f\x8b\x08",
    b"RIFF\xff\xff\xff\xffWAVE",
    b"\x7fELF",
    b"GIF",
]


def tale_with_other_bytes(rng: Random) -> bytes:
    return damaged(STORY.encode(), rng)


def tale_in_another_encoding(rng: Random) -> bytes:
    """Often with a foreign byte-order mark, and cut inside a character."""
    text = STORY.encode(rng.choice(ENCODINGS), "replace")
    return rng.choice(MARKS) + text[rng.randrange(3) : len(text) - rng.randrange(4)]


def tale_in_another_order(rng: Random) -> bytes:
    lines = STORY.splitlines() * rng.randint(1, 30) + [START, END, *rng.sample(PIECES, 5)] * rng.randrange(3)
    rng.shuffle(lines)
    return "\n".join(lines).encode()


def odd_pieces(rng: Random) -> bytes:
    return "".join(rng.choice(PIECES) + rng.choice(GAPS) for _ in range(rng.randint(1, 300))).encode()


def the_same_again_and_again(rng: Random) -> bytes:
    """One or two pieces, some 10,000 characters of each."""
    units = [rng.choice(PIECES + GAPS[1:]) + rng.choice(GAPS) for _ in range(rng.randint(1, 2))]
    return "".join(unit * (rng.randint(1, 10_000) // len(unit)) for unit in units).encode()


def any_characters(rng: Random) -> bytes:
    """Of every plane; what UTF-8 has no bytes for is written as if it had."""
    blocks = [(32, 0x250), (0x300, 0x370), (0x590, 0x700), (0x2000, 0x2070), (0, 0xD800), (0xD7F0, 0x11_0000)]
    text = "".join(chr(rng.randrange(*rng.choice(blocks[: rng.choice([5, 6])]))) for _ in range(rng.randint(1, 2000)))
    return text.encode(errors="surrogatepass")


def another_kind_of_file(rng: Random) -> bytes:
    return rng.choice([*MAGIC, b""]) + rng.randbytes(rng.randrange(2000))


MAKERS = [
    *[tale_with_other_bytes, tale_in_another_encoding, tale_in_another_order, odd_pieces] * 2,
    *[the_same_again_and_again] * 4,
    *[any_characters, another_kind_of_file],
]


def broken_book(number: int) -> bytes:
    rng = Random(f"book {number}")
    return MAKERS[number % len(MAKERS)](rng)


@pytest.mark.parametrize("number", range(150))
def test_a_broken_book_is_spoken_whole_or_refused_in_one_line(number, tmp_path):
    speak_whole_or_refuse(tmp_path / "book.txt", broken_book(number), join_chars=number * 281 // 150)


ENORMOUS = {
    "an empty book": "\n" * 100_000,
    "a line": "x" * 300_000,
    "a sentence": "word " * 20_000,
    "a paragraph": "Oh! " * 5_000,
    "accents on one letter": "x" + "\u0301" * 50_000,
    "headings": "CHAPTER I\n\n" * 3_000,
    "numerals": "I\n" * 3_000,
    "tables of contents": "Contents\n\nCHAPTER I\n\n" * 3_000,
    "scene breaks": "* * *\n\nOh!\n\n" * 1_000,
    "captions never closed": "[Illustration: a [b " * 3_000,
    "comments": "<!---->" * 10_000,
    "Gutenberg's marks": f"{START}\n{END}\n" * 2_000,
}


@pytest.mark.parametrize("what", ENORMOUS)
def test_a_book_of_one_thing_without_end_takes_time_in_proportion(what, tmp_path):
    speak_whole_or_refuse(tmp_path / "book.txt", ENORMOUS[what].encode(), join_chars=200)


def speak_whole_or_refuse(path: Path, data: bytes, join_chars: int) -> None:
    path.write_bytes(data)
    config = GenerateConfig(str(path), engine=EspeakConfig(), text=TextConfig(join_chars=join_chars))
    try:
        book = read_book(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ") and one_line(error)
        return
    utterances = segment(book, config.text)
    assert_covered_once(book)
    assert_sound(book, utterances)
    assert describe_plan(
        book, choose(make_plan(utterances, parameters(NO_IDENTITY, config), config.plan.chars_per_second))
    )


@pytest.mark.parametrize("number", range(0, 150, 30))
def test_the_command_line_refuses_a_broken_book_in_one_line_and_writes_nothing(number, job, tmp_path):
    (tmp_path / "book.txt").write_bytes(broken_book(number))
    assert_planned_or_refused(job("generate", "book=book.txt", "engine=espeak", "dry_run=true"))
    assert os.listdir(tmp_path) == ["book.txt"]


@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
def test_a_byte_order_mark_is_told_by_its_encodings_name_and_the_way_out(encoding, tmp_path):
    (tmp_path / "book.txt").write_bytes(f"\ufeff{STORY}".encode(encoding))
    with pytest.raises(UserError, match=f"iconv -f {encoding} -t UTF-8"):
        read_book(tmp_path / "book.txt")


NO_FILES = ["absent", "folder", "pipe", "/dev/zero", "loop", "folder/pipe/x", "x" * 5000, "~", "''"]


@pytest.mark.parametrize("book", NO_FILES)
def test_what_is_no_file_is_refused_in_one_line(book, job, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    ended = job("generate", f"book={book}", "engine=espeak")
    assert ended.code == 2
    assert_planned_or_refused(ended)
