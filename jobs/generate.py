"""The main job: renders a book to watermarked WAVs and a Parquet manifest.

python -m jobs.generate book=mybook.txt
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.config import GenerateConfig
from pipeline.errors import WorkError
from pipeline.run.stop import Stop

if TYPE_CHECKING:
    from pipeline.run.book_plan import BookPlan


def generate(config: GenerateConfig, stop: Stop, plan: "Callable[[], BookPlan] | None" = None) -> int:
    """Render the missing utterances, or print the plan; return exit code 0. `WorkError` if too many failed."""
    if config.dry_run:
        from pipeline.dry_run import dry_run

        print(dry_run(config))
        return 0
    from pipeline.engine.registry import begin_imports

    begin_imports(config)  # of libraries, before our own modules import them one by one
    from pipeline.run.session import run_book

    outcome = run_book(config, stop, plan=plan)
    if outcome.failed > config.max_failures and not stop():
        table = outcome.folder.failed
        raise WorkError(f"{outcome.failed} utterance(s) failed, max_failures={config.max_failures}; see {table}")
    return 0


if __name__ == "__main__":
    from jobs.cli import log_settings, main  # not in the worker, which has no use for Hydra
    from pipeline.engine.registry import prepare_environment
    from pipeline.run.supervise import supervise

    def supervised(config: GenerateConfig, stop: Stop) -> int:
        """`generate` in a worker that is replaced when it dies."""
        if config.dry_run:
            return generate(config, stop)
        prepare_environment(config)
        return supervise("jobs.generate:generate", config, log_settings(), stop, lambda: prepare(config))

    def prepare(config: GenerateConfig) -> "BookPlan":
        """What the worker waits for. Its imports come once the worker has begun its own."""
        from pipeline.run.book_plan import plan_book

        return plan_book(config)

    main("generate", GenerateConfig, supervised)
