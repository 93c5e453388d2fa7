"""From a book to its utterances."""

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.config import TextConfig
from pipeline.data import Utterance
from pipeline.text import Book, ParagraphKind
from pipeline.text.reader import read_book
from pipeline.text.segment import segment
from pipeline.text.spoken.normalise import normalise

ALICE = Path(__file__).parents[3] / "shared" / "books" / "alice.txt"


@pytest.fixture
def read(tmp_path):
    def read(text: str) -> Book:
        path = tmp_path / "tale.txt"
        path.write_bytes(text.encode(errors="ignore").replace(b"\0", b""))
        return read_book(path)

    return read


def texts(book: Book, join_chars: int = 0) -> list[str]:
    return [utterance.text for utterance in segment(book, TextConfig(join_chars=join_chars))]


def is_short(text: str) -> bool:
    return len(text) < 20 or len(text.split()) < 3


def assert_sound(book: Book, utterances: list[Utterance]) -> None:
    """Nothing lost, nothing too long, and short only what stands alone."""
    of_paragraph = defaultdict(list)
    for utterance in utterances:
        of_paragraph[utterance.chapter, utterance.paragraph].append(utterance)
        cut = book.text[utterance.char_start : utterance.char_end]
        assert cut == cut.strip() and utterance.text == " ".join(cut.split())
        assert utterance.spoken_text == normalise(utterance.text) != ""
        assert len(utterance.text) <= 280 and len(utterance.spoken_text) <= 280
    assert utterances == sorted(utterances, key=lambda utterance: utterance.char_start)
    for chapter in book.chapters:
        for number, paragraph in enumerate(chapter.paragraphs):
            pieces = of_paragraph.pop((chapter.number, number), [])
            text = "" if paragraph.kind is ParagraphKind.SCENE_BREAK else book.text[paragraph.start : paragraph.end]
            assert "".join("".join(piece.text for piece in pieces).split()) == "".join(text.split())
            if len(pieces) > 1 and max(map(len, text.split())) <= 40:
                assert not any(is_short(piece.text) for piece in pieces)
    assert not of_paragraph


WORDS = st.sampled_from(
    "incomprehensibility ﬃ e\u0301\u0301 & & & ………… —————————— a to the Alice dog. cat, well! why? “Oh dear! yes.” "
    "(Mr. Dr. I. e.g. and but which; that: time—or… ... & = *x* _so_ [Illustration] [1] NASA SHOUT $5 “ ” ’ --".split()
)
PARAGRAPHS = st.lists(WORDS | st.text(max_size=12), min_size=1, max_size=160).map(" ".join)
MONSTERS = st.sampled_from(
    ["x" * 700, "e\u0301" * 400, "&" * 300, "no-" * 200, "a " + "…" * 90 + "b" * 279, "[1]" * 200]
)


@pytest.mark.parametrize("join_chars", [0, 200, 280])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paragraphs=st.lists(PARAGRAPHS | MONSTERS, min_size=1, max_size=3))
def test_nothing_is_lost_too_long_or_needlessly_short(read, join_chars, paragraphs):
    book = read("\n\n".join(["Once upon a time.", *paragraphs]))
    assert_sound(book, segment(book, TextConfig(join_chars=join_chars)))


MARKS = "&@§×#_=…—“’[]ßİ2²I\n\t\u2028\u202e\u200b\u0301"
UNITS = st.sampled_from(
    [*MARKS, *"* * |## |. . . |[1]|[Illustration]|a.|Oh! |# Sea\n\n|CHAPTER I\n\n|e\u0301|שלום".split("|")]
)
GAPS = st.sampled_from(["", " ", "\n"])
RUNS = st.tuples(UNITS, GAPS, st.integers(1, 300)).map(lambda run: (run[0] + run[1]) * run[2])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(RUNS | UNITS | WORDS | st.text(max_size=400), max_size=12), join_chars=st.integers(0, 280))
@example(parts=["\u202e\n" * 300, "&\n" * 200], join_chars=200)  # silence before what is spoken but no letter
@example(parts=["## " * 200, "ß " * 300], join_chars=200)  # silence in what might be a heading
@example(parts=["* " * 400, "I\n" * 3], join_chars=200)
@example(parts=["Section İ, part ı."], join_chars=0)  # letters that are an I when case is ignored
def test_any_text_is_spoken_whole_and_in_order_at_any_limit(read, parts, join_chars):
    book = read("".join(["Once upon a time.\n\n", *parts]))
    utterances = segment(book, TextConfig(join_chars=join_chars))
    assert_sound(book, utterances)
    of_chapter = Counter(utterance.chapter for utterance in utterances)
    ids = [f"tale-{chapter:03d}-{i:05d}" for chapter in sorted(of_chapter) for i in range(of_chapter[chapter])]
    assert [utterance.id for utterance in utterances] == ids


