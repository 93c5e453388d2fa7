import logging

from pipeline.telemetry import progress
from pipeline.telemetry.progress import Telemetry
from pipeline.telemetry.tracker import NoTracker


def row(status="ok", attempts=1, seconds=2.0):
    return {
        "id": "b-001-00000",
        "status": status,
        "error": "silent: -80 dBFS RMS" if status != "ok" else "",
        "attempts": [{}] * attempts,
        "duration": seconds if status == "ok" else None,
        "speech_tokens": [1] * 50,
    }


class Recorder(NoTracker):
    def __init__(self):
        self.windows = []

    def log(self, figures):
        self.windows.append(figures)


def test_figures_of_a_window_and_of_the_whole_run_add_up():
    tracker = Recorder()
    telemetry = Telemetry(4, tracker)
    telemetry.start_window()
    telemetry.count(row())
    telemetry.count_bad_attempt("nan")
    telemetry.count(row(attempts=2))
    telemetry.end_window(1.5, {"idle slots": 0.25})
    telemetry.start_window()
    telemetry.count_bad_attempt("silent")
    telemetry.count(row("failed"))
    telemetry.end_window(2.5, {})
    summary = telemetry.finish()
    assert [w["utterances"] for w in tracker.windows] == [2, 1] == [w["utterances"] for w in summary["windows"]]
    assert tracker.windows[0]["padding/idle slots"] == 0.25 and tracker.windows[1]["gpu_memory_gib"] == 2.5
    assert (summary["utterances"], summary["failed"], summary["fallbacks"], summary["audio_s"]) == (3, 1, 1, 4.0)
    assert summary["bad_attempts/nan"] == 1 and summary["bad_attempts/silent"] == 1


def test_a_failure_is_told_when_it_happens(caplog):
    Telemetry(1, NoTracker()).count(row("failed", attempts=4))
    assert "failed after 4 attempt(s): silent" in caplog.text


def test_without_a_terminal_progress_comes_as_plain_lines(caplog, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO):
        telemetry = Telemetry(10, NoTracker())
        telemetry.count(row())
        telemetry.count(row())
    assert "2 of 10 utterances" in caplog.text and "x real time" in caplog.text and " left" in caplog.text
    assert capsys.readouterr().err == ""
