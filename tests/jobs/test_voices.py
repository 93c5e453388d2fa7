import shutil

import numpy as np
import pytest
import soundfile

from jobs.catalogue import CONF

TINY = ("engine.checkpoint=stand-in-tiny",)


@pytest.fixture
def prepare(job, tmp_path):
    """`jobs.voices` on a folder with two clips and something else."""
    (tmp_path / "clips" / "more").mkdir(parents=True)
    shutil.copy(CONF / "voice" / "narrator.flac", tmp_path / "clips" / "more" / "anna.flac")
    soundfile.write(tmp_path / "clips" / "hum.wav", np.sin(np.arange(30_000) / 20), 8_000)
    (tmp_path / "clips" / "notes.txt").write_text("not a clip")
    return lambda: job("voices", "clips=clips", f"engine.cache={tmp_path / 'cache'}", *TINY)


@pytest.mark.long
def test_a_folder_of_clips_is_prepared_once_and_a_bad_one_is_told(prepare, tmp_path):
    first = prepare()
    assert first.code == 0 and "2 of 2 voices ready" in first.out and first.out.count("computing the conditionals") == 2
    assert len(list((tmp_path / "cache" / "voices").glob("*.safetensors"))) == 2

    (tmp_path / "clips" / "broken.wav").write_bytes(b"RIFF not really")
    second = prepare()
    assert second.code == 1 and "2 of 3 voices ready" in second.out and "broken.wav" in second.out
    assert "computing the conditionals" not in second.out


@pytest.mark.long
def test_a_voice_that_was_prepared_is_not_computed_again(prepare, job, tmp_path):
    assert prepare().code == 0
    (tmp_path / "b.txt").write_text("Nobody came to the door of the old house.")
    spoken = job(
        "generate",
        "book=b.txt",
        "voice.path=clips/more/anna.flac",
        "wandb.mode=disabled",
        f"engine.cache={tmp_path / 'cache'}",
        *TINY,
        "engine.flow_steps=1",
    )
    assert spoken.code == 0 and "computing the conditionals" not in spoken.out


def test_a_folder_without_clips_is_one_line_and_exit_2(job, tmp_path):
    ended = job("voices", f"clips={tmp_path}", *TINY)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "no recording in it" in ended.err


def test_the_draft_engine_has_no_voices_to_prepare(job, tmp_path):
    ended = job("voices", f"clips={tmp_path}", "engine=espeak")
    assert ended.code == 2 and "there is no option engine;" in ended.err


@pytest.mark.long
def test_a_clip_that_is_cut_short_is_not_ready(prepare, tmp_path):
    path = tmp_path / "clips" / "hum.wav"
    path.write_bytes(path.read_bytes()[:-5000])
    ended = prepare()
    assert ended.code == 1 and "1 of 2 voices ready" in ended.out and f"{path.name}: is cut short" in ended.out
