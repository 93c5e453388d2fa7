"""The loop, driven by an engine that does what a test tells it: every utterance ends as one row, whatever happens."""

from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.watermark
from pipeline.config import FP32, EspeakConfig, GenerateConfig, PlanConfig
from pipeline.data import SAMPLE_RATE, Identity, Request, Speech, Utterance
from pipeline.plan import make_plan, parameters
from pipeline.run.loop import RenderLoop
from pipeline.run.row import RowMaker
from pipeline.run.writer import Writer
from pipeline.store import RunFolder
from pipeline.store.index import read_index
from pipeline.store.journal import Journal, decode, read_rows
from pipeline.telemetry.progress import Telemetry
from pipeline.telemetry.tracker import NoTracker

RATE = SAMPLE_RATE
CONFIG = GenerateConfig(book="b.txt", engine=EspeakConfig(), plan=PlanConfig(window=3))
BEHAVIOURS = ("ok", "nan", "silent", "error", "no answer")
REASONS = {"no answer": "error"}
BATCHES = (0.0, 2.0, 1000.0)  # seconds that the watermarker wants at once


class Scripted:
    """Speaks each utterance as its script says, attempt by attempt, and answers in reverse order."""

    identity = Identity("scripted", "1", "nobody", "", {})
    device = "cpu"
    unchecked = frozenset[str]()
    precision = FP32
    safer = None
    can_retry = True

    def __init__(self, scripts: dict[str, list[str]]) -> None:
        self.scripts = {id: list(script) for id, script in scripts.items()}
        self.asked: list[Request] = []
        self.good: set[str] = set()  # ids of what it has spoken well

    def max_tokens(self, predicted_s: float) -> int:
        return 0

    def synthesize(self, requests: list[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        for request in reversed(requests):
            if stopping():
                return
            self.asked.append(request)
            behaviour = self.scripts[request.utterance.id].pop(0)
            if behaviour == "ok":
                self.good.add(request.utterance.id)
            if behaviour == "error":
                yield Speech(request, np.zeros(0, np.float32), error="it cannot be spoken")
            elif behaviour != "no answer":
                yield Speech(request, samples(behaviour))

    def in_use(self) -> dict[str, str]:
        return {}

    def gpu_memory_gib(self) -> float:
        return 0.0

    def padding(self) -> dict[str, float]:
        return {}


def samples(behaviour: str) -> np.ndarray:
    wave = 0.3 * np.sin(np.arange(RATE) / 20) * np.linspace(1, 0, RATE)
    return (wave * {"ok": 1, "nan": np.nan, "silent": 1e-6}[behaviour]).astype(np.float32)


class Unmarked(pipeline.watermark.Unmarked):
    """Wants so many seconds at once."""

    def __init__(self, batch_s: float) -> None:
        self.batch_s = batch_s


def run(root, scripts: list[list[str]], stop_after: int | None = None, batch_s: float = 0.0):
    """Render one utterance a script, stop after so many answers; returns the engine and the rows as they were written.

    An utterance lasts a second.
    """
    said = [Utterance(f"b-001-{i:05d}", "b", 1, "", i, i, 0, 0, "Yes.", f"Yes {i}.", 0.0) for i in range(len(scripts))]
    engine = Scripted({utterance.id: script for utterance, script in zip(said, scripts, strict=True)})
    folder = RunFolder(root)
    folder.create()
    journal = Journal(folder.journal(0, 1), 1)
    telemetry = Telemetry(len(said), NoTracker())
    rows = lambda: [row for _, row in read_rows(root / "journal") if row["status"] != "replaced"]  # noqa: E731
    stopping = lambda: stop_after is not None and len(engine.asked) >= stop_after  # noqa: E731
    planned = make_plan(said, parameters(engine.identity, CONFIG), 15.0)
    with closing(journal), Writer(RowMaker(CONFIG, engine.identity), folder, journal) as writer:
        RenderLoop(CONFIG, engine, Unmarked(batch_s), writer, telemetry, stopping).run(planned)
    return engine, rows()


@given(
    st.lists(st.lists(st.sampled_from(BEHAVIOURS), min_size=3, max_size=3), min_size=1, max_size=9),
    st.sampled_from(BATCHES),
)
@settings(max_examples=40, deadline=None)
def test_every_utterance_ends_as_one_row_with_every_attempt_in_it(tmp_path_factory, scripts, batch_s):
    root = tmp_path_factory.mktemp("run")
    engine, rows = run(root, scripts, batch_s=batch_s)
    assert sorted(row["id"] for row in rows) == [f"b-001-{i:05d}" for i in range(len(scripts))]
    for row in rows:
        script = scripts[int(row["id"][-5:])]
        tried = script[: script.index("ok") + 1] if "ok" in script else script
        assert [a["reason"] for a in row["attempts"]] == [REASONS.get(b, b if b != "ok" else "") for b in tried]
        assert row["status"] == ("ok" if "ok" in script else "failed")
        assert (root / "wavs" / "001" / f"{row['id']}.wav").exists() == (row["status"] == "ok")


def test_a_retry_has_a_new_seed_which_the_row_names(tmp_path):
    engine, (row,) = run(tmp_path, [["nan", "silent", "ok"]])
    seeds = [request.seed for request in engine.asked]
    assert len(set(seeds)) == 3 and [a["seed"] for a in row["attempts"]] == seeds and row["seed"] == seeds[2]


def test_what_is_bad_in_a_window_is_tried_again_before_the_next_window(tmp_path):
    engine, _ = run(tmp_path, [["nan", "ok"], ["ok"], ["ok"], ["ok"]])
    assert [request.utterance.index for request in engine.asked] == [2, 1, 0, 0, 3]


@pytest.mark.parametrize("batch_s", BATCHES)
@pytest.mark.parametrize("stop_after", range(9))
def test_stopped_anywhere_it_keeps_all_that_was_good_until_then_and_fails_nobody(tmp_path, stop_after, batch_s):
    scripts = [["ok"], ["nan", "ok"], ["nan", "nan", "ok"], ["ok"], ["ok"], ["ok"]]
    engine, rows = run(tmp_path, scripts, stop_after, batch_s)
    assert len(engine.asked) == stop_after
    assert all(row["status"] == "ok" for row in rows) and {row["id"] for row in rows} == engine.good
    index = read_index(RunFolder(tmp_path))
    assert {path.stem for path in tmp_path.glob("wavs/*/*.wav")} == set(index)


def test_a_wav_of_other_options_is_not_vouched_for_while_it_is_overwritten(tmp_path):
    (tmp_path / "wavs" / "001").mkdir(parents=True)
    (tmp_path / "wavs" / "001" / "b-001-00000.wav").write_bytes(b"of other options")
    run(tmp_path, [["ok"]])
    lines = (tmp_path / "journal" / "0-of-1.jsonl").read_bytes().splitlines(keepends=True)
    assert [decode(line)["status"] for line in lines] == ["replaced", "ok"]
