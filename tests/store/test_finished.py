"""The door to a finished run."""

import json

import pytest

from pipeline.config import GenerateConfig
from pipeline.errors import UserError
from pipeline.store.finished import DamagedRun, open_run, read_config

from ..jobs.test_generate import OUT


def test_a_run_shows_its_rows_by_status_its_wavs_its_plan_and_its_options(draft):
    assert draft("limit=3", "max_failures=9", "check.max_pause_s=0.3").code == 0
    run = open_run(OUT)
    ok, failed = list(run.rows()), list(run.rows("failed"))
    assert len(ok) + len(failed) == 3 and ok and all(row["status"] == "failed" for row in failed)
    assert [row["id"] for row in ok] == [item.utterance.id for item in run.by_status["ok"]]
    assert all(run.wav(row).read_bytes().startswith(b"RIFF") for row in ok)
    assert len(run.snapshot.planned) > 3 and run.config.limit == 3 and run.config.engine.name == "espeak"


def test_a_folder_without_a_run_is_a_user_error_and_one_without_a_plan_is_damaged(draft, tmp_path):
    with pytest.raises(UserError, match="no run in it"):
        open_run(tmp_path)
    draft("limit=1")
    (OUT / "plan.parquet").write_bytes(b"no parquet")
    with pytest.raises(DamagedRun, match="has no plan that can be read"):
        open_run(OUT)


def options_of(tmp_path, change) -> GenerateConfig:
    """What is read of a record whose options were changed."""
    (tmp_path / "runs").mkdir()
    values = {"book": "x", "engine": {"name": "espeak", "pitch": 60}, "check": {"silent_db": -40}, "seed": 3}
    (tmp_path / "runs" / "1.json").write_text(json.dumps({"config": change(values)}))
    return read_config(tmp_path)


def test_a_record_of_another_version_lacks_options_and_has_others(tmp_path, caplog):
    caplog.set_level("INFO")
    config = options_of(tmp_path, lambda values: values | {"ears": 2})
    assert config.engine.pitch == 60 and config.engine.rate_wpm == 170 and config.seed == 3
    assert config.check.silent_db == -40 and "the option ears=2 of a run record does not exist today" in caplog.text


@pytest.mark.parametrize(
    "change, wrong",
    [
        (dict(engine={"name": "festival"}), "festival"),
        (dict(engine=1), "not the options of a job"),
        (dict(seed="many"), "seed='many' is not of type"),
        (dict(seed=True), "seed=True is not of type"),
        (dict(seed=-1), "seed=-1 is out of range"),
        (dict(check=3), "not the options of a job"),
    ],
)
def test_what_are_no_options_is_passed_over(tmp_path, caplog, change, wrong):
    with pytest.raises(UserError, match="no run record that can be read"):
        options_of(tmp_path, lambda values: values | change)
    assert wrong in caplog.text
