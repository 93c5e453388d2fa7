"""What a supervisor makes of a worker's signs and of its end, however they come in pieces."""

import pytest

from pipeline.run.supervise import Life


def test_what_is_lost_may_come_in_pieces_that_look_like_signs():
    life = Life()
    for piece in (b"r.+", b"+?device=cuda:0 ans", b"wers no more. +!"):
        life.hear(piece)
    life.end(1)
    assert life.rows == 2 and life.death == "lost its device: device=cuda:0 answers no more. +!"


@pytest.mark.parametrize(
    "signs, code, death",
    [
        (b"r+w!", 0, ""),
        (b"!", 2, ""),
        (b"r+", 0, "ended by itself, with exit code 0"),
        (b"r+w!", -9, "was killed (SIGKILL, as the out-of-memory killer does)"),
        (b"", -10, "was ended by SIGUSR1"),
    ],
)
def test_an_end_that_was_not_told_or_came_of_a_signal_is_a_death(signs, code, death):
    life = Life()
    life.hear(signs)
    life.end(code)
    assert life.death == death


def test_a_silence_is_too_long_once_and_a_sign_ends_it():
    life = Life()
    assert [life.is_hanging(1.0, 3.0) for _ in range(5)] == [False, False, True, False, False]
    life.hear(b".")
    assert [life.is_hanging(1.0, 3.0) for _ in range(3)] == [False, False, True]
