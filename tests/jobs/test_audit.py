"""The audit of a run that the draft voice made: whole, of a part, and broken in every way that a promise names."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import soundfile

from pipeline.audit.finding import Kind
from pipeline.store.journal import decode, encode

from ..conftest import STORY, UNMARKED, Ended, rows_of
from .damages import DAMAGES, FIX, HARMLESS, JOURNAL, Damage, flip
from .test_generate import OUT, wav_bytes, written

BOOK = """CHAPTER I.

Nobody came to the door of the old house, and no light moved behind the shutters.

He turned his horse, and then he heard it: a small, dry cough.

"Is anyone there?" asked the traveller. He knocked a second time, and listened.

CHAPTER II.

A candle came down the stair. Nobody was carrying it.

"Oh!"
"""
FAILING = (UNMARKED, "check.max_pause_s=0.4", "max_failures=9")  # what the traveller asks fails
PART = "chapters=1"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def run(draft, job, kept, story):
    """`run(part)` puts a finished run there, rendered once for all tests; then `run.audit` and `run.generate`."""

    story.write_text(BOOK)

    class Run:
        audit = staticmethod(lambda *more: job("audit", f"run={OUT}", "max_failures=9", "watermark=none", *more))

        def __call__(self, *choice: str) -> "Run":
            self.generate = lambda: draft(*FAILING, *choice)
            there = kept / "-".join(["run", *choice])
            if not there.exists():
                assert self.generate().code == 0
                shutil.copytree(OUT, there)
                shutil.rmtree(OUT)
            shutil.copytree(there, OUT)
            return self

    return Run()


def told(ended: Ended) -> dict[str, list[str]]:
    """What the audit's report names, by the title of its kind."""
    kinds: dict[str, list[str]] = {}
    for line in ended.out.splitlines():
        if found := re.fullmatch(r"WRONG: (.*?): (\d+) \(.*\)", line):
            things = kinds.setdefault(found[1], [])
        elif line.startswith("failed: "):
            things = []
        elif line.startswith("  "):
            things.append(line.strip())
    return kinds


def assert_told_once(ended: Ended, damage: Damage, things: list[str]) -> None:
    assert ended.code == 1 and ended.err == "", ended
    (found,) = told(ended).items()
    assert found[0] == damage.kind.title and len(found[1]) == len(things), found
    assert all(line.startswith(thing) for line, thing in zip(found[1], things, strict=True)), found


