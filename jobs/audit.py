"""Check that the files of a finished run are complete and correct.

python -m jobs.audit run=outputs/mybook
"""

from pathlib import Path

from jobs.cli import main
from pipeline.audit.aside import fix
from pipeline.audit.describe import describe
from pipeline.audit.examine import examine
from pipeline.config import AuditConfig, WatermarkConfig
from pipeline.run.stop import Stop
from pipeline.store import RunFolder
from pipeline.store.folder_lock import lock_exclusive
from pipeline.watermark import build_watermarker


def audit(config: AuditConfig, stop: Stop) -> int:
    """Print the findings. Exit code 1 if there are any, or if more than `max_failures` utterances failed."""
    folder = RunFolder(Path(config.run))
    watermarker = build_watermarker(WatermarkConfig(enabled=config.watermark != "none"), "cpu")
    detect = lambda samples, rate: watermarker.score([samples], rate)[0]  # noqa: E731
    with lock_exclusive(folder):
        report = examine(folder, detect, config.watermark, config.whole)
        print(describe(report))
        if report.findings and config.fix:
            print(f"moved aside into {fix(folder, report.findings)}")
            report = examine(folder, detect, "none", config.whole)
            print(describe(report))
    return int(bool(report.findings) or len(report.failed) > config.max_failures)


if __name__ == "__main__":
    main("audit", AuditConfig, audit)
