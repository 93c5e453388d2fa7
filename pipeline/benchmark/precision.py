"""Measures precision policies, each in its own engine: speed, memory, and the distance from FP32.

FP32 comes first. Every policy renders FP32's tokens with FP32's seeds, so that only rounding differs.
Knows nothing of Hydra.
"""

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from pipeline.benchmark.job import run_job
from pipeline.benchmark.likeness import embed_speakers, flow_distance, mel_distance
from pipeline.benchmark.machine import measure_time
from pipeline.benchmark.outcome import PolicyOutcome
from pipeline.benchmark.sample import make_requests, spread
from pipeline.benchmark.t3 import COMPARED, compare
from pipeline.checks import judge
from pipeline.config import FP32, BenchmarkConfig, Precision
from pipeline.data import SAMPLE_RATE, NotFinite, Request, Speech, never
from pipeline.device.dtypes import DTYPES, float32_math
from pipeline.device.offload import num_bytes
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.chatterbox.files import VOICE_ENCODER_FILE
from pipeline.engine.chatterbox.stock import load
from pipeline.engine.chatterbox.token_stage import DecodedRequest
from pipeline.engine.chatterbox.waveform_stage import speech_tokens
from pipeline.engine.registry import build_engine
from pipeline.plan import Planned
from pipeline.run.stop import Stop
from pipeline.watermark import build_watermarker

log = logging.getLogger(__name__)

GIB = 2**30


@dataclass(frozen=True)
class Reference:
    """FP32's results for the sample, on the CPU."""

    items: Sequence[DecodedRequest]  # requests with their tokens
    samples: Mapping[str, np.ndarray]  # by utterance id
    mels: Sequence[torch.Tensor]  # of COMPARED utterances


@dataclass(frozen=True)
class Memory:
    """GiB of a CUDA device: a job's peak, and what is still allocated after it; None: unknown."""

    peak: float | None = None
    steady: float | None = None


def measure(
    planned: Sequence[Planned], config: BenchmarkConfig, policies: Mapping[str, Precision], stop: Stop
) -> list[PolicyOutcome]:
    """Measure FP32, then `policies`, on the sample `planned`, longest first. Jobs render the sample as a book."""
    outcomes: list[PolicyOutcome] = []
    reference = None
    build_watermarker(config.watermark, "cpu")  # its imports would slow down the first job only
    with tempfile.TemporaryDirectory(dir=config.out, prefix="runs-") as scratch:
        book = Path(scratch, "sample.txt")
        book.write_text("\n\n".join(item.utterance.text for item in planned), encoding="utf-8")
        whole = replace(config, book=str(book), chapters=None)
        for name, policy in ({"fp32": FP32} | dict(policies)).items():
            changed = replace(whole, precision=policy, out=str(Path(scratch, name)))
            outcome, made = _measure_policy(name, planned, changed, stop, reference)
            reference = reference or made
            outcomes.append(outcome)
            log.info("policy %s, in use as %s: measured", name, outcome.used)
    return outcomes


def _measure_policy(
    name: str, planned: Sequence[Planned], config: BenchmarkConfig, stop: Stop, reference: Reference | None
) -> tuple[PolicyOutcome, Reference]:
    """Measure one policy. `reference`: FP32's results; None if this policy is FP32."""
    engine, weights = _load_engine(config)
    requests = make_requests(engine, planned, config)
    own, tokens_per_s = _time_t3(engine, requests)
    failed = _count_failed(engine, own, config)
    items = reference.items if reference else own
    same_tokens = [(replace(request, precision=engine.precision), decoded) for request, decoded in items]
    samples, s3gen = _time_s3gen(engine, same_tokens)
    made = Reference(items, samples, _compute_mels(engine, spread(items, COMPARED)))
    job, memory = _time_job(engine, config, stop)
    engine.residency.token_stage.forget()  # frees the decoders' memory for the comparison
    agreement, kl = _compare_t3(engine, config, spread(requests, COMPARED))
    against = reference or made
    distance, cosine = _compare_audio(engine, against.samples, samples)
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


def _load_engine(config: BenchmarkConfig) -> tuple[ChatterboxEngine, float]:
    """An engine with the weights of its precision loaded, and their size in GiB."""
    engine = build_engine(config)
    engine.prepare()
    engine.residency.models.t3(DTYPES[engine.precision.t3])
    _ = engine.residency.token_stage  # built before S3Gen is loaded: it decides which weights stay on the device
    models = engine.residency.models
    models.load_waveforms(engine.precision)
    weights = [*models.t3s.values(), *(one.offloaded for one in (*models.flows.values(), *models.vocoders.values()))]
    return engine, sum(num_bytes(one.look()) for one in weights) / GIB


