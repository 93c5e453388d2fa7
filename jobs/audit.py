"""Check a finished run against what was promised, from its files alone.

python -m jobs.audit run=outputs/mybook
"""

from pathlib import Path

from jobs.cli import main
from pipeline.audit import describe, examine, fix
from pipeline.config import AuditConfig, WatermarkConfig
from pipeline.run.stop import Stop
from pipeline.store import RunFolder
from pipeline.store.folder_lock import lock_exclusive
from pipeline.watermark import build_watermarker


def audit(config: AuditConfig, stop: Stop) -> int:
    """Print what is wrong; 1 if anything is, or if more utterances failed than are allowed."""
    folder = RunFolder(Path(config.run))
    watermarker = build_watermarker(WatermarkConfig(enabled=config.watermark != "none"), "cpu")
    detect = lambda samples, rate: watermarker.score([samples], rate)[0]  # noqa: E731
    with lock_exclusive(folder):
        report = examine(folder, detect, config.watermark)
        print(describe(report))
        if report.findings and config.fix:
            print(f"moved aside into {fix(folder, report.findings)}")
            report = examine(folder, detect, "none")
            print(describe(report))
    return int(bool(report.findings) or len(report.failed) > config.max_failures)


if __name__ == "__main__":
    main("audit", AuditConfig, audit)