def each(damages: list[Damage]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("damage", damages, ids=lambda damage: damage.do.__name__)


@each(DAMAGES[::3])
def test_a_damage_is_told_once_under_its_right_name(run, damage):
    run()
    things = damage.do()
    assert_told_once(run.audit(), damage, things)


@pytest.mark.long
@pytest.mark.parametrize("choice", [(), (PART,)], ids=["whole", "part"])
@each(DAMAGES)
def test_each_damage_of_a_whole_run_and_of_a_part_is_told_once_and_mended_by_the_same_command(run, damage, choice):
    run(*choice)
    before = wav_bytes()
    things = damage.do()
    assert_told_once(run.audit(), damage, things)
    if damage.healed == FIX:
        run.audit("fix=true")
    assert run.generate().code == 0
    mended = run.audit()
    assert mended.code == 0 and told(mended) == {}, mended.out
    assert wav_bytes() == before


@pytest.mark.parametrize("harmless", HARMLESS, ids=lambda harmless: harmless.__name__)
@pytest.mark.parametrize("choice", [(), (PART,)], ids=["whole", "part"])
def test_what_costs_nothing_is_not_told(run, harmless, choice):
    run(*choice)
    harmless()
    ended = run.audit()
    assert ended.code == 0 and told(ended) == {} and ended.err == ""


def test_the_worst_is_told_first_and_no_kind_hides_another(run):
    run()
    for number in range(30):
        (OUT / "wavs" / f"{number}.txt").write_text("mine")
    path = sorted(OUT.glob("wavs/001/*.wav"))[0]
    path.write_bytes(flip(path.read_bytes(), 1000))
    (OUT / "metadata.parquet").unlink()
    ended = run.audit()
    kinds = told(ended)
    assert list(kinds) == [kind.title for kind in (Kind.CHANGED, Kind.TABLE, Kind.STRANGER)]
    assert "WRONG: file that is of no run: 30 (" in ended.out
    assert kinds[Kind.STRANGER.title][19:] == ["wavs/26.txt", "… and 10 more"]


def test_a_part_that_was_asked_for_is_whole_and_the_rest_is_counted(run):
    run(PART)
    ended = run.audit()
    assert ended.code == 0 and "3 utterance(s) of the book were not chosen; whole=true" in ended.out
    assert told(run.audit("whole=true")) == {
        Kind.MISSING.title: [f"story-002-0000{number} was never rendered" for number in range(3)]
    }


def test_what_several_runs_were_asked_for_counts_together(run, draft):
    run(PART)
    draft(*FAILING, "chapters=2", "limit=1")
    ended = run.audit()
    assert ended.code == 0 and "2 utterance(s) of the book were not chosen" in ended.out
    assert len(told(run.audit("whole=true"))[Kind.MISSING.title]) == 2


def test_a_shard_that_never_ran_is_missing(draft, run):
    draft(*FAILING, "shard=0", "num_shards=2")
    assert set(told(run.audit())) == {Kind.MISSING.title}


def test_what_was_chosen_of_an_earlier_edition_is_not_missing(run, draft, story):
    run()
    story.write_text(BOOK.replace("candle", "kettle").replace("house", "inn"))
    draft(*FAILING, PART)
    ended = run.audit()
    assert told(ended) == {Kind.SUPERSEDED.title: ["wavs/002/story-002-00001.wav"]}
    assert "1 utterance(s) of the book were not chosen" in ended.out


def test_a_record_that_does_not_say_its_plan_counts_for_any(run):
    """As those of versions before."""
    run(PART)
    (path,) = OUT.glob("runs/*.json")
    record = json.loads(path.read_text())
    del record["plan"]
    path.write_text(json.dumps(record))
    assert run.audit().code == 0
    record["config"]["chapters"] = None
    path.write_text(json.dumps(record))
    assert set(told(run.audit())) == {Kind.MISSING.title}


def test_without_a_word_on_what_was_chosen_it_is_the_whole_book(run):
    run(PART)
    shutil.rmtree(OUT / "runs")
    assert run.audit().code == 0  # the lock's file says it, too
    (OUT / "journal" / "run.lock").unlink()
    assert set(told(run.audit())) == {Kind.MISSING.title}


def test_a_broken_line_is_told_once_by_the_run_that_pays_for_it_and_then_never_again(run):
    run()
    lines = JOURNAL.read_bytes().splitlines(keepends=True)
    JOURNAL.write_bytes(b"".join([flip(lines[0], 200), *lines[1:]]))
    first = run.generate()
    assert first.out.count("passed over") == 1 and "1 line(s) that are broken passed over" in first.out
    assert "passed over" not in run.generate().out and told(run.audit()) == {}


def test_a_row_that_names_a_file_elsewhere_moves_nothing_that_is_not_the_runs(run):
    run()
    stranger = Path("mine.wav").absolute()
    stranger.write_bytes(b"mine")
    for name in (str(stranger), "../../mine.wav"):
        line = JOURNAL.read_bytes().splitlines(keepends=True)[0]
        JOURNAL.write_bytes(JOURNAL.read_bytes().replace(line, encode(decode(line) | {"file_name": name})))
        fixed = run.audit("fix=true")
        assert fixed.code == 1 and fixed.err == "" and stranger.read_bytes() == b"mine"
    assert run.generate().code == 0 and told(run.audit()) == {}


def test_a_watermark_is_looked_for_in_every_wav(draft, job):
    assert draft().code == 0
    count = len(written())
    ended = job("audit", f"run={OUT}")
    assert ended.code == 0 and ended.err == "" and "WRONG" not in ended.out
    assert f"planned {count}, ok {count}, failed 0" in ended.out and f"watermarks looked for: {count}" in ended.out


def test_a_watermark_that_is_gone_is_found_out_even_if_journal_and_hash_agree(draft, job):
    """As if another program had put unmarked speech there, and signed for it."""
    draft("limit=3")
    draft("watermark.enabled=false", "out=unmarked", "limit=3")
    row = decode(JOURNAL.read_bytes().splitlines(keepends=True)[0])
    data = (Path("unmarked") / row["file_name"]).read_bytes()
    (OUT / row["file_name"]).write_bytes(data)
    with open(JOURNAL, "ab") as file:
        file.write(encode(row | {"audio_sha256": hashlib.sha256(data).hexdigest()}))
    assert draft("limit=3").code == 0
    (heard,) = told(job("audit", f"run={OUT}"))[Kind.UNMARKED.title]
    assert heard.startswith(f"{row['file_name']} has one with a confidence of 0.")
    with open(JOURNAL, "ab") as file:
        file.write(encode(row | {"audio_sha256": hashlib.sha256(data).hexdigest(), "watermarked": False}))
    assert draft("limit=3").code == 0
    assert told(job("audit", f"run={OUT}", "watermark=none", "fix=true"))[Kind.UNMARKED.title]
    assert draft("limit=3").code == 0 and job("audit", f"run={OUT}").code == 0


def test_a_shorter_edition_leaves_wavs_that_fixing_moves_aside(draft, job, story):
    draft(UNMARKED)
    story.write_text(STORY.replace("He knocked a second time, and listened. ", "").replace('"Oh!"\n', ""))
    assert draft(UNMARKED).code == 0
    orphan = "wavs/002/story-002-00002.wav"
    first = job("audit", f"run={OUT}")
    assert first.code == 1 and told(first) == {Kind.SUPERSEDED.title: [orphan]}
    fixed = job("audit", f"run={OUT}", "fix=true")
    assert fixed.code == 0 and "moved aside into" in fixed.out
    (moved,) = OUT.glob(f"aside/*/{orphan}")
    assert soundfile.info(moved).frames and not (OUT / orphan).exists()
    assert job("audit", f"run={OUT}").code == 0 and "0 to render" in draft(UNMARKED).out


def test_failed_utterances_are_listed_and_count_against_max_failures(draft, job):
    strict = (UNMARKED, "check.max_pause_s=0.05", "check.too_long_per_word_s=0.28")
    assert draft(*strict).code == 1
    failed = rows_of(OUT / "failed.parquet")
    ended = job("audit", f"run={OUT}")
    assert failed and ended.code == 1 and "WRONG" not in ended.out
    assert f"failed: {len(failed)} (see failed.parquet)" in ended.out
    assert all(f"  {row['id']}: {row['error']}" in ended.out for row in failed)
    assert job("audit", f"run={OUT}", f"max_failures={len(failed)}").code == 0


def test_an_unmarked_run_passes_because_it_asked_for_that(draft, job):
    draft(UNMARKED)
    ended = job("audit", f"run={OUT}")
    assert ended.code == 0 and "watermarks looked for: 0" in ended.out


def test_a_lock_that_was_lost_is_there_again_for_the_next_job(run):
    run()
    shutil.rmtree(OUT / "journal")
    assert run.audit().code == 1 and (OUT / "journal" / "run.lock").read_text() == ""
    assert run.generate().code == 0 and run.audit().code == 0


@pytest.mark.parametrize("path", ["story.txt", "x" * 300, "/dev/null"])
def test_what_is_no_folder_is_one_line_and_exit_2(job, story, path):
    ended = job("audit", f"run={path}", "watermark=none")
    assert ended.code == 2 and ended.err.count("\n") == 1 and f"run={path}" in ended.err


def test_a_folder_without_a_run_is_one_line_and_exit_2(job, tmp_path):
    ended = job("audit", f"run={tmp_path}")
    assert ended.code == 2 and ended.err.count("\n") == 1 and "no run in it" in ended.err
    assert list(tmp_path.iterdir()) == []
