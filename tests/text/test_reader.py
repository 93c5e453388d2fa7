"""From a file to a book."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.text import Book, ParagraphKind
from pipeline.text.reader import read_book

PROSE = "It was late, and nobody had come.\nSo he went home again.\n\n"


def write(folder: Path, text: str | bytes, name: str = "tale.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def read(tmp_path):
    return lambda text: read_book(write(tmp_path, text))


def titles(book: Book) -> list[tuple[int, str]]:
    return [(chapter.number, chapter.title) for chapter in book.chapters]


def spoken_paragraphs(book: Book) -> list[str]:
    paragraphs = [p for chapter in book.chapters for p in chapter.paragraphs if p.kind is not ParagraphKind.SCENE_BREAK]
    return [" ".join(book.text[p.start : p.end].split()) for p in paragraphs]


def unspoken(book: Book) -> list[tuple[str, str]]:
    return [(span.reason, " ".join(book.text[span.start : span.end].split())) for span in book.unspoken]


def assert_covered_once(book: Book) -> None:
    """Every visible character is in one heading or prose paragraph, or in one unspoken span outside them."""
    spoken = [p for chapter in book.chapters for p in chapter.paragraphs if p.kind is not ParagraphKind.SCENE_BREAK]
    inside = {i for p in spoken for i in range(p.start, p.end)}
    spans = [(p.start, p.end) for p in spoken] + [(u.start, u.end) for u in book.unspoken if u.start not in inside]
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))
    covered = "".join(book.text[start:end] for start, end in spans)
    assert "".join(covered.split()) == "".join(book.text.split())


@pytest.mark.parametrize(
    ("heading", "title"),
    [
        ("CHAPTER I.\nDown the Rabbit-Hole", "CHAPTER I. Down the Rabbit-Hole"),
        ("CHAPTER I\n\nDown the Rabbit-Hole", "CHAPTER I Down the Rabbit-Hole"),
        ("Chapter 12: The Storm", "Chapter 12: The Storm"),
        ("Chapter One", "Chapter One"),
        ("CHAPTER TWENTY-ONE. In Which Nothing Happens", "CHAPTER TWENTY-ONE. In Which Nothing Happens"),
        ("BOOK THE FIRST", "BOOK THE FIRST"),
        ("STAVE I.\n\nMARLEY’S GHOST.", "STAVE I. MARLEY’S GHOST"),
        ("Letter 4", "Letter 4"),
        ("PROLOGUE", "PROLOGUE"),
        ("Appendix B", "Appendix B"),
        ("# The Storm", "The Storm"),
        ("_Chapter 3_", "Chapter 3"),
    ],
)
def test_a_heading_starts_a_chapter_and_is_spoken(read, heading, title):
    book = read(PROSE + heading + "\n\n" + PROSE)
    assert titles(book) == [(0, ""), (1, title)]
    first = book.chapters[1].paragraphs[0]
    assert (first.kind, book.text[first.start : first.end]) == (ParagraphKind.HEADING, heading)


@pytest.mark.parametrize(
    "prose",
    [
        "Chapter 3 was dull.",
        "Chapter 3. It was dull, and he fell asleep.",
        "Part I played, part I did not.",
        "“I.”",
        "I.",
        "1984",
        "Conclusion of the matter",
        "Part of it was missing.",
        "Book me a room",
        "Letter by letter",
        "#5 is alive",
    ],
)
def test_prose_that_begins_like_a_heading_is_prose(read, prose):
    book = read(PROSE + prose + "\n\n" + PROSE)
    assert titles(book) == [(0, "")]
    assert prose in spoken_paragraphs(book)


def test_bare_numerals_are_headings_when_they_count(read):
    assert titles(read(f"I\n\n{PROSE}II\n\n{PROSE}1888\n\n{PROSE}III\n\n{PROSE}")) == [(1, "I"), (2, "II"), (3, "III")]
    tales = f"I. A SCANDAL IN BOHEMIA\n\n{PROSE}II. THE RED-HEADED LEAGUE\n\n{PROSE}"
    assert titles(read(tales)) == [(1, "I. A SCANDAL IN BOHEMIA"), (2, "II. THE RED-HEADED LEAGUE")]


def test_a_part_and_its_first_chapter_head_one_chapter(read):
    book = read(f"PART ONE\n\nCHAPTER I\nThe Sea\n\n{PROSE}CHAPTER II\n\n{PROSE}PART TWO\n\nCHAPTER I\n\n{PROSE}")
    assert titles(book) == [(1, "PART ONE. CHAPTER I The Sea"), (2, "CHAPTER II"), (3, "PART TWO. CHAPTER I")]
    assert [p.kind for p in book.chapters[0].paragraphs[:2]] == [ParagraphKind.HEADING, ParagraphKind.HEADING]


def test_prose_right_under_a_heading_is_not_its_title(read):
    book = read("CHAPTER I.\nHe was tired, and so he\nwent to bed.\n")
    assert titles(book) == [(1, "CHAPTER I")]
    assert spoken_paragraphs(book) == ["CHAPTER I.", "He was tired, and so he went to bed."]


@pytest.mark.parametrize(
    "contents",
    [
        "Contents\n\n CHAPTER I.     The Sea\n CHAPTER II.    The Land\n",
        "TABLE OF CONTENTS\nCHAPTER I. The Sea ........ 3\nCHAPTER II. The Land ....... 17\n",
        "Contents\n\nCHAPTER I. The Sea\n\nCHAPTER II. The Land\n",
        "Contents\n\nThe Sea   3\nThe Land  17\n",
    ],
)
def test_a_table_of_contents_is_not_spoken(read, contents):
    book = read(f"A Tale\n\n{contents}\n\nCHAPTER I.\nThe Sea\n\n{PROSE}CHAPTER II.\nThe Land\n\n{PROSE}")
    assert titles(book) == [(0, ""), (1, "CHAPTER I. The Sea"), (2, "CHAPTER II. The Land")]
    assert unspoken(book) == [("table of contents", " ".join(contents.split()))]


def test_a_table_of_contents_without_a_title_or_with_parts_is_known_by_what_comes_again(read):
    parts = ["PART ONE", "CHAPTER I", "CHAPTER II", "PART TWO", "CHAPTER I", "CHAPTER II"]
    body = "".join(f"{head}\n\n" + (PROSE if "CHAPTER" in head else "") for head in parts)
    book = read("\n\n".join(parts) + "\n\n" + body)
    assert titles(book) == [
        (1, "PART ONE. CHAPTER I"),
        (2, "CHAPTER II"),
        (3, "PART TWO. CHAPTER I"),
        (4, "CHAPTER II"),
    ]
    assert unspoken(book) == [("table of contents", " ".join(parts))]


def test_titles_that_the_contents_name_are_headings(read):
    book = read(f"Contents\n\nThe Sea\nThe Land\n\nThe Sea\n\n{PROSE}The Land\n\n{PROSE}")
    assert titles(book) == [(1, "The Sea"), (2, "The Land")]


def test_a_dedication_after_the_contents_is_spoken(read):
    dedication = "For my mother, who waited."
    book = read(f"Contents\n\nCHAPTER I\n\nCHAPTER II\n\n{dedication}\n\nCHAPTER I\n\n{PROSE}CHAPTER II\n\n{PROSE}")
    assert dedication in spoken_paragraphs(book)
    assert len(book.chapters) == 3


def test_project_gutenbergs_notices_are_not_spoken(read):
    start = "*** START OF THE PROJECT GUTENBERG EBOOK A TALE ***"
    end = "*** END OF THE PROJECT GUTENBERG EBOOK A TALE ***"
    book = read(f"Title: A Tale\n\n{start}\n\n{PROSE}{end}\n\nCHAPTER I of the licence\n")
    assert spoken_paragraphs(book) == [" ".join(PROSE.split())]
    assert [reason for reason, _ in unspoken(book)] == ["Project Gutenberg notice"] * 2
    assert_covered_once(book)


@pytest.mark.parametrize("mark", ["* * *", "***", "---", "#", "~", "• • •", "⁂", "*  *\n\n  *  *\n\n*  *", "———"])
def test_a_scene_break_is_one_pause_and_not_spoken(read, mark):
    book = read(f"{PROSE}{mark}\n\n{PROSE}")
    assert [p.kind for p in book.chapters[0].paragraphs] == [
        ParagraphKind.PROSE,
        ParagraphKind.SCENE_BREAK,
        ParagraphKind.PROSE,
    ]
    assert unspoken(book) == [("scene break", " ".join(mark.split()))]


def test_a_scene_break_needs_no_blank_lines(read):
    book = read("He left.\n* * *\nShe came.\n")
    assert spoken_paragraphs(book) == ["He left.", "She came."]


def test_illustrations_and_mere_marks_are_not_spoken(read):
    book = read(f"[Illustration]\n\n[Illustration:\n\nA fine\n\ncaption]\n\n?!\n\nHe saw [Illustration] it.\n\n{PROSE}")
    assert unspoken(book) == [
        ("illustration", "[Illustration] [Illustration: A fine caption]"),
        ("nothing to speak", "?!"),
        ("illustration", "[Illustration]"),
    ]
    assert spoken_paragraphs(book)[0] == "He saw [Illustration] it."
    assert_covered_once(book)


def test_lines_that_are_not_wrapped_are_paragraphs(read):
    line = "This line goes on and on. " * 8
    book = read(f"CHAPTER 1\n{line}\n“Yes.”\n{line}\nCHAPTER 2\n{line}")
    assert titles(book) == [(1, "CHAPTER 1"), (2, "CHAPTER 2")]
    assert [len(chapter.paragraphs) for chapter in book.chapters] == [4, 2]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_any_line_end_and_a_byte_order_mark_will_do(read, newline, mark):
    text = f"CHAPTER I.\nThe Sea\n\n{PROSE}".replace("\n", newline)
    book = read(mark + text)
    assert book.text == text
    assert titles(book) == [(1, "CHAPTER I. The Sea")]
    assert len(book.chapters[0].paragraphs) == 2


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("alice", "alice"),
        ("My Book (2nd ed.)", "My-Book-2nd-ed"),
        ("..a/b".replace("/", ":"), "a-b"),
        ("e\u0301te\u0301", "été"),
        ("!!!", "book"),
        ("战" * 60, "战" * 26),
    ],
)
def test_the_name_is_safe_in_file_names(tmp_path, stem, name):
    assert read_book(write(tmp_path, PROSE, f"{stem}.txt")).name == name


ENGLISH = "“It’s late,” he said — and it was. Café.\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", ["is empty"]),
        (b"\xef\xbb\xbf \n\t\r\n", ["is empty"]),
        (b"* * *\n\n[Illustration]\n", ["nothing in it can be spoken"]),
        (ENGLISH.encode("cp1252"), ["byte 0x93 at offset 0", "looks like CP1252", "iconv -f CP1252 -t UTF-8"]),
        (ENGLISH.encode("mac_roman"), ["byte 0xd2 at offset 0", "looks like MACINTOSH"]),
        (b"abc " + "né".encode() * 9 + b"\xff", ["byte 0xff at offset 31", "damaged"]),
        (ENGLISH.encode("utf-16"), ["looks like UTF-16LE"]),
        (ENGLISH.encode("utf-16-le"), ["looks like UTF-16LE"]),
        (ENGLISH.encode("utf-16-be"), ["looks like UTF-16BE"]),
        (b"some text\0\0\0\1 and more", ["binary", "offset 9"]),
        (b"%PDF-1.7\n", ["PDF"]),
        (b"\x7fELF\2\1", ["a program"]),
        (b"\x89PNG\r\n", ["PNG"]),
        (b"PK\3\4" + b"\0" * 30 + b"mimetypeapplication/epub+zip", ["EPUB"]),
        (b"PK\3\4" + b"\0" * 30 + b"word/document.xml", ["DOCX"]),
        (b"\n<!DOCTYPE html><html><p>Hello</p></html>", ["HTML", "only plain text"]),
    ],
)
def test_a_file_that_is_no_book_is_refused_in_one_line_that_says_why(tmp_path, data, says):
    path = write(tmp_path, data)
    with pytest.raises(UserError) as caught:
        read_book(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert all(part in message for part in says), message


def test_a_missing_file_a_folder_and_a_locked_file_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="absent.txt: no such file"):
        read_book(tmp_path / "absent.txt")
    with pytest.raises(UserError, match="this is a folder"):
        read_book(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", deny)  # root may read everything
    with pytest.raises(UserError, match="no permission"):
        read_book(write(tmp_path, PROSE))


def deny(path: Path) -> bytes:
    raise PermissionError(13, "Permission denied")


BLOCKS = st.sampled_from(
    [
        *("CHAPTER I.\nThe Sea", "CHAPTER II", "PART ONE", "Contents", "I", "II", "3", "# Sea", "PROLOGUE", "The Sea"),
        *(
            "* * *",
            "---",
            "[Illustration]",
            "[Illustration: a\n\nb]",
            "He [Illustration: x] went.",
            "?!",
            "[Illustration",
        ),
        *(
            "It was late. He\nwent home.",
            "“Yes,” he said.",
            "word " * 60,
            "…" * 150,
            "a" + "-" * 300 + "b",
            "The Sea   3",
        ),
    ]
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(BLOCKS | st.text(max_size=40), max_size=14), st.sampled_from(["\n\n", "\n", "\r\n\r\n"]))
def test_every_visible_character_is_spoken_or_listed_once(tmp_path, blocks, gap):
    path = write(tmp_path, gap.join(["Once upon a time.", *blocks]).replace("\0", "").encode(errors="ignore"))
    assert_covered_once(read_book(path))
