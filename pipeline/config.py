"""Every option, once: name, type, default, unit, range, meaning. YAML files only choose among them.

Knows nothing of Hydra: `jobs.options` hands these classes to it as the schema. `pipeline.option` checks
them, and the tables of docs/reference.md are made from the fields' metadata.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from pipeline.option import group, option

MAX_CHARS = 280  # of an utterance's text, and of its spoken text: from 300 to 350 on the model garbles
GRACE_S = 20.0  # the shortest that schedulers give between SIGTERM and SIGKILL is 30 s


@dataclass(frozen=True)
class TextConfig:
    """How a book becomes utterances."""

    join_chars: int = option(
        200,
        "join neighbouring sentences of a paragraph up to this; 0: one sentence an utterance",
        "characters",
        0,
        MAX_CHARS,
    )
    pause_clause_s: float = option(0.15, "pause after an utterance that ends inside a sentence", "s", 0, 60)
    pause_sentence_s: float = option(0.4, "pause after a sentence", "s", 0, 60)
    pause_paragraph_s: float = option(0.8, "pause after a paragraph", "s", 0, 60)
    pause_heading_s: float = option(1.2, "pause after a heading", "s", 0, 60)
    pause_scene_s: float = option(2.0, "pause at a scene break", "s", 0, 60)
    pause_chapter_s: float = option(3.0, "pause after a chapter", "s", 0, 60)


@dataclass(frozen=True)
class EngineConfig:
    """What turns utterances into speech. Each engine has its own options."""

    name: str = option("???", "which engine")


@dataclass(frozen=True)
class WeightsConfig:
    """Which weights, and where what is computed from them is kept."""

    checkpoint: str | None = option(
        None, "folder with the five stock files, or stand-in, or stand-in-tiny; null: the Hugging Face cache or hub"
    )
    revision: str | None = option(None, "commit of the hub's repository to use; null: the cached one, else the newest")
    cache: str = option(
        "~/.cache/chatterbox-batch", "folder of what is computed once: conditionals, stand-in weights, hashes, bytecode"
    )


@dataclass(frozen=True)
class ChatterboxConfig(WeightsConfig, EngineConfig):
    """English Chatterbox."""

    name: str = option("chatterbox", "the product", choices=("chatterbox",))
    max_tokens: int = option(1000, "speech-token cap; reaching it is the failure no_eos", "tokens", 25, 4000)
    batch_size: str = option(
        "auto",
        "utterances decoded together; auto: 8 on a CPU, as many as fit into 55 % of a GPU's free memory (phased: 80 %)",
        choices=("auto", *(str(2**n) for n in range(9))),
    )
    memory: str = option(
        "auto",
        "resident: all weights stay on the GPU; phased: T3 and S3Gen take turns, 512 utterances each; "
        "auto: by free memory, phased where fewer than batch_size (auto: 8) utterances fit beside S3Gen",
        choices=("auto", "resident", "phased"),
    )
    flow_steps: int = option(10, "Euler steps of the flow decoder", "steps", 1, 100)
    compile: bool = option(True, "Triton kernels and CUDA graphs on a CUDA device; false: plain PyTorch, far slower")
    compile_cache: str | None = option(None, "folder of compiled kernels; null: `kernels` in engine.cache")

    @property
    def slots(self) -> int | None:
        """`batch_size` as a number; None: whatever the device can take."""
        return None if self.batch_size == "auto" else int(self.batch_size)


@dataclass(frozen=True)
class EspeakConfig(EngineConfig):
    """A draft voice: no download, no GPU."""

    name: str = option("espeak", "embedded draft voice", choices=("espeak",))
    voice: str = option("en-gb-x-rp", "espeak-ng voice")
    rate_wpm: int = option(170, "speaking rate", "words/min", 80, 450)
    pitch: int = option(50, "pitch", "0-99", 0, 99)


@dataclass(frozen=True)
class PromptConfig:
    """How conditionals are computed from a recording."""

    prompt_seconds: float = option(10.0, "how much of the recording the decoder hears", "s", 1, 10)


@dataclass(frozen=True)
class VoiceConfig(PromptConfig):
    """Whose voice speaks (engine=chatterbox)."""

    name: str | None = option(None, "speaker name in the manifest; null: the clip's file name")
    path: str | None = option(
        None, "reference recording, mono or stereo, 1 s to 10 min; null: the checkpoint's own voice"
    )
    licence: str | None = option(None, "terms of the recording, copied into the run record")


@dataclass(frozen=True)
class Sampling:
    """Stock Chatterbox's names and defaults."""

    exaggeration: float = option(0.5, "emotion", "", 0, 2)
    cfg_weight: float = option(0.5, "classifier-free guidance; 0: none", "", 0, 2)
    temperature: float = option(0.8, "sampling temperature", "", 0.05, 5)
    repetition_penalty: float = option(1.2, "penalty on tokens already used", "", 1, 10)
    min_p: float = option(0.05, "drop tokens below this share of the likeliest", "", 0, 1)
    top_p: float = option(1.0, "keep the likeliest tokens up to this mass", "", 0.01, 1)


