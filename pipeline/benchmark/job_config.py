"""The configuration of a job that a benchmark measures. Knows nothing of measuring."""

from dataclasses import fields, replace
from pathlib import Path

from pipeline.config import BenchmarkConfig, CheckConfig, GenerateConfig, SpeechConfig, Thresholds


def job_config(config: BenchmarkConfig, out: Path) -> GenerateConfig:
    """A job with the benchmark's options, into `out`: no rollback, no tracker, and failures end nothing."""
    shared = {f.name: getattr(config, f.name) for f in fields(SpeechConfig)}
    thresholds = {f.name: getattr(config.check, f.name) for f in fields(Thresholds)}
    check = CheckConfig(**thresholds, rollback_share=1.0)
    changed = dict(check=check, max_failures=10**9, wandb=replace(config.wandb, mode="disabled"))
    return GenerateConfig(**(shared | changed), book=config.book, out=str(out))
