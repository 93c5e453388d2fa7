"""The decoder on a GPU: kernels, a captured graph, prompts read in groups, ended ones noticed a step later."""

import pytest
import torch

from pipeline.engine.chatterbox.model import Models
from pipeline.engine.chatterbox.t3.batch import decode
from pipeline.engine.chatterbox.t3.decoder import Decoder
from pipeline.engine.chatterbox.t3.transformer import read_prefix

pytestmark = pytest.mark.gpu
WORDS = "a candle came down the stair and nobody was carrying it so he turned his horse and went home again".split()


@pytest.fixture(scope="module")
def make_gpu_decoder(tiny):
    models = Models(tiny, torch.device("cuda"))

    def make(size: int, number_format: str, **options) -> Decoder:
        dtype = torch.bfloat16 if number_format == "bf16" else torch.float32
        weights = models.t3(dtype)
        prefix = read_prefix(weights, models.builtin_voice, 0.5, text_length=128)
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
    decoded = {one.prompt: one for one in decode(decoder, prompts)}
    assert len(decoded) == len(prompts) and all(one.finite for one in decoded.values())
    return [decoded[prompt].tokens.tolist() for prompt in prompts]


@pytest.mark.parametrize("size", [4, 20])
def test_greedy_fp32_tokens_are_the_cpus(size, make_gpu_decoder, make_decoder, prompts):
    asked = prompts(8, min_p=1.0)
    ours, expected = tokens_of(make_gpu_decoder(size, "fp32"), asked), tokens_of(make_decoder(8), asked)
    assert sum(one == other for one, other in zip(ours, expected, strict=True)) >= 7  # a near tie may part one


@pytest.mark.parametrize("number_format", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("size", [4, 20])
@pytest.mark.parametrize("options", [dict(), dict(guided=False), dict(with_top_p=False)])
def test_an_utterance_has_the_same_tokens_in_any_company(size, number_format, options, make_gpu_decoder, prompts):
    decoder, asked = make_gpu_decoder(size, number_format, **options), prompts(50)
    together = tokens_of(decoder, asked)
    assert tokens_of(decoder, asked[::-1]) == together[::-1]
    for number in (0, 17, 33, 49):
        assert tokens_of(decoder, [asked[number]]) == [together[number]]
    assert [len(tokens) for tokens in together] == [prompt.max_tokens for prompt in asked]


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 20, 32, 64, 128, 256])
def test_the_graphs_compute_what_their_work_does_outside_of_them(size, make_gpu_decoder, prompts, monkeypatch):
    asked, captured = prompts(size + 3), make_gpu_decoder(size, "bf16")
    monkeypatch.setattr(Decoder, "_captured", lambda self, work: work)
    assert tokens_of(captured, asked) == tokens_of(make_gpu_decoder(size, "bf16"), asked)
