"""The decoder on a GPU, at full size: kernels, captured graphs, prefill in groups, ends seen a step late."""

import os
from itertools import chain

import pytest
import torch

from pipeline.engine.chatterbox.loaded import LoadedModels
from pipeline.engine.chatterbox.t3 import decoder
from pipeline.engine.chatterbox.t3.batch import decode
from pipeline.engine.chatterbox.t3.decoder import Decoder
from pipeline.engine.chatterbox.t3.transformer import compute_prefix

pytestmark = pytest.mark.gpu
WORDS = "a candle came down the stair and nobody was carrying it so he turned his horse and went home again".split()


@pytest.fixture(scope="module")
def full(cache, make_engine):
    """The full-size stand-in, on the GPU."""
    engine = make_engine(checkpoint="stand-in", cache=os.environ.get("CHATTERBOX_BATCH_CACHE", str(cache)))
    engine.prepare()
    return LoadedModels(engine.residency.models.folder, torch.device("cuda"), 10)


@pytest.fixture(scope="module")
def make_gpu_decoder(full):
    def make(size: int, number_format: str, models: LoadedModels = full, **options) -> Decoder:
        dtype = torch.bfloat16 if number_format == "bf16" else torch.float32
        weights = models.t3(dtype)
        prefix = compute_prefix(weights, models.builtin_voice, 0.5, text_length=128)
        return Decoder(weights, prefix, size, 100, number_format=number_format, **options)

    return make


@pytest.fixture
def prompts(make_prompt):
    """More than fit at once, of lengths from one bucket to the next."""

    def make(count: int, **sampling) -> list:
        texts = [" ".join(WORDS[: 1 + number % len(WORDS)]) for number in range(count)]
        return [make_prompt(text, seed=n, tokens=20 + 7 * n % 40, **sampling) for n, text in enumerate(texts)]

    return make


def tokens_of(decoder, prompts):
    decoded = {one.prompt: one for one in chain.from_iterable(decode(decoder, prompts))}
    assert len(decoded) == len(prompts) and all(one.finite for one in decoded.values())
    return [decoded[prompt].tokens.tolist() for prompt in prompts]


@pytest.mark.parametrize("size", [4, 20])
def test_greedy_fp32_tokens_are_the_cpus(size, tiny, make_gpu_decoder, make_decoder, prompts):
    asked, models = prompts(8, min_p=1.0), LoadedModels(tiny, torch.device("cuda"), 10)
    ours, expected = tokens_of(make_gpu_decoder(size, "fp32", models), asked), tokens_of(make_decoder(8), asked)
    assert sum(one == other for one, other in zip(ours, expected, strict=True)) >= 7  # a near tie may part one


@pytest.mark.parametrize("number_format", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("size", [4, 20])
@pytest.mark.parametrize("options", [dict(), dict(cfg=False), dict(with_top_p=False)])
def test_an_utterance_has_the_same_tokens_in_any_batch(size, number_format, options, make_gpu_decoder, prompts):
    decoder, asked = make_gpu_decoder(size, number_format, **options), prompts(50)
    together = tokens_of(decoder, asked)
    assert tokens_of(decoder, asked[::-1]) == together[::-1]
    for number in (0, 17, 33, 49):
        assert tokens_of(decoder, [asked[number]]) == [together[number]]
    assert [len(tokens) for tokens in together] == [prompt.max_tokens for prompt in asked]


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32, 64, 128, 256])
def test_logits_have_the_same_bits_in_any_batch(size, make_gpu_decoder, prompts):
    decoder, asked = make_gpu_decoder(size, "bf16"), prompts(2 * size)
    expected = logits_after(decoder, asked[:size], steps=15)
    others = logits_after(decoder, [*asked[size:], *asked[: -(-size // 2)]][-size:], steps=15)
    alone = logits_after(decoder, asked[:1], steps=15)
    assert asked[0] in others
    for logits in (others, alone):
        assert all(torch.equal(logits[prompt], expected[prompt]) for prompt in logits.keys() & expected.keys())


def logits_after(decoder, prompts, steps):
    """By prompt; the decoder is empty again."""
    decoder.fill(prompts)
    for _ in range(steps):
        decoder.step()
    logits = decoder.logits()
    made = {prompt: logits[slot].clone() for slot, prompt in decoder.prompts.items()}
    decoder.take(list(decoder.prompts))
    return made


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 20, 32, 64, 128, 256])
def test_captured_graphs_compute_what_uncaptured_work_does(size, make_gpu_decoder, prompts, monkeypatch):
    """Every batch size that `engine.batch_size` can be; steps and prefill."""
    asked = prompts(size + 3)
    captured = tokens_of(make_gpu_decoder(size, "bf16"), asked)
    monkeypatch.setattr(decoder, "capture", lambda work, device: work)
    assert captured == tokens_of(make_gpu_decoder(size, "bf16"), asked)
