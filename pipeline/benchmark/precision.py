"""Precision policies one after the other, each in an engine of its own: speed, memory, and how far from FP32 it is.

FP32 comes first. What is held against it is made of its tokens with its seeds, so that only rounding differs.
Knows nothing of Hydra, nor of what becomes of the figures.
"""

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.benchmark.job import run_job
from pipeline.benchmark.likeness import embeddings, flow_distance, mel_distance
from pipeline.benchmark.machine import timed
from pipeline.benchmark.outcome import PolicyOutcome
from pipeline.benchmark.sample import requests_of, spread
from pipeline.benchmark.t3 import COMPARED, compare
from pipeline.checks import judge
from pipeline.config import FP32, BenchmarkConfig, Precision
from pipeline.data import SAMPLE_RATE, NotFinite, Request, Speech, never
from pipeline.device.dtypes import DTYPES, float32_math
from pipeline.device.offload import num_bytes
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.chatterbox.stock import VOICE_ENCODER_FILE, load
from pipeline.engine.chatterbox.token_stage import DecodedRequest
from pipeline.engine.chatterbox.waveform_stage import speech_tokens
from pipeline.engine.registry import build_engine
from pipeline.plan import Planned
from pipeline.run.stop import Stop
from pipeline.store.finished import read_records
from pipeline.watermark import build_watermarker

log = logging.getLogger(__name__)

GIB = 2**30


@dataclass(frozen=True)
class Reference:
    """What FP32 made of the sample, kept on the CPU."""

    items: Sequence[DecodedRequest]  # requests with their tokens
    samples: Mapping[str, np.ndarray]  # by utterance
    mels: Sequence[torch.Tensor]  # of some


@dataclass(frozen=True)
class Memory:
    """GiB of a CUDA device that a job took at most, and that it left taken; None: not to be had."""

    peak: float | None = None
    steady: float | None = None


def measure(
    planned: Sequence[Planned], config: BenchmarkConfig, policies: Mapping[str, Precision], stop: Stop
) -> list[PolicyOutcome]:
    """FP32 and then `policies` on the sample `planned`, longest first; jobs on a book of just these."""
    outcomes: list[PolicyOutcome] = []
    reference = None
    build_watermarker(config.watermark, "cpu")  # imports what the first job alone would wait for
    with tempfile.TemporaryDirectory(dir=config.out, prefix="runs-") as scratch:
        book = Path(scratch, "sample.txt")
        book.write_text("\n\n".join(item.utterance.text for item in planned), encoding="utf-8")
        whole = replace(config, book=str(book), chapters=None)
        for name, policy in ({"fp32": FP32} | dict(policies)).items():
            changed = replace(whole, precision=policy, out=str(Path(scratch, name)))
            outcome, made = _measure(name, planned, changed, stop, reference)
            reference = reference or made
            outcomes.append(outcome)
            log.info("policy %s, in use as %s: measured", name, outcome.used)
    return outcomes


def _measure(
    name: str, planned: Sequence[Planned], config: BenchmarkConfig, stop: Stop, reference: Reference | None
) -> tuple[PolicyOutcome, Reference]:
    """One policy. `reference`: None if it is the one that the others are held against."""
    engine, weights = _loaded(config)
    requests = requests_of(engine, planned, config)
    own, tokens_per_s = _decoded(engine, requests)
    failed = _failed(engine, own, config)
    items = reference.items if reference else own
    samples, s3gen = _spoken(engine, [(replace(asked, precision=engine.precision), one) for asked, one in items])
    made = Reference(items, samples, _mels(engine, spread(items, COMPARED)))
    job, memory = _job(engine, config, stop)
    engine.residency.token_stage.forget()  # the comparison wants their memory
    agreement, kl = _compared(engine, config, spread(requests, COMPARED))
    against = reference or made
    distance, cosine = _likeness(engine, against.samples, samples)
    return PolicyOutcome(
        policy=name,
        used=str(engine.precision),
        t3_tokens_per_s=tokens_per_s,
        s3gen_x_realtime=s3gen,
        job_x_realtime=job,
        peak_gib=memory.peak,
        steady_gib=memory.steady,
        weights_gib=weights,
        t3_agreement=agreement,
        t3_kl_nats=kl,
        flow_distance_db=flow_distance(list(zip(against.mels, made.mels, strict=False))),
        mel_distance_db=distance,
        speaker_cosine=cosine,
        checks_failed=failed,
    ), made


