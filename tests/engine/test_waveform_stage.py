"""Tokens to speech, some batches ahead: nobody is lost, mixed up, or waited for in vain."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Timer

import numpy as np
import pytest
import torch

from pipeline.benchmark.s3gen import draw_tokens
from pipeline.data import never
from pipeline.engine.chatterbox import waveform_stage
from pipeline.engine.chatterbox.s3gen.flow import Flow
from pipeline.engine.chatterbox.tuning import TUNING, Tuning
from pipeline.engine.chatterbox.waveform_stage import MIN_MEMORY, WaveformRequest, WaveformStage

COUNTS = [9, 12, 10, 15, 11]  # tokens


@pytest.fixture(scope="module")
def speaker(make_engine):
    engine = make_engine(flow_steps=1)
    engine.prepare()
    return WaveformStage(engine.residency.models, engine.voice)


@pytest.fixture
def items(ask):
    requests = [ask(f"He counted to {count}.", seed=count) for count in COUNTS]
    return [(request, draw_tokens(request, count)) for request, count in zip(requests, COUNTS, strict=True)]


@pytest.fixture
def ahead(monkeypatch):
    """As on a GPU, where a batch is begun before the one before it has been asked for."""
    monkeypatch.setitem(TUNING, "cpu", Tuning(batches_ahead=2))
    monkeypatch.setattr(waveform_stage, "_is_ready", lambda future: False)  # not before it must be


@pytest.fixture
def broken(monkeypatch):
    """`broken(12, error)`: batches with an utterance of 12 tokens end in that error."""
    call = Flow.__call__

    def broken(count, error, held=lambda: None):
        def failing(flow, tokens, seeds, voice):
            activations = held()
            if count in map(len, tokens):
                raise error
            return call(flow, tokens, seeds, voice), activations

        monkeypatch.setattr(Flow, "__call__", lambda *args: failing(*args)[0])

    return broken


def test_what_is_begun_ahead_is_the_same_speech(speaker, items, ahead, monkeypatch):
    spoken = {speech.request: speech.samples for speech in speaker.speak([items], never)}
    monkeypatch.setitem(TUNING, "cpu", Tuning())
    assert spoken.keys() == {request for request, _ in items}
    for speech in speaker.speak([items], never):
        assert np.array_equal(spoken[speech.request], speech.samples)


def test_a_batch_that_is_ready_is_spoken_though_no_other_one_is_full(speaker, items, ahead, monkeypatch):
    ready = []
    monkeypatch.setattr(waveform_stage, "_is_ready", lambda future: bool(ready))

    def steps():
        yield [items[0]]
        ready.append(True)
        yield []
        pytest.fail("its batch had been ready a step before")

    assert next(speaker.speak(steps(), never)).request is items[0][0]


def test_when_it_is_to_stop_what_has_begun_is_spoken_and_nothing_begins(speaker, items, ahead):
    given = []

    def one_by_one():
        for item in items:
            given.append(item)
            yield [item]

    spoken = [speech.request for speech in speaker.speak(one_by_one(), lambda: len(given) >= 4)]
    assert spoken == [request for request, _ in items[:3]]  # each fills a batch


def test_when_it_is_to_stop_what_waits_for_its_turn_is_left_out(speaker, items, ahead, monkeypatch):
    stop, call = Event(), Flow.__call__

    def stopped_meanwhile(*args):
        stop.set()
        return call(*args)

    monkeypatch.setattr(Flow, "__call__", stopped_meanwhile)
    with ThreadPoolExecutor(1) as thread:
        monkeypatch.setattr(speaker, "_thread", thread)
        spoken = [speech.request for speech in speaker.speak([items], stop.is_set)]
    assert spoken == [items[0][0]]


def test_closed_it_ends_what_has_begun_and_begins_nothing_more(make_engine, items, monkeypatch):
    engine = make_engine(flow_steps=1)
    engine.prepare()
    speaker, begun, go_on, call = WaveformStage(engine.residency.models, engine.voice), Event(), Event(), Flow.__call__

    def held(*args):
        begun.set()
        go_on.wait(60)
        return call(*args)

    monkeypatch.setattr(Flow, "__call__", held)
    monkeypatch.setattr(speaker, "_thread", ThreadPoolExecutor(1))
    for request, decoded in items[:3]:
        speaker._submit([WaveformRequest(request, decoded, decoded.tokens)])
    futures = [future for _, future in speaker._submitted]
    begun.wait(60)
    Timer(0.2, go_on.set).start()
    speaker.close()
    assert futures[0].done() and not futures[0].cancelled() and all(future.cancelled() for future in futures[1:])


def test_what_finds_no_memory_is_kept_for_later_and_its_neighbours_are_spoken(
    speaker, items, ahead, broken, monkeypatch
):
    broken(12, torch.OutOfMemoryError("CUDA out of memory"))
    spoken = [speech.request for speech in speaker.speak([items], never)]
    large = items[1][0]
    assert spoken == [request for request, _ in items if request is not large]
    assert [request for request, _ in speaker.too_large] == [large]
    monkeypatch.undo()
    assert [speech.request for speech in speaker.speak([speaker.too_large], never)] == [large]


def test_batches_get_smaller_until_none_is(make_engine):
    engine = make_engine(flow_steps=1)
    engine.prepare()
    speaker = WaveformStage(engine.residency.models, engine.voice)
    speaker._memory = MIN_MEMORY
    speaker.halve()
    with pytest.raises(torch.OutOfMemoryError, match="one utterance is too large"):
        speaker.halve()


def test_what_cannot_be_spoken_says_so_and_its_neighbours_are_spoken(speaker, items, ahead, broken):
    broken(10, ValueError("no such token"))
    errors = {speech.request: speech.error for speech in speaker.speak([items], never)}
    assert len(errors) == len(items) and errors.pop(items[2][0]) == "ValueError: no such token"
    assert not any(errors.values())


def test_a_failed_batch_keeps_no_memory_until_it_is_asked_for(speaker, items, broken):
    class Activations:
        pass

    alive = []

    def hold():
        made = Activations()
        alive.append(weakref.ref(made))
        return made

    broken(9, torch.OutOfMemoryError("CUDA out of memory"), hold)
    request, decoded = items[0]
    speaker._submit([WaveformRequest(request, decoded, decoded.tokens)])
    assert len(alive) == 1 and alive[0]() is None
    assert list(speaker._collect(0, never)) == [] and len(speaker.too_large) >= 1
