"""The configuration of a job that a benchmark measures. Knows nothing of measuring."""

from dataclasses import fields, replace
from pathlib import Path

from pipeline.config import BenchmarkConfig, CheckConfig, GenerateConfig, SpeechConfig, Thresholds


def job_config(config: BenchmarkConfig, out: Path) -> GenerateConfig:
    """A job with the benchmark's options, into `out`, without rollback to a safer precision and without a tracker."""
    shared = {f.name: getattr(config, f.name) for f in fields(SpeechConfig)}
    thresholds = {f.name: getattr(config.check, f.name) for f in fields(Thresholds)}
    check = CheckConfig(**thresholds, rollback_share=1.0)
    changed = dict(check=check, wandb=replace(config.wandb, mode="disabled"))
    return GenerateConfig(**(shared | changed), book=config.book, out=str(out))
