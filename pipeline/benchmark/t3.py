"""The benchmark of T3: tokens a second for a window, at batch 1 and of stock; memory; agreement with FP32."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from pipeline.benchmark.machine import hardware_name, measure_bandwidth, measure_time
from pipeline.benchmark.sample import make_requests, spread
from pipeline.benchmark.stock import Stock
from pipeline.benchmark.table import Figure, Figures
from pipeline.config import BenchmarkConfig, ChatterboxConfig
from pipeline.data import TOKENS_PER_SECOND, Request, never
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.chatterbox.t3.cache import bytes_per_row
from pipeline.engine.chatterbox.t3.decoder import Decoded, Decoder
from pipeline.engine.chatterbox.token_stage import TokenStage, decoder_key
from pipeline.plan import Planned

log = logging.getLogger(__name__)

ALONE = 8  # utterances decoded at batch 1
COMPARED, STEPS = 8, 200  # number formats are compared on so many utterances, and so many tokens of each


def measure(engine: ChatterboxEngine, planned: Sequence[Planned], config: BenchmarkConfig) -> list[Figure]:
    """Measure on `planned`, longest first. Each is decoded to its end token or to its predicted length."""
    device = engine.residency.models.device
    requests = make_requests(engine, planned, config)
    figures = Figures(
        "t3", hardware_name(device), dict(precision=str(engine.precision), checkpoint=engine.identity.model)
    )
    bandwidth = measure_bandwidth(device)
    stock = Stock(engine).tokens_per_second(spread(requests, config.stock_utterances))
    log.info("stock: %.1f tokens/s", stock)
    _measure_speed(figures, engine, config.engine, requests, stock, bandwidth)
    _measure_speed(figures, engine, replace(config.engine, batch_size="1"), spread(requests, ALONE), stock, bandwidth)
    figures.add("memory copied", bandwidth / 1e9, "GB/s")
    if engine.precision.t3 != "fp32":
        agreement, divergence = compare(engine, config.engine, spread(requests, COMPARED))
        figures.add(f"{engine.precision.t3} has FP32's likeliest token", agreement, "share", steps=STEPS)
        figures.add(f"KL of {engine.precision.t3} from FP32", divergence, "nats", steps=STEPS)
    return figures.figures


def _measure_speed(
    figures: Figures,
    engine: ChatterboxEngine,
    options: ChatterboxConfig,
    requests: Sequence[Request],
    stock: float,
    bandwidth: float,
) -> None:
    """Add speed and memory. The time has reading, refills and the tail, but no loading and no graph capture."""
    device = engine.residency.models.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    token_stage = TokenStage(engine.residency.models, engine.voice, options, usual=requests[0].precision.t3)
    with measure_time(device) as start:
        for _ in token_stage.decode([replace(request, max_tokens=2) for request in requests], never):
            pass
    with measure_time(device) as run:
        decoded = [one for ended in token_stage.decode(requests, never) for _, one in ended]
    decoder, tokens = token_stage.usual_decoder, sum(len(one.tokens) for one in decoded)
    least = bytes_moved(decoder, decoded) / bandwidth
    log.info("%d utterances, %d tokens in %.2f s: %s", len(decoded), tokens, run.seconds, decoder.in_use())
    name, settings = f"batch {decoder.size}", dict(batch_size=decoder.size, tokens=tokens, utterances=len(requests))
    figures.add(f"{name}: tokens", tokens / run.seconds, "1/s", stock, least / run.seconds, **settings)
    figures.add(
        f"{name}: real time", tokens / run.seconds / TOKENS_PER_SECOND, "x", stock / TOKENS_PER_SECOND, **settings
    )
    figures.add(f"{name}: first start, weights loaded, graphs captured", start.seconds, "s", **settings)
    cache = decoder.cache.own
    figures.add(f"{name}: keys and values", cache.nbytes / 2**30, "GiB", **settings)
    figures.add(
        f"{name}: keys and values a position", cache.nbytes / cache.shape[2] / cache.shape[4], "bytes", **settings
    )
    if device.type == "cuda":
        peak, card = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        figures.add(f"{name}: peak memory", peak / 2**30, "GiB", **settings)
        figures.add(f"{name}: peak memory, of the card", peak / card, "share", **settings)


def bytes_moved(decoder: Decoder, decoded: Sequence[Decoded]) -> int:
    """The fewest bytes that decoding must read: at each step all weights, and the own cache of each row in use.

    The prefix that all rows share can be read once, and is left out.
    """
    weights = decoder.weights
    matrices = [tensor for layer in weights.layers for tensor in vars(layer).values()] + [weights.head]
    lengths = [(len(one.prompt.text), len(one.tokens)) for one in decoded]
    steps = max(max(tokens for _, tokens in lengths), -(-sum(tokens for _, tokens in lengths) // decoder.size))
    rows = 2 if decoder.cfg else 1  # only the conditional row reads the text
    positions = sum(text * tokens + rows * tokens * (tokens + 1) // 2 for text, tokens in lengths)
    each = bytes_per_row(len(weights.layers), weights.norm.shape[0], 1, weights.dtype)
    return steps * sum(tensor.nbytes for tensor in matrices) + positions * each


def compare(engine: ChatterboxEngine, options: ChatterboxConfig, requests: Sequence[Request]) -> tuple[float, float]:
    """Top-1 agreement (share) and mean KL (nats) of the requests' number format from FP32.

    Both formats are given the tokens that FP32 draws, and an utterance counts until it ends in FP32. If logits are not
    finite, the KL is not finite either.
    """
    in_fp32 = [replace(request, precision=replace(request.precision, t3="fp32")) for request in requests]
    # Few and short, so that both decoders fit on small cards.
    options = replace(options, batch_size=str(COMPARED), max_tokens=STEPS)
    decoders = [_fill_decoder(engine, options, group) for group in (in_fp32, requests)]
    agreed, divergence, steps = 0, 0.0, 0
    while (active := decoders[0].slots.active).any():
        logits = [decoder.logits() for decoder in decoders]
        exact, ours = (one[active].log_softmax(-1) for one in logits)
        agreed += (exact.argmax(-1) == ours.argmax(-1)).sum().item()
        divergence += (exact.exp() * (exact - ours)).sum().item()
        steps += len(exact)
        tokens = decoders[0].draw(logits[0])
        for decoder in decoders:
            decoder.advance(*tokens)
    return agreed / steps, divergence / steps


def _fill_decoder(engine: ChatterboxEngine, options: ChatterboxConfig, requests: Sequence[Request]) -> Decoder:
    token_stage = TokenStage(engine.residency.models, engine.voice, options, usual=requests[0].precision.t3)
    prompts = [replace(token_stage.prompt_of(request), max_tokens=STEPS) for request in requests]
    decoder = token_stage.decoder_of(decoder_key(requests[0].precision, requests[0].sampling, len(prompts[0].text)))
    decoder.fill(prompts)
    return decoder
