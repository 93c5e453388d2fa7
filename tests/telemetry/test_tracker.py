import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.config import WandbConfig
from pipeline.telemetry.tracker import Wandb, fixed_id, has_key


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def ok(name: str) -> dict:
    return {"status": "ok", "id": name, "text": "Hello.", "file_name": f"{name}.wav"}


def test_without_a_key_the_run_is_offline_and_its_files_are_inside_the_folder(no_key, tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", np.zeros(2400), 24_000)
    tracker = Wandb(WandbConfig(audio_samples=2), tmp_path, "0-of-1", {"seed": 0})
    tracker.utterance(ok("a"))
    tracker.log({"x_realtime": 3.0})
    tracker.finish({"utterances": 1})
    assert caplog.text == ""
    (run,) = tmp_path.glob("wandb/offline-run-*")
    assert run.name.endswith((tmp_path / "wandb" / "0-of-1.id").read_text())
    assert b"x_realtime" in next(run.glob("*.wandb")).read_bytes()


def test_a_shard_keeps_its_id_and_another_shard_has_another(tmp_path):
    first = fixed_id(tmp_path / "0-of-2.id")
    assert fixed_id(tmp_path / "0-of-2.id") == first != fixed_id(tmp_path / "1-of-2.id")


def test_a_key_is_looked_for_and_never_asked_for(no_key, monkeypatch):
    assert not has_key()
    no_key.write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    assert has_key()
    no_key.write_text("machine example.org\n  login user\n  password 0123\n")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert has_key()


def test_trouble_with_wandb_is_one_line_and_the_job_goes_on(no_key, monkeypatch, tmp_path, caplog):
    import wandb

    def refuse(**_):
        raise RuntimeError("quota exceeded\nmore")

    monkeypatch.setattr(wandb, "init", refuse)
    with caplog.at_level(logging.WARNING):
        tracker = Wandb(WandbConfig(mode="offline"), tmp_path, "0-of-1", {})
        tracker.utterance(ok("a"))
        tracker.log({"x": 1})
        tracker.finish({})
    assert [record.getMessage() for record in caplog.records] == ["W&B failed, the job goes on: quota exceeded"]


def test_the_audio_table_is_a_sample_of_all_utterances_not_the_first_ones(no_key, monkeypatch, tmp_path):
    monkeypatch.setattr(Wandb, "_start", lambda *_: None)
    tracker = Wandb(WandbConfig(audio_samples=5), Path(tmp_path), "0-of-1", {})
    for n in range(500):
        tracker.utterance(ok(str(n)))
    tracker.utterance({"status": "failed"})
    assert len(tracker._sample) == 5 and max(int(row["id"]) for row in tracker._sample) > 50
