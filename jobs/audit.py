"""Check a finished run against what was promised, from its files alone.

python -m jobs.audit run=outputs/mybook
"""

from pathlib import Path

from jobs.cli import Stop, main
from pipeline.audit import describe, examine, fix
from pipeline.config import AuditConfig, WatermarkConfig
from pipeline.store import RunFolder
from pipeline.store.claim import alone
from pipeline.store.edition import read_edition
from pipeline.store.manifest import merge
from pipeline.watermark import build_watermarker


def audit(config: AuditConfig, stop: Stop) -> int:
    """Tell what is wrong; 1 if anything is, or more utterances failed than are allowed."""
    folder = RunFolder(Path(config.run))
    watermarker = build_watermarker(WatermarkConfig(enabled=config.watermark != "none"), "cpu")
    detect = lambda samples, rate: watermarker.score([samples], rate)[0]  # noqa: E731
    with alone(folder):
        report = examine(folder, detect, config.watermark)
        print(describe(report))
        if report.findings and config.fix:
            print(f"moved aside into {fix(folder, report.findings)}")
            if edition := read_edition(folder):
                with folder.writing():
                    merge(folder, edition)
            report = examine(folder, detect, "none")
            print(describe(report))
    return int(bool(report.findings) or len(report.failed) > config.max_failures)


if __name__ == "__main__":
    main("audit", AuditConfig, audit)