def _loaded(config: BenchmarkConfig) -> tuple[ChatterboxEngine, float]:
    """An engine with the weights of its precision, and their GiB."""
    engine = build_engine(config)
    engine.prepare()
    engine.residency.models.t3(DTYPES[engine.precision.t3])
    _ = engine.residency.token_stage  # decides what stays on the device, while S3Gen is not there
    models = engine.residency.models
    models.load_waveforms(engine.precision)
    weights = [*models.t3s.values(), *(one.offloaded for one in (*models.flows.values(), *models.vocoders.values()))]
    return engine, sum(num_bytes(one.look()) for one in weights) / GIB


def _decoded(engine: ChatterboxEngine, requests: Sequence[Request]) -> tuple[list[DecodedRequest], float]:
    """Each request with its tokens, and tokens a second."""
    list(
        engine.residency.token_stage.decode([replace(one, max_tokens=2) for one in requests], never)
    )  # graphs are captured
    with timed(engine.residency.models.device) as run:
        items = list(engine.residency.token_stage.decode(requests, never))
    return items, sum(len(one.tokens) for _, one in items if not isinstance(one, Exception)) / run.seconds


def _speak(engine: ChatterboxEngine, items: Sequence[DecodedRequest]) -> list[Speech]:
    return list(engine.residency.waveform_stage.speak(items, never))


def _failed(engine: ChatterboxEngine, items: Sequence[DecodedRequest], config: BenchmarkConfig) -> int:
    """How many are not as the checks want them, or could not be spoken."""
    verdicts = [judge(speech, SAMPLE_RATE, config.check, engine.unchecked).is_good for speech in _speak(engine, items)]
    return verdicts.count(False)


def _spoken(engine: ChatterboxEngine, items: Sequence[DecodedRequest]) -> tuple[dict[str, np.ndarray], float]:
    """What could be spoken, by utterance, and seconds of it a second."""
    if engine.residency.models.device.type == "cuda":
        _speak(engine, items)  # graphs of just these shapes are captured
    with timed(engine.residency.models.device) as run:
        speeches = _speak(engine, items)
    # Copies, since what they lie in may be memory that a GPU writes to.
    samples = {speech.request.utterance.id: speech.samples.copy() for speech in speeches if not speech.error}
    return samples, sum(map(len, samples.values())) / SAMPLE_RATE / run.seconds


def _mels(engine: ChatterboxEngine, items: Sequence[DecodedRequest]) -> list[torch.Tensor]:
    """What the flow makes of each; of what has no tokens nothing. (80, frames) float32 on the CPU"""
    flow, mels = engine.residency.models.flow(engine.precision.flow), []
    for asked, decoded in items:
        with suppress(NotFinite, ValueError):
            voice = engine.voice(engine.precision.voice_encoder)
            mels += flow([speech_tokens(decoded)], [asked.seed], voice)
    return [mel.cpu() for mel in mels]


def _job(engine: ChatterboxEngine, config: BenchmarkConfig, stop: Stop) -> tuple[float, Memory]:
    """Seconds of speech a second of a whole job, its start and its end included, and its memory."""
    device, folder = engine.residency.models.device, Path(config.out)
    engine.gpu_memory_gib()  # begins to count anew
    run = run_job(config, engine, folder, stop)
    if device.type != "cuda":
        return run.audio_s / run.wall_s, Memory()
    windows = next(read_records(folder))["summary"]["windows"]  # each has read the peak, and begun anew
    peak = max(window["gpu_memory_gib"] for window in windows)
    return run.audio_s / run.wall_s, Memory(peak, torch.cuda.memory_allocated(device) / GIB)


def _compared(
    engine: ChatterboxEngine, config: BenchmarkConfig, requests: Sequence[Request]
) -> tuple[float | None, float | None]:
    """How T3 is beside FP32; None where logits, or the voice, are not finite."""
    with suppress(NotFinite):
        agreement, kl = compare(engine, config.engine, requests)
        if math.isfinite(kl):
            return agreement, kl
    return None, None


def _likeness(
    engine: ChatterboxEngine, reference: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray]
) -> tuple[float | None, float | None]:
    """Distance of the mels in dB, and mean cosine of the speaker embeddings; None where a sample is not finite."""
    pairs = [(reference[id], samples[id]) for id in reference if id in samples]
    if not pairs or not all(np.isfinite(one).all() for pair in pairs for one in pair):
        return None, None
    encoder = load(VOICE_ENCODER_FILE, engine.residency.models.folder, engine.residency.models.device)
    with float32_math("fp32"):
        before, now = (embeddings(encoder, spoken, SAMPLE_RATE) for spoken in zip(*pairs, strict=True))
    cosine = float((before * now).sum(axis=1).mean())
    return mel_distance(pairs, SAMPLE_RATE), cosine if math.isfinite(cosine) else None
