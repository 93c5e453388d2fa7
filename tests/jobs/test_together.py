"""Several processes on one folder: shards together, ending at once, in each other's way, or dead."""

from pathlib import Path

from ..conftest import STORY, UNMARKED, rows_of
from .processes import end_group
from .test_generate import OUT, rendered_anew, wav_bytes, written
from .test_signals import STUCK, start, wait_for  # noqa: F401  (a fixture)

SOME_FAIL = ("check.max_pause_s=0.30", "max_failures=9")


def without_clock(path: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "created_at"} for row in rows_of(path)]


def test_shards_that_end_at_once_leave_the_same_manifest_as_one_process(start, draft, story):  # noqa: F811
    story.write_text(STORY)
    shards = [start(f"shard={shard}", "num_shards=3", *SOME_FAIL) for shard in range(3)]
    assert [shard.wait() for shard in shards] == [0, 0, 0]
    assert draft("out=whole", UNMARKED, *SOME_FAIL).code == 0
    for table in ("metadata.parquet", "failed.parquet"):
        assert without_clock(OUT / table) == without_clock(Path("whole") / table)
    assert wav_bytes() == wav_bytes(Path("whole"))
    planned = rows_of(OUT / "plan.parquet")
    assert len(rows_of(OUT / "metadata.parquet")) + len(rows_of(OUT / "failed.parquet")) == len(planned)


def test_a_second_process_on_one_shard_is_one_line_and_exit_2_until_the_first_is_dead(start, draft, story):  # noqa: F811
    story.write_text(STORY)
    first = start(code=STUCK)
    wait_for(first, lambda: list(OUT.glob("runs/*.json")))
    second = draft(UNMARKED)
    assert second.code == 2 and second.err.count("\n") == 1 and "in use: another process is rendering" in second.err
    end_group(first)
    assert draft(UNMARKED).code == 0


def test_the_number_of_shards_is_free_to_change_between_runs(draft):
    for shard in (0, 2):
        assert draft(f"shard={shard}", "num_shards=3").code == 0
    before = written()
    for shard in (1, 0):
        assert draft(f"shard={shard}", "num_shards=2").code == 0
    assert not rendered_anew(before) & set(before)
    assert len(rows_of(OUT / "metadata.parquet")) == len(rows_of(OUT / "plan.parquet")) == len(written())


def test_a_run_in_use_is_not_audited(start, job, story):  # noqa: F811
    process = start(code=STUCK)
    wait_for(process, lambda: list(OUT.glob("runs/*.json")))
    ended = job("audit", f"run={OUT}")
    assert ended.code == 2 and ended.err.count("\n") == 1 and "a job is rendering into it" in ended.err
