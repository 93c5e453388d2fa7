"""S3Gen and the watermark: seconds of speech a second, from tokens to watermarked samples, and of each part alone."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pipeline.benchmark.machine import hardware, timed
from pipeline.benchmark.sample import requests_of, spread
from pipeline.benchmark.stock import Stock
from pipeline.benchmark.table import Figure, Figures
from pipeline.config import BenchmarkConfig
from pipeline.data import SAMPLE_RATE, Request, never
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.chatterbox.memory import workspace
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
Drawn = tuple[Request, Decoded]


def measure(engine: ChatterboxEngine, planned: Sequence[Planned], config: BenchmarkConfig) -> list[Figure]:
    """Random tokens, as many for each of `planned` as its text predicts: what they are changes no time."""
    models, device, rate = engine.residency.models, engine.residency.models.device, SAMPLE_RATE
    requests = requests_of(engine, planned, config)
    items = [(request, drawn(request, request.max_tokens)) for request in requests]
    prompt = engine.voice(engine.precision.voice_encoder).prompt_token.shape[1]
    settings = dict(precision=str(engine.precision), checkpoint=engine.identity.model, prompt_tokens=prompt)
    settings |= dict(flow_steps=config.engine.flow_steps, utterances=len(items))
    figures = Figures("s3gen", hardware(device), settings)
    few = spread(items, config.stock_utterances)
    stock = Stock(engine).x_realtime([decoded.tokens for _, decoded in few])
    log.info("stock: %.1f x real time", stock)

    speaker, watermarker = WaveformStage(models, engine.voice), build_watermarker(config.watermark, engine.device)
    with timed(device) as start:
        spoken = [speech.samples for speech in speaker.speak(items, never)]
        marked = [one for batch in gathered(spoken, watermarker, rate) for one in watermarker.apply(batch, rate)]
    audio_s = sum(len(samples) for samples in spoken) / rate
    with timed(device) as whole:
        speech = (speech.samples for speech in speaker.speak(items, never))
        for batch in gathered(speech, watermarker, rate):
            watermarker.apply(batch, rate)
    figures.add("tokens to watermarked samples", audio_s / whole.seconds, "x real time", stock, audio_s=audio_s)
    figures.add("first start, weights loaded, graphs captured", start.seconds - whole.seconds, "s")
    for name, seconds in _parts(engine, items, spoken, marked, watermarker).items():
        figures.add(f"{name} alone", audio_s / seconds, "x real time", audio_s=audio_s)
    figures.add("10 s of speech alone", _alone(speaker, requests[0], device), "s")
    if device.type == "cuda":
        figures.add("peak memory", torch.cuda.max_memory_allocated(device) / 2**30, "GiB")
    return figures.figures


def drawn(request: Request, count: int) -> Decoded:
    """So many speech tokens, by the request's seed."""
    generator = torch.Generator().manual_seed(request.seed)
    prompt = Prompt((), request.seed, request.sampling, count)
    return Decoded(prompt, torch.randint(SPEECH_TOKENS, (count,), generator=generator), ended=True, finite=True)


def gathered(spoken: Sequence[np.ndarray], watermarker: Watermarker, rate: int) -> Iterator[list[np.ndarray]]:
    """Batches of as many seconds as the watermarker likes best."""
    batch: list[np.ndarray] = []
    for samples in spoken:
        batch.append(samples)
        if sum(map(len, batch)) / rate >= watermarker.batch_s:
            yield batch
            batch = []
    if batch:
        yield batch


@torch.inference_mode()
def _parts(
    engine: ChatterboxEngine,
    items: Sequence[Drawn],
    spoken: Sequence[np.ndarray],
    marked: Sequence[np.ndarray],
    watermarker: Watermarker,
) -> dict[str, float]:
    """Seconds that each part takes for all of `items`."""
    models, device, rate, precision = (
        engine.residency.models,
        engine.residency.models.device,
        SAMPLE_RATE,
        engine.precision,
    )
    flow, voice, seconds = models.flow(precision.flow), engine.voice(precision.voice_encoder), {}
    packs = list(_packs(items, flow, voice))
    with timed(device) as run:
        mels = [flow([one.tokens for _, one in pack], [asked.seed for asked, _ in pack], voice) for pack in packs]
    seconds["flow"] = run.seconds
    with timed(device) as run:
        for pack, made in zip(packs, mels, strict=True):
            models.vocoder(precision.vocoder)(
                made, [asked.seed for asked, _ in pack], precision.vocoder, workspace(device)
            )
    seconds["vocoder"] = run.seconds
    for name, work, samples in (("watermark", watermarker.apply, spoken), ("its detection", watermarker.score, marked)):
        with timed(device) as run:
            for batch in gathered(samples, watermarker, rate):
                work(batch, rate)
        seconds[name] = run.seconds
    return seconds


def _packs(items: Sequence[Drawn], flow: Flow, voice: Conditionals) -> Iterator[list[Drawn]]:
    """In their order, as many as the flow likes best at once."""
    pack: list[Drawn] = []
    for item in items:
        taken = sum(pack_frames(len(decoded.tokens), voice) for _, decoded in [*pack, item])
        if pack and taken > best_size(flow.device, flow.number_format, workspace(flow.device)):
            yield pack
            pack = []
        pack.append(item)
    yield pack


def _alone(speaker: WaveformStage, request: Request, device: torch.device) -> float:
    """Seconds from tokens to samples, where nobody else is spoken."""
    item = (request, drawn(request, ALONE))
    for _ in range(2):  # the first prepares
        with timed(device) as run:
            list(speaker.speak([item], never))
    return run.seconds