FORMATS = ("auto", "fp32", "tf32", "bf16", "fp16")


@dataclass(frozen=True)
class Precision:
    """A number format for each component: a dtype, and for FP32 whether its products may be rounded to TF32.

    What a device does not have becomes fp32, and the log says so.
    """

    t3: str = option("auto", "token decoder", choices=FORMATS)
    flow: str = option("auto", "tokens to mel", choices=FORMATS)
    vocoder: str = option("auto", "mel to samples", choices=FORMATS)
    voice_encoder: str = option("auto", "voice conditionals", choices=FORMATS)

    def __str__(self) -> str:
        values = [getattr(self, f.name) for f in fields(self)]
        return (
            values[0]
            if len(set(values)) == 1
            else " ".join(f"{f.name}={v}" for f, v in zip(fields(self), values, strict=True))
        )


FP32 = Precision("fp32", "fp32", "fp32", "fp32")


@dataclass(frozen=True)
class VoiceEncoderConfig:
    """The number format of the voice encoder alone."""

    voice_encoder: str = option("auto", "voice conditionals", choices=FORMATS)


@dataclass(frozen=True)
class PlanConfig:
    """In what order utterances are rendered."""

    window: int = option(4096, "utterances rendered, checked and retried together", "utterances", 1, 1_000_000)
    chars_per_second: float = option(15.0, "speaking rate assumed when predicting lengths", "1/s", 1, 100)


@dataclass(frozen=True)
class Thresholds:
    """What makes speech bad. Sources: the survey of nine tools in the design notes; see `pipeline.checks`."""

    silent_db: float = option(-50.0, "silent: the whole is quieter", "dBFS RMS", -120, 0)
    clipped_level: float = option(0.99, "a sample this large is clipped", "of full scale", 0.5, 1)
    clipped_share: float = option(0.005, "clipped: more of the samples are", "", 0, 1)
    max_chars_per_second: float = option(28.0, "too_short: faster than this (texts over 40 characters)", "1/s", 1, 1000)
    too_long_base_s: float = option(1.5, "too_long: longer than this and the next together", "s", 0, 600)
    too_long_per_word_s: float = option(0.75, "too_long: allowance a word", "s", 0.01, 60)
    repeated_s: float = option(3.0, "repeated: speech tokens loop for so long", "s", 0.5, 600)
    cut_off_db: float = option(-20.0, "cut_off: the last 10 ms are louder, against the peak", "dB", -120, 0)
    pause_floor_db: float = option(
        -42.0, "a 10 ms frame is silent below this, against the loudest frame", "dB", -120, 0
    )
    max_pause_s: float = option(2.0, "long_pause: silent frames in a row", "s", 0.05, 600)


@dataclass(frozen=True)
class CheckConfig(Thresholds):
    """What makes speech bad, and what a run does about it."""

    rollback_share: float = option(
        0.01,
        "when more of a window is tried again, the rest of the run uses the next safer precision; 1: never",
        "",
        0,
        1,
    )


