"""The benchmark of S3Gen and the watermark: from tokens to watermarked samples, and each part alone.

Speeds are seconds of speech per second.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from pipeline.benchmark.machine import hardware_name, measure_time
from pipeline.benchmark.sample import make_requests, spread
from pipeline.benchmark.stock import Stock
from pipeline.benchmark.table import Figure, Figures
from pipeline.config import BenchmarkConfig
from pipeline.data import SAMPLE_RATE, Request, never
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.chatterbox.memory import workspace_bytes
from pipeline.engine.chatterbox.s3gen.flow import Flow, best_size, pack_frames
from pipeline.engine.chatterbox.t3.decoder import Decoded
from pipeline.engine.chatterbox.t3.slots import Prompt
from pipeline.engine.chatterbox.vocabulary import SPEECH_TOKENS
from pipeline.engine.chatterbox.voice import Conditionals
from pipeline.engine.chatterbox.waveform_stage import WaveformStage
from pipeline.plan import Planned
from pipeline.watermark import Watermarker, build_watermarker

log = logging.getLogger(__name__)

ALONE = 250  # tokens, 10 s
DrawnTokens = tuple[Request, Decoded]


def measure(engine: ChatterboxEngine, planned: Sequence[Planned], config: BenchmarkConfig) -> list[Figure]:
    """Measure with random tokens, as many as each text of `planned` predicts: the time depends on their number only."""
    models, device, rate = engine.residency.models, engine.residency.models.device, SAMPLE_RATE
    requests = make_requests(engine, planned, config)
    items = [(request, draw_tokens(request, request.max_tokens)) for request in requests]
    prompt = engine.voice(engine.precision.voice_encoder).prompt_token.shape[1]
    settings = dict(precision=str(engine.precision), checkpoint=engine.identity.model, prompt_tokens=prompt)
    settings |= dict(flow_steps=config.engine.flow_steps, utterances=len(items))
    figures = Figures("s3gen", hardware_name(device), settings)
    few = spread(items, config.stock_utterances)
    stock = Stock(engine).x_realtime([decoded.tokens for _, decoded in few])
    log.info("stock: %.1f x real time", stock)

    waveform_stage = WaveformStage(models, engine.voice)
    watermarker = build_watermarker(config.watermark, engine.device)
    with measure_time(device) as start:
        spoken = [speech.samples for speech in waveform_stage.speak([items], never)]
        marked = [one for batch in batch_samples(spoken, watermarker, rate) for one in watermarker.apply(batch, rate)]
    audio_s = sum(len(samples) for samples in spoken) / rate
    with measure_time(device) as whole:
        speech = (speech.samples for speech in waveform_stage.speak([items], never))
        for batch in batch_samples(speech, watermarker, rate):
            watermarker.apply(batch, rate)
    figures.add("tokens to watermarked samples", audio_s / whole.seconds, "x real time", stock, audio_s=audio_s)
    figures.add("first start, weights loaded, graphs captured", start.seconds - whole.seconds, "s")
    for name, seconds in _measure_parts(engine, items, spoken, marked, watermarker).items():
        figures.add(f"{name} alone", audio_s / seconds, "x real time", audio_s=audio_s)
    figures.add("10 s of speech alone", _measure_alone(waveform_stage, requests[0], device), "s")
    if device.type == "cuda":
        figures.add("peak memory", torch.cuda.max_memory_allocated(device) / 2**30, "GiB")
    return figures.figures


def draw_tokens(request: Request, count: int) -> Decoded:
    """`count` random speech tokens, drawn with the request's seed."""
    generator = torch.Generator().manual_seed(request.seed)
    prompt = Prompt((), request.seed, request.sampling, count)
    return Decoded(prompt, torch.randint(SPEECH_TOKENS, (count,), generator=generator), ended=True, finite=True)


def batch_samples(spoken: Iterable[np.ndarray], watermarker: Watermarker, rate: int) -> Iterator[list[np.ndarray]]:
    """Batches of at least `watermarker.batch_s` seconds, except the last. `rate` is in Hz."""
    batch: list[np.ndarray] = []
    for samples in spoken:
        batch.append(samples)
        if sum(map(len, batch)) / rate >= watermarker.batch_s:
            yield batch
            batch = []
    if batch:
        yield batch


@torch.inference_mode()
def _measure_parts(
    engine: ChatterboxEngine,
    items: Sequence[DrawnTokens],
    spoken: Sequence[np.ndarray],
    marked: Sequence[np.ndarray],
    watermarker: Watermarker,
) -> dict[str, float]:
    """Seconds that each part takes for all `items`."""
    models, device, rate, precision = (
        engine.residency.models,
        engine.residency.models.device,
        SAMPLE_RATE,
        engine.precision,
    )
    flow, voice, seconds = models.flow(precision.flow), engine.voice(precision.voice_encoder), {}
    packs = list(_make_packs(items, flow, voice))
    with measure_time(device) as run:
        mels = [flow([one.tokens for _, one in pack], [request.seed for request, _ in pack], voice) for pack in packs]
    seconds["flow"] = run.seconds
    with measure_time(device) as run:
        for pack, made in zip(packs, mels, strict=True):
            models.vocoder(precision.vocoder)(
                made, [request.seed for request, _ in pack], precision.vocoder, workspace_bytes(device)
            )
    seconds["vocoder"] = run.seconds
    for name, work, samples in (("watermark", watermarker.apply, spoken), ("its detection", watermarker.score, marked)):
        with measure_time(device) as run:
            for batch in batch_samples(samples, watermarker, rate):
                work(batch, rate)
        seconds[name] = run.seconds
    return seconds


def _make_packs(items: Sequence[DrawnTokens], flow: Flow, voice: Conditionals) -> Iterator[list[DrawnTokens]]:
    """Group items in order, each pack up to the flow's best size."""
    pack: list[DrawnTokens] = []
    for item in items:
        taken = sum(pack_frames(len(decoded.tokens), voice) for _, decoded in [*pack, item])
        if pack and taken > best_size(flow.device, flow.number_format, workspace_bytes(flow.device)):
            yield pack
            pack = []
        pack.append(item)
    yield pack


def _measure_alone(waveform_stage: WaveformStage, request: Request, device: torch.device) -> float:
    """Seconds from tokens to samples for one utterance alone."""
    item = (request, draw_tokens(request, ALONE))
    for _ in range(2):  # the first call warms up
        with measure_time(device) as run:
            list(waveform_stage.speak([[item]], never))
    return run.seconds
