"""Which weights are there when: T3 and S3Gen side by side or in turns, and what happens where memory runs out."""

import logging
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config import FP32, Precision
from pipeline.device.offload import Offloaded, num_bytes
from pipeline.engine.chatterbox import residency, stand_in
from pipeline.engine.chatterbox.files import S3GEN_FILE, T3_FILE
from pipeline.engine.chatterbox.loaded import LoadedModels, verify
from pipeline.engine.chatterbox.memory import choose_phased, fit_slots, s3gen_bytes
from pipeline.engine.chatterbox.residency import Residency
from pipeline.engine.chatterbox.s3gen.flow import Flow
from pipeline.engine.chatterbox.saved import read_saved
from pipeline.engine.chatterbox.t3.decoder import Decoder
from pipeline.errors import OutOfMemory

pytestmark = pytest.mark.usefixtures("bf16")

CPU = torch.device("cpu")
GIB = 2**30
SLOT, S3GEN = int(0.29 * GIB), int(0.3 * GIB)  # BF16, 1,000 tokens
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    "free_gib, wanted, phased",
    [
        (138, None, False),  # H200
        (22.5, None, False),  # 24 GB: 32 slots
        (6, None, False),  # 8 GB: 8 beside S3Gen
        (4, None, True),  # 6 GB: 4, or 8 alone
        (1.5, None, True),  # 1, or 4 alone
        (0.4, None, False),  # 1 in any case
        (6, 8, False),
        (6, 16, True),  # as large as asked for only if S3Gen is away
        (4, 2, False),
    ],
)
def test_they_take_turns_where_few_utterances_fit_beside_s3gen(free_gib, wanted, phased, caplog):
    with caplog.at_level(logging.INFO):
        assert choose_phased(int(free_gib * GIB), S3GEN, SLOT, wanted) == phased
    assert f"engine.memory=auto: {'phased' if phased else 'resident'}, since" in caplog.text
    assert f"{free_gib:.1f} GiB are free" in caplog.text


def test_as_many_utterances_fit_as_memory_has_room_for():
    assert [fit_slots(memory, 10) for memory in (0, 10, 79, 80, 10**9)] == [1, 1, 4, 8, 256]


def test_what_s3gen_takes_on_a_card_is_read_from_the_files_header(engine, tiny):
    found = sum(
        num_bytes(one)
        for one in (engine.residency.models.flow("fp32").weights, engine.residency.models.vocoder("fp32").weights)
    )
    assert found == pytest.approx(s3gen_bytes(tiny / S3GEN_FILE, FP32), rel=0.1)
    half = s3gen_bytes(tiny / S3GEN_FILE, Precision("bf16", "bf16", "bf16", "fp32"))
    assert half * 2 == s3gen_bytes(tiny / S3GEN_FILE, FP32)


@dataclass(frozen=True)
class Some:
    pair: tuple[torch.Tensor, torch.Tensor]
    module: torch.nn.Module
    name: str


def test_weights_leave_and_come_back_as_they_were():
    some = Some((torch.randn(3), torch.randn(4)), torch.nn.Linear(2, 2), "some")
    shelf = Offloaded(some, CPU)
    assert shelf.get() is some and num_bytes(some) == 4 * (3 + 4 + 6)
    shelf.offload()
    assert shelf.look().name == "some"
    again = shelf.get()
    assert all(map(torch.equal, again.pair, some.pair)) and torch.equal(again.module.weight, some.module.weight)
    shelf.offload()
    assert torch.equal(shelf.get().pair[0], some.pair[0])


def rendered(engine, requests, phased=None):
    engine.prepare()
    if phased is not None:
        engine.residency._phased = phased
    spoken = {speech.request: speech for speech in engine.synthesize(requests, lambda: False)}
    assert spoken.keys() == set(requests) and not any(speech.error for speech in spoken.values())
    return spoken