@dataclass(frozen=True)
class WatermarkConfig:
    """Perth's implicit watermark: applied last, and found again in the written samples."""

    enabled: bool = option(True, "false is recorded in every row and in the run record")
    threshold: float = option(0.5, "no_watermark: the detector's confidence is lower", "", 0, 1)


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases. Never asks, never fails the job."""

    mode: str = option(
        "auto", "auto: online with a key, else offline", choices=("auto", "online", "offline", "disabled")
    )
    project: str = option("chatterbox-batch", "project")
    entity: str | None = option(None, "team or user; null: the key's default")
    audio_samples: int = option(8, "clips in the table at the end", "clips", 0, 100)


@dataclass(frozen=True)
class JobConfig:
    """Shared by every job."""

    grace_s: float = option(GRACE_S, "after SIGTERM or SIGINT, what is still in flight is dropped", "s", 0, 3600)


def device_option() -> Any:
    names = ("auto", "cpu", "cuda", "cuda:N", "mps")
    return option("auto", "where the engine runs", choices=names, pattern="auto|cpu|cuda(:[0-9]{1,2})?|mps")


@dataclass(frozen=True)
class ModelConfig(JobConfig):
    """What decides how a voice sounds."""

    engines: ClassVar = ("chatterbox", "espeak")  # whose options mean something to the job
    engine: EngineConfig = group(EngineConfig)
    voice: VoiceConfig = group(VoiceConfig)
    precision: Precision = group(Precision)
    device: str = device_option()


@dataclass(frozen=True)
class SpeechConfig(ModelConfig):
    """What decides how a book is spoken, checked and told of."""

    sampling: Sampling = group(Sampling)
    text: TextConfig = group(TextConfig)
    plan: PlanConfig = group(PlanConfig)
    check: CheckConfig = group(CheckConfig)
    watermark: WatermarkConfig = group(WatermarkConfig)
    wandb: WandbConfig = group(WandbConfig)
    seed: int = option(0, "run seed; enters every utterance's own seed", "", 0, 2**31 - 1)
    chapters: str | None = option(None, "render these only, as in 1-3 or '0,2,5-7'; null: all")


@dataclass(frozen=True)
class GenerateConfig(SpeechConfig):
    """`python -m jobs.generate`."""

    book: str = option("???", "the text to speak, UTF-8")
    out: str | None = option(None, "the run's folder; null: outputs/<book's name>")
    limit: int | None = option(None, "render only so many utterances, from the start", "utterances", 1)
    shard: int = option(0, "which part this process renders, from 0", "", 0)
    num_shards: int = option(1, "parts the work is cut into", "", 1, 100_000)
    max_failures: int = option(0, "more failed utterances than this end in exit 1", "utterances", 0)
    replace: bool = option(True, "false: rather exit 2 than replace an utterance that is finished")
    dry_run: bool = option(False, "print the plan and render nothing")
    max_restarts: int = option(10, "how often a worker that died is replaced", "restarts", 0, 1_000_000)
    hang_s: float = option(600.0, "how long a worker may give no sign of life", "s", 1, 86_400)
    hang: str = option(
        "log",
        "what follows then, while it renders; replace: it is killed and replaced; in other phases it is only logged",
        choices=("log", "replace"),
    )


@dataclass(frozen=True)
class BenchmarkConfig(SpeechConfig):
    """`python -m jobs.benchmark`: what a job with these options would do is measured on a sample of its utterances."""

    engines: ClassVar = ("chatterbox",)  # no other has stages to measure
    check: Thresholds = group(Thresholds)

    book: str | None = option(None, "the text to speak, UTF-8; null: that of run=")
    stage: str = option("t3", "what to measure", choices=("t3", "s3gen", "job", "precision", "start"))
    out: str = option("outputs/benchmark", "folder of benchmark.json; also of precision.csv and precision.png")
    utterances: int = option(512, "how many the engine is given", "utterances", 1)
    stock_utterances: int = option(2, "how many of them stock is given", "utterances", 1)
    run: str | None = option(
        None,
        "a folder of jobs.generate, whose weights, voice and texts are measured (stage=precision); of this command's"
        " engine options only device, batch_size, memory and cache count beside it, if not the defaults",
    )
    sample: int | None = option(None, "how many utterances of run=; null: as utterances", "utterances", 1)


@dataclass(frozen=True)
class VoicesConfig(JobConfig):
    """`python -m jobs.voices`: only what enters a voice's conditionals. Chatterbox alone has voices to prepare."""

    engine: WeightsConfig = group(WeightsConfig)
    voice: PromptConfig = group(PromptConfig)
    precision: VoiceEncoderConfig = group(VoiceEncoderConfig)
    device: str = device_option()
    clips: str = option("???", "folder of recordings (wav, flac, ogg, opus, mp3, aiff), searched in depth")


@dataclass(frozen=True)
class AuditConfig(JobConfig):
    """`python -m jobs.audit`."""

    run: str = option("???", "the folder that jobs.generate wrote")
    fix: bool = option(False, "move bad and superseded files aside, so that the next run renders what is missing")
    watermark: str = option(
        "all",
        "WAVs in which the watermark is looked for; sample: one in 20, drawn anew",
        choices=("all", "sample", "none"),
    )
    whole: bool = option(False, "true: what no run was asked for is missing, too, up to the whole book")
    max_failures: int = option(0, "more failed utterances than this are a fault", "utterances", 0)


ENGINE_CONFIGS: dict[str, type[EngineConfig]] = {"chatterbox": ChatterboxConfig, "espeak": EspeakConfig}
