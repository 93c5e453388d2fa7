"""The main job: renders a book to watermarked WAVs and a Parquet manifest.

python -m jobs.generate book=mybook.txt
"""

from jobs.cli import main
from pipeline.config import GenerateConfig
from pipeline.dry_run import dry_run
from pipeline.errors import WorkError
from pipeline.run.session import run_book
from pipeline.run.stop import Stop


def generate(config: GenerateConfig, stop: Stop) -> int:
    """Render the missing utterances, or print the plan; return exit code 0. `WorkError` if too many failed."""
    if config.dry_run:
        print(dry_run(config))
        return 0
    outcome = run_book(config, stop)
    if outcome.failed > config.max_failures and not stop():
        table = outcome.folder.failed
        raise WorkError(f"{outcome.failed} utterance(s) failed, max_failures={config.max_failures}; see {table}")
    return 0


if __name__ == "__main__":
    main("generate", GenerateConfig, generate)
