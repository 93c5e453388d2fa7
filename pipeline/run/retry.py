"""Bad speech is tried again: which steps there are, in what order, when an utterance has failed, when a run rolls back.

A step is data: it can be recorded, compared and sent to a worker. Knows nothing of threads, files or how speech is
judged.

1. Every utterance of a window is tried as configured.
2. What is bad goes through `STEPS`, one after the other. A step that would repeat an attempt is left out.
3. What is bad after the last step has failed.
4. If more of a window than `check.rollback_share` was bad in 1, the rest of the run uses the next safer precision of
   the engine. After the last window nothing is left to do with it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from pipeline.config import FP32, Precision, Sampling
from pipeline.data import Request
from pipeline.plan import Planned, retry_seed


@dataclass(frozen=True)
class Change:
    """A sampling option times `factor`, and then no less than `least` and no more than `most`."""

    factor: float = 1.0
    least: float | None = None
    most: float | None = None

    def apply(self, value: float) -> float:
        value = self.factor * value
        if self.least is not None:
            value = max(value, self.least)
        return value if self.most is None else min(value, self.most)


@dataclass(frozen=True)
class RetryStep:
    """What differs from the attempt as configured."""

    new_seed: bool = False
    precision: str = "configured"  # component: FP32 for the component whose numbers were not finite; fp32: for all
    sampling: dict[str, Change] = field(default_factory=dict)  # by option


# Less lively, and less likely to run away.
CALMER = {
    "temperature": Change(factor=0.75),
    "min_p": Change(least=0.1),
    "top_p": Change(most=0.95),
    "exaggeration": Change(most=0.5),
}
AS_CONFIGURED = RetryStep()
STEPS = (
    RetryStep(precision="component"),
    RetryStep(precision="fp32"),
    RetryStep(new_seed=True, precision="fp32"),
    RetryStep(new_seed=True, precision="fp32", sampling=CALMER),
)
SAFETY = {"fp32": 2, "tf32": 1, "bf16": 0, "fp16": 0}  # of a number format; more is safer


@dataclass(frozen=True)
class Attempt:
    """What one try really used, as the manifest records it. `reason` is empty for the try that was kept."""

    seed: int
    precision: str
    sampling: str  # JSON
    reason: str


@dataclass(frozen=True)
class Task:
    """An utterance with the attempts that have failed so far."""

    planned: Planned
    attempts: tuple[Attempt, ...] = ()
    error: str = ""
    component: str = ""  # whose numbers were not finite in the last attempt; empty: nobody's


def walk(
    tasks: Sequence[Task],
    attempt: Callable[[Sequence[Task], RetryStep], list[Task]],  # tries tasks once; returns those that are bad
    request_of: Callable[[Task, RetryStep], Request],
    stopping: Callable[[], bool],
    steps: Sequence[RetryStep] = STEPS,
) -> tuple[int, list[Task]]:
    """Rules 1 to 3: how many first attempts were bad, and the tasks that stay bad. Ends early once `stopping`."""
    pending = attempt(tasks, AS_CONFIGURED)
    bad = len(pending)
    for step in steps:
        if not pending or stopping():
            break
        due: list[Task] = []
        rest: list[Task] = []
        for task in pending:
            (due if is_new(task, request_of(task, step)) else rest).append(task)
        pending = rest + (attempt(due, step) if due else [])
    return bad, pending


def make_request(task: Task, step: RetryStep, sampling: Sampling, precision: Precision, max_tokens: int) -> Request:
    """The request for the next attempt at a task; `sampling` and `precision` are those of a first attempt."""
    changed = {name: change.apply(getattr(sampling, name)) for name, change in step.sampling.items()}
    seed = task.planned.seed
    return Request(
        utterance=task.planned.utterance,
        seed=retry_seed(seed, len(task.attempts)) if step.new_seed else seed,
        sampling=replace(sampling, **changed),
        precision=_precision(task, step, precision),
        max_tokens=max_tokens,
    )


def _precision(task: Task, step: RetryStep, configured: Precision) -> Precision:
    if step.precision == "fp32":
        return FP32
    if step.precision == "component" and task.component:
        return replace(configured, **{task.component: "fp32"})
    return configured


def make_attempt(request: Request, reason: str = "") -> Attempt:
    sampling = json.dumps(asdict(request.sampling), sort_keys=True)
    return Attempt(request.seed, str(request.precision), sampling, reason)


def is_new(task: Task, request: Request) -> bool:
    """Whether no attempt at the task has used just this."""
    return make_attempt(request) not in [replace(attempt, reason="") for attempt in task.attempts]


def add_failure(task: Task, request: Request, reason: str, detail: str, component: str = "") -> Task:
    """The task after a bad attempt."""
    attempts = (*task.attempts, make_attempt(request, reason))
    return replace(task, attempts=attempts, error=f"{reason}: {detail}", component=component)


def must_roll_back(bad: int, window: int, share: float) -> bool:
    """Whether so many first attempts of a window were bad that the precision itself is to blame."""
    return bad > share * window


def safest(rolled_back_to: Sequence[Precision]) -> Precision | None:
    """The last of a run's rollbacks, which lead from half precision over TF32 to FP32; None: there was none."""
    return max(rolled_back_to, key=lambda precision: sum(SAFETY[one] for one in vars(precision).values()), default=None)
