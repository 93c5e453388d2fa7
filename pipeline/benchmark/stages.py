"""Each stage of a job alone, on the same utterances, so that the slowest has a name."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.benchmark.machine import timed
from pipeline.benchmark.s3gen import ALONE, gathered
from pipeline.benchmark.sample import requests_of
from pipeline.checks import judge
from pipeline.config import BenchmarkConfig
from pipeline.data import SAMPLE_RATE, never
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.registry import build_engine
from pipeline.plan import Planned
from pipeline.store.wav import to_float, to_pcm16, write_wav
from pipeline.watermark import build_watermarker


def stages(
    engine: ChatterboxEngine, planned: Sequence[Planned], config: BenchmarkConfig, folder: Path
) -> dict[str, float]:
    """Seconds of speech a second of each stage; checks and files on one thread, where a job has four of each."""
    device, rate, seconds = engine.residency.models.device, SAMPLE_RATE, {}
    requests = requests_of(engine, planned, config)
    list(
        engine.residency.token_stage.decode([replace(one, max_tokens=2) for one in requests], never)
    )  # graphs are captured
    with timed(device) as run:
        decoded = list(engine.residency.token_stage.decode(requests, never))
    seconds["tokens"] = run.seconds
    with timed(device) as run:
        speeches = list(engine.residency.waveform_stage.speak(decoded, never))
    seconds["waveforms"] = run.seconds
    with timed(device) as run:
        for speech in speeches:
            judge(speech, rate, config.check, engine.unchecked)
    seconds["checks"] = run.seconds
    watermarker = build_watermarker(config.watermark, engine.device)
    with timed(device) as run:
        spoken = [speech.samples for speech in speeches]
        pcms = [to_pcm16(one) for some in gathered(spoken, watermarker, rate) for one in watermarker.apply(some, rate)]
    seconds["watermark"] = run.seconds
    with timed(device) as run:
        for some in gathered([to_float(pcm) for pcm in pcms], watermarker, rate):
            watermarker.score(some, rate)
    seconds["its detection"] = run.seconds
    with timed(device) as run:
        for number, pcm in enumerate(pcms):
            write_wav(folder / "alone" / f"{number}.wav", pcm, rate)
    seconds["files"] = run.seconds
    audio_s = sum(map(len, pcms)) / rate
    return {stage: audio_s / taken for stage, taken in seconds.items()}


def alone(config: BenchmarkConfig, planned: Sequence[Planned]) -> float:
    """Seconds from a text to 10 s of samples, with `engine.batch_size=1`."""
    config = replace(config, engine=replace(config.engine, batch_size="1"))
    engine = build_engine(config)
    engine.prepare()
    request = replace(requests_of(engine, planned[:1], config)[0], max_tokens=ALONE)
    for _ in range(2):  # the first prepares
        with timed(engine.residency.models.device) as run:
            list(engine.synthesize([request], never))
    return run.seconds
