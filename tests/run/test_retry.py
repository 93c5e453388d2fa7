"""The retry steps as data: what each really asks for, and that what it asked for is recorded."""

import json
from dataclasses import asdict, replace

import pytest

from pipeline.config import FP32, Precision, Sampling
from pipeline.data import Utterance
from pipeline.plan import Planned
from pipeline.run.retry import (
    AS_CONFIGURED,
    STEPS,
    Change,
    Task,
    add_failure,
    is_new,
    make_request,
    must_roll_back,
    safest,
    walk,
)

BF16 = Precision("bf16", "bf16", "tf32", "fp32")
TF32 = Precision("tf32", "tf32", "tf32", "fp32")
HOT = Sampling(temperature=1.0, exaggeration=1.5, min_p=0.2)
TASK = Task(Planned(Utterance("b-001-00000", "b", 1, "", 0, 0, 0, 3, "Oh!", "Oh!", 0.0), "key", 7, 1.0))


def go(component: str = "", precision: Precision = BF16) -> tuple[Task, list]:
    """The requests for a task that stays bad through all steps, and the task at the end."""
    task, requests = TASK, []
    for step in (AS_CONFIGURED, *STEPS):
        request = make_request(task, step, HOT, precision, 100)
        if is_new(task, request):
            requests.append(request)
            task = add_failure(task, request, "nan", "a NaN", component)
    return task, requests


def test_bad_speech_goes_over_fp32_to_a_new_seed_and_calmer_sampling():
    _, (first, same, new, last) = go()
    assert (first.seed, first.precision, first.sampling) == (7, BF16, HOT)
    assert (same.seed, same.precision, same.sampling) == (7, FP32, HOT)
    assert new.precision == FP32 and new.sampling == HOT and new.seed not in (7, last.seed)
    assert last.precision == FP32
    assert last.sampling == Sampling(temperature=0.75, exaggeration=0.5, min_p=0.2, top_p=0.95)


def test_a_component_whose_numbers_were_not_finite_goes_to_fp32_alone_first():
    _, requests = go(component="flow")
    assert [request.precision for request in requests[:3]] == [BF16, replace(BF16, flow="fp32"), FP32]


def test_a_step_that_would_repeat_an_attempt_is_left_out():
    _, requests = go(precision=FP32)
    assert len(requests) == 3 and len({request.seed for request in requests}) == 3


def test_every_attempt_records_what_it_really_used():
    task, requests = go()
    assert [attempt.seed for attempt in task.attempts] == [request.seed for request in requests]
    assert [attempt.precision for attempt in task.attempts] == [str(request.precision) for request in requests]
    assert [json.loads(attempt.sampling) for attempt in task.attempts] == [asdict(one.sampling) for one in requests]
    assert task.error == "nan: a NaN" and {attempt.reason for attempt in task.attempts} == {"nan"}


def test_steps_are_data_that_can_be_written_and_sent():
    assert json.loads(json.dumps([asdict(step) for step in STEPS]))[3]["sampling"]["temperature"]["factor"] == 0.75


@pytest.mark.parametrize(
    "change, value, changed",
    [
        (Change(factor=0.75), 0.8, 0.6),
        (Change(least=0.1), 0.05, 0.1),
        (Change(least=0.1), 0.2, 0.2),
        (Change(most=0.95), 1.0, 0.95),
        (Change(factor=2, least=1, most=3), 0.1, 1),
    ],
)
def test_a_change_is_a_factor_between_two_bounds(change, value, changed):
    assert change.apply(value) == pytest.approx(changed)


def test_a_window_rolls_back_when_more_than_a_share_of_it_was_bad():
    assert must_roll_back(2, 100, 0.01) and not must_roll_back(1, 100, 0.01) and not must_roll_back(100, 100, 1.0)


def test_the_safest_of_a_runs_rollbacks_counts():
    assert safest([TF32, FP32, TF32]) == FP32 and safest([TF32]) == TF32 and safest([]) is None


def test_the_walk_ends_when_all_is_good_and_counts_first_attempts_that_were_bad():
    others = [replace(TASK, planned=replace(TASK.planned, key=str(number))) for number in range(3)]
    asked = []

    def request_of(task, step):
        return make_request(task, step, HOT, BF16, 100)

    def attempt(tasks, step):
        """The first is good at once, the second in FP32, the third with a new seed."""
        asked.append([task.planned.key for task in tasks])
        good = next((str(number) for number, one in enumerate((AS_CONFIGURED, *STEPS[1:3])) if one == step), "")
        bad = [task for task in tasks if task.planned.key != good]
        return [add_failure(task, request_of(task, step), "nan", "") for task in bad]

    assert walk(others, attempt, request_of, lambda: False) == (2, [])
    assert asked == [["0", "1", "2"], ["1", "2"], ["2"]]
    bad, pending = walk(others, attempt, request_of, lambda: True)
    assert bad == 2 and [task.planned.key for task in pending] == ["1", "2"]
    bad, pending = walk(others, attempt, request_of, lambda: False, steps=())
    assert bad == 2 and len(pending) == 2
