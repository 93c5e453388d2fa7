"""Measures each stage of a job alone, on the same utterances, to find the slowest."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from pipeline.benchmark.machine import measure_time
from pipeline.benchmark.s3gen import ALONE, batch_samples
from pipeline.benchmark.sample import make_requests
from pipeline.checks import judge
from pipeline.config import BenchmarkConfig
from pipeline.data import SAMPLE_RATE, never
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.registry import build_engine
from pipeline.plan import Planned
from pipeline.store.wav import to_float, to_pcm16, write_wav
from pipeline.watermark import build_watermarker


def measure_stages(
    engine: ChatterboxEngine, planned: Sequence[Planned], config: BenchmarkConfig, folder: Path
) -> dict[str, float]:
    """Seconds of speech per second, by stage. Checks and files use one thread; a job has four for each."""
    device, rate, seconds = engine.residency.models.device, SAMPLE_RATE, {}
    requests = make_requests(engine, planned, config)
    # Captures the graphs.
    list(engine.residency.token_stage.decode([replace(one, max_tokens=2) for one in requests], never))
    with measure_time(device) as run:
        decoded = list(chain.from_iterable(engine.residency.token_stage.decode(requests, never)))
    seconds["tokens"] = run.seconds
    with measure_time(device) as run:
        speeches = list(engine.residency.waveform_stage.speak([decoded], never))
    seconds["waveforms"] = run.seconds
    with measure_time(device) as run:
        for speech in speeches:
            judge(speech, rate, config.check, engine.unchecked)
    seconds["checks"] = run.seconds
    watermarker = build_watermarker(config.watermark, engine.device)
    with measure_time(device) as run:
        spoken = [speech.samples for speech in speeches]
        pcms = [
            to_pcm16(one)
            for batch in batch_samples(spoken, watermarker, rate)
            for one in watermarker.apply(batch, rate)
        ]
    seconds["watermark"] = run.seconds
    with measure_time(device) as run:
        for batch in batch_samples([to_float(pcm) for pcm in pcms], watermarker, rate):
            watermarker.score(batch, rate)
    seconds["its detection"] = run.seconds
    with measure_time(device) as run:
        for number, pcm in enumerate(pcms):
            write_wav(folder / "alone" / f"{number}.wav", pcm, rate)
    seconds["files"] = run.seconds
    audio_s = sum(map(len, pcms)) / rate
    return {stage: audio_s / taken for stage, taken in seconds.items()}


def measure_latency(config: BenchmarkConfig, planned: Sequence[Planned]) -> float:
    """Seconds from a text to 10 s of speech, with `engine.batch_size=1`."""
    config = replace(config, engine=replace(config.engine, batch_size="1"))
    engine = build_engine(config)
    engine.prepare()
    request = replace(make_requests(engine, planned[:1], config)[0], max_tokens=ALONE)
    for _ in range(2):  # the first call warms up
        with measure_time(engine.residency.models.device) as run:
            list(engine.synthesize([request], never))
    return run.seconds
