"""What a run says before it writes over finished utterances, and what it does with replace=false."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.store.journal import decode, encode

from ..conftest import STORY, UNMARKED, rows_of
from .test_generate import OUT, wav_bytes, written


@pytest.fixture
def said(draft):
    """`said(*options)`: what a run that ended well says of what it replaces; empty: nothing."""

    def run(*more: str) -> str:
        ended = draft(UNMARKED, *more)
        assert ended.code == 0, ended.err
        lines = [line.split(" ", 1)[1] for line in ended.out.splitlines() if "replacing" in line]
        assert ended.out.find("replacing") < ended.out.find("to render") and len(lines) <= 1
        return "".join(lines)

    return run


def count() -> int:
    return len(written())


def test_a_new_run_and_one_that_goes_on_replace_nothing(said):
    assert said("limit=2") == "" and said() == "" and said() == ""


@pytest.mark.parametrize(
    "change, told",
    [
        ("sampling.temperature=0.7", "sampling.temperature 0.8 -> 0.7"),
        ("engine.voice=en-us", "engine.voice en-gb-x-rp -> en-us"),
        ("seed=3", "seed 0 -> 3"),
        ("precision=mixed", "precision.t3 auto -> bf16, precision.flow auto -> tf32, precision.vocoder auto -> fp32, "
                            "precision.voice_encoder auto -> fp16"),
    ],
)  # fmt: skip
def test_options_that_differ_are_named_with_both_values_before_the_first_is_replaced(said, change, told):
    said()
    assert said(change) == f"replacing {count()} finished utterance(s): {told}"


def test_each_utterance_is_held_against_the_options_that_it_was_made_with(said):
    said()
    leaving = (
        f"; {count() - 2} finished utterance(s) outside of chapters= and limit= leave the manifest until rendered anew"
    )
    assert said("seed=1", "limit=2") == f"replacing 2 finished utterance(s): seed 0 -> 1{leaving}"
    many = count() - 2
    assert said("seed=2") == f"replacing {many + 2} finished utterance(s): {many} by seed 0 -> 2; 2 by seed 1 -> 2"


def test_calmer_sampling_of_a_retry_is_no_option_that_differs(said):
    said("limit=1")
    journal = OUT / "journal" / "0-of-1.jsonl"
    row = decode(journal.read_bytes())
    (first,) = row["attempts"]
    calmer = json.dumps(json.loads(first["sampling"]) | dict(temperature=0.64))
    row["attempts"] = [first | dict(reason="silent"), first | dict(sampling=calmer)]
    row["params"] = json.dumps(json.loads(row["params"]) | dict(sampling=json.loads(calmer)))
    journal.write_bytes(encode({name: row[name] for name in row if name != "crc32"}))
    assert said("seed=1") == "replacing 1 finished utterance(s): seed 0 -> 1"


def test_a_part_with_other_options_tells_what_leaves_the_manifest(said, draft):
    said("chapters=1")
    left = count()
    told = f"{left} finished utterance(s) outside of chapters= and limit= leave the manifest until rendered anew"
    assert told in draft(UNMARKED, "chapters=2", "seed=1", "replace=false").err
    assert said("chapters=2", "seed=1") == "" and told in draft(UNMARKED, "chapters=2", "seed=2").out


def test_an_edited_sentence_is_told_as_an_edit_also_beside_a_changed_option(said, story):
    said()
    story.write_text(STORY.replace("dry cough", "wet cough"), encoding="utf-8")
    assert said() == "replacing 1 finished utterance(s): edits of the text"
    story.write_text(STORY.replace("dry cough", "loud cough"), encoding="utf-8")
    assert said("seed=1").endswith(f"{count() - 1} by seed 0 -> 1; 1 by edits of the text")


def test_speech_that_moves_is_not_replaced(said, story):
    said()
    story.write_text(STORY.replace("* * *", "The house waited.\n\n* * *"), encoding="utf-8")
    assert said() == ""


def test_a_deleted_sentence_that_another_takes_the_place_of_is_an_edit(said, story):
    said()
    story.write_text(STORY.replace("The Door\n", ""), encoding="utf-8")
    assert said("limit=1") == "replacing 1 finished utterance(s): edits of the text"


def test_a_lost_or_damaged_wav_is_mended_not_replaced(said):
    said()
    one, other = sorted(OUT.glob("wavs/*/*.wav"))[:2]
    one.unlink()
    other.write_bytes(other.read_bytes()[:-1] + b"x")
    assert said() == "" and said("replace=false") == ""


def test_replace_false_refuses_in_one_line_and_writes_nothing(draft, story):
    draft(UNMARKED)
    before, files = wav_bytes(), {path: path.stat().st_mtime_ns for path in OUT.rglob("*")}
    story.write_text(STORY.replace("dry cough", "wet cough"), encoding="utf-8")
    for change, told in (("seed=1", f"{len(before) - 1} by seed 0 -> 1; 1 by edits"), ("seed=0", "edits of the text")):
        ended = draft(UNMARKED, change, "replace=false")
        assert ended.code == 2 and ended.err.count("\n") == 1 and told in ended.err and "replace=true" in ended.err
    assert {path: path.stat().st_mtime_ns for path in OUT.rglob("*")} == files


def test_replace_false_renders_what_is_missing_and_what_is_new(draft, story):
    draft(UNMARKED, "limit=2")
    before = written()
    story.write_text(STORY.replace("* * *", "The house waited.\n\n* * *"), encoding="utf-8")
    assert draft(UNMARKED, "replace=false").code == 0
    assert {name: at for name, at in written().items() if name in before} == before


def test_each_shard_tells_its_own(said):
    said()
    numbers = [int(said("seed=1", f"shard={shard}", "num_shards=2").split()[1]) for shard in (0, 1)]
    assert sum(numbers) == count() and min(numbers) > 0


def test_a_folder_of_an_earlier_version_tells_the_same(job, tmp_path):
    data = Path(__file__).parents[1] / "data"
    shutil.copytree(data / "run_98b7de7", "old")
    shutil.copy(data / "run_98b7de7.txt", "story.txt")
    ended = job("generate", "book=story.txt", "engine=espeak", "wandb.mode=disabled", UNMARKED, "out=old", "seed=5")
    assert ended.code == 0 and f"replacing {len(rows_of(Path('old/metadata.parquet')))} finished" in ended.out
    assert "watermark.enabled True -> False, seed 0 -> 5" in ended.out


def moved_to(folder: Path, text: str) -> str:
    folder.mkdir()
    (folder / "story.txt").write_text(text, encoding="utf-8")
    return f"book={folder.name}/story.txt"


def test_a_document_that_takes_a_folder_over_is_named_with_the_other_and_with_what_stays(job, draft, tmp_path):
    draft(UNMARKED)
    total = count()
    edited = moved_to(tmp_path / "second", STORY.replace("dry cough", "wet cough"))
    ended = job("generate", edited, "engine=espeak", UNMARKED, "wandb.mode=disabled")
    line = next(line for line in ended.out.splitlines() if "takes the place of" in line)
    assert f"{tmp_path}/second/story.txt takes the place of {tmp_path}/story.txt in outputs/story" in line
    assert f"{total - 1} of {total} utterances ({(total - 1) / total:.0%}) keep their text" in line
    again = job("generate", edited, "engine=espeak", UNMARKED, "wandb.mode=disabled")
    assert again.code == 0 and "takes the place of" not in again.out


def test_a_document_that_shares_too_little_is_refused_with_both_names(job, draft, tmp_path):
    draft(UNMARKED)
    other = moved_to(tmp_path / "second", "Quite another tale.\n\nIt has nothing to do with the first one.")
    for more in ("replace=true", "replace=false"):
        ended = job("generate", other, "engine=espeak", UNMARKED, "wandb.mode=disabled", more)
        assert ended.code == 2 and ended.err.count("\n") == 1 and "replacing" not in ended.out
        assert f"speech of {tmp_path}/story.txt, of which only 0 of" in ended.err and "second/story.txt" in ended.err


def test_a_moved_file_of_the_same_text_takes_its_folder_along(job, draft, tmp_path):
    draft(UNMARKED)
    moved = moved_to(tmp_path / "second", STORY)
    ended = job("generate", moved, "engine=espeak", UNMARKED, "wandb.mode=disabled", "replace=false")
    assert ended.code == 0 and "0 to render" in ended.out and "takes the place" not in ended.out