def test_in_turns_the_same_is_spoken_window_after_window_and_only_one_is_there(make_engine, ask, monkeypatch):
    requests = [ask(seed=seed, tokens=8 + seed) for seed in range(3)]
    beside = rendered(make_engine(), requests)
    engine, here = make_engine(), []

    def noting(method, who):
        def noted(*args):
            shelves = [
                *engine.residency.models.t3s.values(),
                *(one.offloaded for one in engine.residency.models.flows.values()),
            ]
            here.append((who, [shelf._on_device is not None for shelf in shelves]))
            return method(*args)

        return noted

    monkeypatch.setattr(Decoder, "step", noting(Decoder.step, "t3"))
    monkeypatch.setattr(Flow, "_prepare_solver", noting(Flow._prepare_solver, "flow"))
    for _ in range(2):
        for request, speech in rendered(engine, requests, phased=True).items():
            assert np.array_equal(speech.samples, beside[request].samples)
    assert {(who, tuple(there)) for who, there in here} == {
        ("t3", (True,)),  # S3Gen was never loaded
        ("t3", (True, False)),
        ("flow", (False, True)),
    }


def test_in_turns_it_stops_between_them(make_engine, ask):
    engine = make_engine()
    engine.prepare()
    engine.residency._phased = True
    asked = iter([False] * 8)
    assert list(engine.synthesize([ask(tokens=25)], lambda: next(asked, True))) == []
    assert not engine.residency.models.flows


@pytest.fixture
def turns(monkeypatch):
    """As on a card with engine.memory=auto."""
    monkeypatch.setattr(Residency, "_may_phase", property(lambda self: not self._phased), raising=True)


def once(method, error=NO_MEMORY, times=1):
    calls = []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) <= times:
            raise error
        return method(*args, **options)

    return failing


@pytest.mark.parametrize(
    "where, of, times, said",
    [
        ("load_waveforms", "models", 1, "take turns"),  # at load
        ("fill", Decoder, 1, "4 utterances at a time"),  # in prefill
        ("step", Decoder, 1, "4 utterances at a time"),  # in decode
        ("step", Decoder, 4, "take turns"),  # of one utterance, even
        ("__call__", Flow, 1, "4 utterances at a time"),  # in S3Gen
        ("__call__", Flow, 20, "take turns"),
    ],
)
def test_nothing_is_lost_where_memory_runs_out(make_engine, ask, turns, monkeypatch, caplog, where, of, times, said):
    requests = [ask(seed=seed, tokens=6) for seed in range(3)]
    engine = make_engine()
    engine.prepare()
    of = type(engine.residency.models) if of == "models" else of
    monkeypatch.setattr(of, where, once(getattr(of, where), times=times))
    with caplog.at_level(logging.WARNING):
        spoken = {speech.request: speech for speech in engine.synthesize(requests, lambda: False)}
    assert spoken.keys() == set(requests) and all(len(speech.samples) == 6 * 960 for speech in spoken.values())
    assert said in caplog.text


def test_what_does_not_fit_even_in_turns_ends_the_job_in_one_line(make_engine, ask, turns, monkeypatch):
    engine = make_engine()
    engine.prepare()
    monkeypatch.setattr(Decoder, "step", once(Decoder.step, times=1000))
    with pytest.raises(OutOfMemory, match="too little memory even for engine.batch_size=1: lower engine.max_tokens"):
        list(engine.synthesize([ask()], lambda: False))


def test_while_loading_weights_are_the_files_own_bytes(tiny):
    weight = read_saved(tiny / T3_FILE)["tfmr.layers.0.mlp.up_proj.weight"]
    address = weight.data_ptr()
    for line in open("/proc/self/maps"):
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            assert line.rstrip().endswith(str(tiny / T3_FILE))
            return
    raise AssertionError("nowhere")


