"""What the model is given."""

import ast
import importlib.util
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.text.spoken.normalise import normalise, punc_norm


def stock_punc_norm() -> Callable[[str], str]:
    """Stock Chatterbox's function, out of its source: importing the package takes ten seconds."""
    spec = importlib.util.find_spec("chatterbox")
    source = (Path(spec.submodule_search_locations[0]) / "tts.py").read_text()
    function = next(node for node in ast.parse(source).body if getattr(node, "name", "") == "punc_norm")
    names: dict = {}
    exec(compile(ast.Module([function], []), "tts.py", "exec"), names)
    return names["punc_norm"]


STOCK = stock_punc_norm()
PUNCTUATED = st.text(st.sampled_from("aB1 é\n\t.,;:!?…—–-\"'“”‘’()[]_*#"), min_size=1)


@given(st.text(min_size=1) | PUNCTUATED)
@example(" ")
@example("“Well!”")
def test_punc_norm_is_the_stock_function(text):
    assert punc_norm(text) == STOCK(text)


@given(st.text() | PUNCTUATED)
def test_the_stock_function_has_nothing_left_to_do(text):
    result = normalise(text)
    assert result == "" or STOCK(result) == result


@given(st.text() | PUNCTUATED | st.text(st.sampled_from("ACHPTERIVX .[illustration]5*_=&…-")))
def test_the_model_is_never_given_what_it_takes_for_noise_or_a_command(text):
    result = normalise(text)
    assert not set(result) & set("*#~^|\\<>{}[]_@`•§¶†‡©®™\u200b\ufeff\xad\n\t")
    assert "  " not in result and result == result.strip()
    assert result == "" or any(char.isalnum() for char in result)


@given(st.text(st.sampled_from("*#~-–—_=•…!?. \n“”")))
def test_what_has_no_letter_or_digit_is_not_spoken(text):
    assert normalise(text) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There was nothing so _very_ remarkable", "There was nothing so very remarkable."),
        ("*so* **very** __remarkable__", "So very remarkable."),
        ("the file_name is 5 * 3 = 15", "The file name is 5 times 3 equals 15."),
        ("## The *End*", "The End."),
        ("[sigh] well", "Sigh well."),
        ("was so[12] and so.[3]", "Was so and so."),
        ("before [Illustration: “Off with her [head]!”] after", "Before after."),
        ("Tom & Jerry", "Tom and Jerry."),
        ("ﬁne cœur Cæsar", "Fine coeur Caesar."),
        ("e\u0301te\u0301 so\xadft zero\u200bwidth\x07", "Été soft zerowidth."),
        ("hard-\nwrapped\r\n  lines", "Hard- wrapped lines."),
        ("It cost $5, £6 or 7%.", "It cost $5, £6 or 7%."),
        ("at 3:30", "At 3 30."),
        ("ok 😀 then", "Ok then."),
    ],
)
def test_marks_are_read_as_a_narrator_would(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wait. . . no.... yes… !", "Wait, no, yes!"),
        ("he said:—“No”", 'He said, "No".'),
        ("time--or so", "Time-or so."),
        ("one — two ; three : four", "One, two, three, four."),
        ("…and then", "And then."),
        ("“—and then", '"and then.'),
        ("know better;” and", 'Know better," and.'),
        ("it was -5 degrees", "It was -5 degrees."),
    ],
)
def test_dashes_and_ellipses_become_the_pauses_that_the_model_knows(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("labelled “ORANGE MARMALADE”, but", 'Labelled "orange marmalade", but.'),
        ("he said NO. STOP! she said", "He said no. Stop! she said."),
        ("I AM A MAN. I’LL GO.", "I am a man. I'll go."),
        ("the BBC and NASA NEWS in the USA", "The BBC and NASA news in the USA."),
        ("Henry VIII met J. R. Smith in R2D2", "Henry VIII met J. R. Smith in R2D2."),
        ("the QUEEN’S tarts", "The queen's tarts."),
        ("THE MILLENNIUM FULCRUM EDITION 3.0", "The millennium fulcrum edition 3.0."),
    ],
)
def test_shouting_is_lowered_and_acronyms_are_kept(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CHAPTER XII. Alice’s Evidence", "Chapter 12. Alice's Evidence."),
        ("CHAPTER I\nDown the Rabbit-Hole", "Chapter 1. Down the Rabbit-Hole."),
        ("in Act II, Scene iv", "In Act 2, Scene 4."),
        ("the part I play in Section C", "The part I play in Section C."),
        ("a book ill kept", "A book ill kept."),
    ],
)
def test_chapter_numerals_are_numbers_and_words_are_not(text, expected):
    assert normalise(text) == expected


@given(st.text(st.characters(categories=["Lu", "Ll", "Mn", "Zs", "Po"])))
def test_the_same_text_in_another_unicode_form_is_spoken_alike(text):
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))