def _time_t3(engine: ChatterboxEngine, requests: Sequence[Request]) -> tuple[list[DecodedRequest], float]:
    """Each request with its tokens, and T3's tokens a second."""
    # Captures the graphs.
    list(engine.residency.token_stage.decode([replace(one, max_tokens=2) for one in requests], never))
    with measure_time(engine.residency.models.device) as run:
        items = list(chain.from_iterable(engine.residency.token_stage.decode(requests, never)))
    return items, sum(len(one.tokens) for _, one in items if not isinstance(one, Exception)) / run.seconds


def _speak(engine: ChatterboxEngine, items: Sequence[DecodedRequest]) -> list[Speech]:
    return list(engine.residency.waveform_stage.speak([items], never))


def _count_failed(engine: ChatterboxEngine, items: Sequence[DecodedRequest], config: BenchmarkConfig) -> int:
    """How many fail a check or could not be rendered."""
    verdicts = [judge(speech, SAMPLE_RATE, config.check, engine.unchecked).is_good for speech in _speak(engine, items)]
    return verdicts.count(False)


def _time_s3gen(engine: ChatterboxEngine, items: Sequence[DecodedRequest]) -> tuple[dict[str, np.ndarray], float]:
    """Samples by utterance id, without failures, and S3Gen's seconds of speech per second."""
    if engine.residency.models.device.type == "cuda":
        _speak(engine, items)  # captures the graphs of these shapes
    with measure_time(engine.residency.models.device) as run:
        speeches = _speak(engine, items)
    # Copies, because the GPU may write to the samples' memory again.
    samples = {speech.request.utterance.id: speech.samples.copy() for speech in speeches if not speech.error}
    return samples, sum(map(len, samples.values())) / SAMPLE_RATE / run.seconds


def _compute_mels(engine: ChatterboxEngine, items: Sequence[DecodedRequest]) -> list[torch.Tensor]:
    """The flow's mels of each item that has tokens. (80, frames) float32 on the CPU"""
    flow, mels = engine.residency.models.flow(engine.precision.flow), []
    for request, decoded in items:
        with suppress(NotFinite, ValueError):
            voice = engine.voice(engine.precision.voice_encoder)
            mels += flow([speech_tokens(decoded)], [request.seed], voice)
    return [mel.cpu() for mel in mels]


def _time_job(engine: ChatterboxEngine, config: BenchmarkConfig, stop: Stop) -> tuple[float, Memory]:
    """Seconds of speech per second of a whole job, with its start and end, and its memory."""
    device, folder = engine.residency.models.device, Path(config.out)
    engine.gpu_memory_gib()  # resets the peak
    run = run_job(config, engine, folder, stop)
    if device.type != "cuda":
        return run.audio_s / run.wall_s, Memory()
    peak = max(window["gpu_memory_gib"] for window in run.windows)  # each window reads and resets the peak
    return run.audio_s / run.wall_s, Memory(peak, torch.cuda.memory_allocated(device) / GIB)


def _compare_t3(
    engine: ChatterboxEngine, config: BenchmarkConfig, requests: Sequence[Request]
) -> tuple[float | None, float | None]:
    """T3's agreement with FP32 and its KL; None if logits or the voice are not finite."""
    with suppress(NotFinite):
        agreement, kl = compare(engine, config.engine, requests)
        if math.isfinite(kl):
            return agreement, kl
    return None, None


def _compare_audio(
    engine: ChatterboxEngine, reference: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray]
) -> tuple[float | None, float | None]:
    """Mel distance in dB and mean cosine of the speaker embeddings; None if a sample is not finite."""
    pairs = [(reference[id], samples[id]) for id in reference if id in samples]
    if not pairs or not all(np.isfinite(one).all() for pair in pairs for one in pair):
        return None, None
    encoder = load(VOICE_ENCODER_FILE, engine.residency.models.folder, engine.residency.models.device)
    with float32_math("fp32"):
        before, now = (embed_speakers(encoder, spoken, SAMPLE_RATE) for spoken in zip(*pairs, strict=True))
    cosine = float((before * now).sum(axis=1).mean())
    return mel_distance(pairs, SAMPLE_RATE), cosine if math.isfinite(cosine) else None