def test_weights_in_another_format_than_was_asked_for_are_an_error(engine):
    flow = engine.residency.models.flow("fp32").weights
    with pytest.raises(RuntimeError, match="the weights of the flow are .*float32.* where torch.bfloat16 was wanted"):
        verify("the flow", (flow.encoder, flow.estimator), torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_checkpoint_saved_in_half_precision_loads_as_it_is(make_engine, ask, tmp_path, dtype):
    folder = tmp_path / "half"
    stand_in.write(folder, "stand-in-tiny")
    for path in folder.glob("*.safetensors"):
        halved = {name: one.to(dtype) if one.is_floating_point() else one for name, one in load_file(path).items()}
        save_file(halved, path)
    half = "bf16" if dtype == torch.bfloat16 else "fp32"
    engine = make_engine(checkpoint=str(folder), precision=Precision(half, "fp32", "fp32", "fp32"))
    engine.prepare()
    assert {tensor.dtype for tensor in read_saved(folder / T3_FILE).tensors.values()} == {dtype}
    (speech,) = engine.synthesize([ask(tokens=5, precision=engine.precision)], lambda: False)
    assert speech.error == "" and np.isfinite(speech.samples).all() and len(speech.samples) == 5 * 960


def test_turns_are_short_enough_that_a_stop_costs_little(make_engine, ask, monkeypatch):
    monkeypatch.setattr(residency, "TURN", 2)
    engine, decoded = make_engine(), []
    engine.prepare()
    engine.residency._phased = True
    decode = engine.residency.token_stage.decode
    monkeypatch.setattr(
        engine.residency.token_stage,
        "decode",
        lambda some, stopping: decoded.append(len(some)) or decode(some, stopping),
    )
    requests = [ask(seed=seed, tokens=5) for seed in range(5)]
    spoken = {speech.request for speech in engine.synthesize(requests, lambda: False)}
    assert spoken == set(requests) and decoded == [2, 2, 1]


def test_what_ran_out_of_memory_side_by_side_takes_turns_in_a_safer_precision_too(make_engine, ask, turns, monkeypatch):
    engine = make_engine(precision=Precision("bf16", "fp32", "fp32", "fp32"))
    engine.prepare()
    monkeypatch.setattr(LoadedModels, "load_waveforms", once(LoadedModels.load_waveforms))
    list(engine.synthesize([ask(tokens=3, precision=engine.precision)], lambda: False))
    assert engine.in_use()["memory"] == "phased"
    engine.use(FP32)
    assert list(engine.residency.models.t3s) == []  # BF16's are freed
    (speech,) = engine.synthesize([ask(tokens=3)], lambda: False)
    assert (
        speech.error == ""
        and engine.in_use()["memory"] == "phased"
        and list(engine.residency.models.t3s) == [torch.float32]
    )


def test_an_engine_that_nobody_knows_leaves_nothing_behind(make_engine, ask):
    engine = make_engine()
    rendered(engine, [ask(tokens=3)])
    known = weakref.ref(engine.residency.models)
    del engine
    make_engine().prepare()
    assert known() is None


@pytest.mark.gpu
def test_in_turns_a_cards_memory_holds_one_at_a_time(cache, ask):
    from pipeline.config import ChatterboxConfig, VoiceConfig
    from pipeline.engine.chatterbox.engine import ChatterboxEngine

    def made(memory):
        options = ChatterboxConfig(
            checkpoint="stand-in-tiny", cache=str(cache), flow_steps=2, batch_size="4", max_tokens=100, memory=memory
        )
        engine = ChatterboxEngine(options, VoiceConfig(), Precision(), "cuda")
        engine.prepare()
        return engine

    def spoken(engine):
        requests = [ask(seed=seed, tokens=20 + seed, precision=engine.precision) for seed in range(9)]
        return {speech.request: speech for speech in engine.synthesize(requests, lambda: False)}

    resident, phased = made("resident"), made("phased")
    for _ in range(2):
        beside, turns = spoken(resident), spoken(phased)
        assert turns.keys() == beside.keys()
        for request, speech in turns.items():
            assert np.array_equal(speech.tokens, beside[request].tokens)
            assert np.allclose(speech.samples, beside[request].samples, atol=1e-2)
        assert phased.residency.models.t3s[torch.bfloat16]._on_device is None
        assert all(one.offloaded._on_device is not None for one in phased.residency.models.flows.values())
    assert phased.in_use()["memory"] == "phased" and resident.in_use()["memory"] == "resident"
