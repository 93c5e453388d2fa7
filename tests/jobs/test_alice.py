"""A whole novel with the draft voice, as it stands in the shared folder beside a developer's checkout."""

import re
from pathlib import Path

import pytest
import soundfile

from pipeline.config import WatermarkConfig
from pipeline.text.reader import read_book
from pipeline.watermark import build_watermarker

from ..conftest import rows_of

ALICE = Path(__file__).parents[3] / "shared" / "books" / "alice.txt"
MARKS = {"illustration", "table of contents", "scene break"}

pytestmark = [pytest.mark.long, pytest.mark.skipif(not ALICE.exists(), reason="the shared books are not here")]


def test_the_whole_of_alice_is_spoken_marked_and_complete_and_the_same_command_again_renders_nothing(job):
    command = ("generate", f"book={ALICE}", "engine=espeak", "wandb.mode=offline")
    assert job(*command).code == 0
    rows = rows_of(Path("outputs/alice/metadata.parquet"))
    assert {row["chapter"] for row in rows} == set(range(13))
    assert {row["status"] for row in rows} == {"ok"} and not Path("outputs/alice/failed.parquet").exists()

    perth = build_watermarker(WatermarkConfig(), "cpu")
    for row in rows:
        samples, rate = soundfile.read(Path("outputs/alice") / row["file_name"], dtype="float32")
        assert perth.score([samples], rate)[0] > 0.5, row["id"]

    book = read_book(ALICE)
    assert {mark.reason for mark in book.unspoken} == MARKS
    text = list(book.text)
    for mark in book.unspoken:
        text[mark.start : mark.end] = " " * (mark.end - mark.start)
    bounds = [match.start() for match in re.finditer(r"^CHAPTER [IVX]+\.$", "".join(text), re.MULTILINE)]
    chapters = ["".join(text)[a:b] for a, b in zip([0, *bounds], [*bounds, None], strict=True)]
    assert len(chapters) == 13
    for number, chapter in enumerate(chapters):
        spoken = "".join(row["text"] for row in rows if row["chapter"] == number)
        assert "".join(spoken.split()) == "".join(chapter.split())

    before = {path: path.stat().st_mtime_ns for path in Path("outputs/alice/wavs").rglob("*.wav")}
    again = job(*command)
    assert again.code == 0 and "0 to render" in again.out
    assert {path: path.stat().st_mtime_ns for path in Path("outputs/alice/wavs").rglob("*.wav")} == before