@pytest.mark.skipif(not ALICE.exists(), reason="the shared books are not there")
@pytest.mark.parametrize("join_chars", [0, 200, 280])
def test_alice_in_wonderland_is_whole(join_chars):
    book = read_book(ALICE)
    assert [chapter.number for chapter in book.chapters] == list(range(13))
    assert book.chapters[1].title == "CHAPTER I. Down the Rabbit-Hole"
    assert [span.reason for span in book.unspoken] == ["illustration", "table of contents", *["scene break"] * 3]
    utterances = segment(book, TextConfig(join_chars=join_chars))
    assert_sound(book, utterances)
    assert utterances[3].spoken_text == "Chapter 1. Down the Rabbit-Hole."
    assert all(normalise(utterance.spoken_text) == utterance.spoken_text for utterance in utterances)


def test_an_utterance_knows_its_place(read):
    book = read(
        "A tale of two lines.\n\nCHAPTER I\n\nHe came home\nlate that day. She had gone away by then.\n\n"
        "* * *\n\nThey met again.\n"
    )
    utterances = segment(book, TextConfig(join_chars=0))
    assert [(u.id, u.chapter, u.chapter_title, u.index, u.paragraph) for u in utterances] == [
        ("tale-000-00000", 0, "", 0, 0),
        ("tale-001-00000", 1, "CHAPTER I", 0, 0),
        ("tale-001-00001", 1, "CHAPTER I", 1, 1),
        ("tale-001-00002", 1, "CHAPTER I", 2, 1),
        ("tale-001-00003", 1, "CHAPTER I", 3, 3),
    ]


def test_each_boundary_has_its_pause(read):
    long = "It went on and on; " * 16
    book = read(
        f"CHAPTER I\n\nHe came home late that day. She had gone away by then.\n\n{long}\n\n* * *\n\nThey met again.\n"
    )
    options = TextConfig(0, 1, 2, 3, 4, 5, 6)
    pauses = [utterance.pause_after_s for utterance in segment(book, options)]
    heading, sentence, paragraph, *clauses, scene, chapter = pauses
    assert (heading, sentence, paragraph, scene, chapter) == (4, 2, 3, 5, 6)
    assert clauses and set(clauses) == {1}


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "Mr. Smith met Dr. J. R. Brown at St. Mary’s. They talked all day long.",
            ["Mr. Smith met Dr. J. R. Brown at St. Mary’s.", "They talked all day long."],
        ),
        (
            "“Well!” thought Alice to herself. “I never did!” she said.",
            ["“Well!” thought Alice to herself.", "“I never did!” she said."],
        ),
        (
            "“How late it is getting!” He ran as fast as he could.",
            ["“How late it is getting!”", "He ran as fast as he could."],
        ),
        (
            "(It was very likely true.) Nobody knew it for certain.",
            ["(It was very likely true.)", "Nobody knew it for certain."],
        ),
        (
            "She asked him, “Will you come?”, holding her hand up.",
            ["She asked him, “Will you come?”, holding her hand up."],
        ),
        (
            "We brought bread, cheese, etc. and went on our way.",
            ["We brought bread, cheese, etc. and went on our way."],
        ),
        (
            "Play No. 5 once more for us. Then we shall go home.",
            ["Play No. 5 once more for us.", "Then we shall go home."],
        ),
    ],
)
def test_sentences_end_where_a_reader_would_stop(read, text, sentences):
    assert texts(read(text)) == sentences


def test_neighbours_are_joined_up_to_the_limit_and_never_across_paragraphs(read):
    sentence = "The quick brown fox jumped over the lazy dog."  # 45 characters
    book = read(f"{sentence} {sentence} {sentence}\n\n{sentence}")
    assert texts(book, 0) == [sentence] * 4
    assert texts(book, 91) == [f"{sentence} {sentence}", sentence, sentence]
    assert texts(book, 90) == [sentence] * 4


def test_short_pieces_join_a_neighbour_whatever_the_limit(read):
    assert texts(read("No! He would not go home with them. Never.")) == ["No! He would not go home with them. Never."]
    assert texts(read("“No.”\n\n“Why not?”")) == ["“No.”", "“Why not?”"]


def test_a_short_piece_beside_a_full_one_shares_its_words(read):
    full = "word " * 54 + "word."
    pieces = texts(read(f"{full} Never."))
    assert len(pieces) == 2 and min(map(len, pieces)) > 100


@pytest.mark.parametrize(("mark", "end"), [(";", ";"), (":", ":"), (" —", "—"), (",", ","), (" and", "word")])
def test_a_long_sentence_is_cut_at_its_best_mark(read, mark, end):
    half = "word " * 34 + "word"
    first, second = texts(read(f"{half}{mark} {half}."))
    assert first.endswith(end) and abs(len(first) - len(second)) < 10


def test_a_clause_mark_near_the_middle_goes_before_a_comma_nearer(read):
    sentence = "word " * 25 + "word; word word word word, " + "word " * 30 + "word."
    assert texts(read(sentence))[0].endswith(";")


def test_an_illustration_mark_is_never_cut(read):
    text = (
        "He walked along, and saw a house. " * 7
        + "[Illustration: A house. It is, by all means, old; very.] "
        + "It fell down. " * 9
    )
    utterances = segment(read(text), TextConfig(join_chars=0))
    assert not any(re.search("old|means", utterance.spoken_text) for utterance in utterances)
