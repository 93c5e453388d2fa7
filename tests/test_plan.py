from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import ChatterboxConfig, GenerateConfig, Sampling
from pipeline.data import Identity, Utterance
from pipeline.errors import UserError
from pipeline.plan import choose, make_plan, parameters, render_order, retry_seed, windows

IDENTITY = Identity("model", "r1", "me", "cafe", {"flow_steps": 10})
CONFIG = GenerateConfig(book="b.txt", engine=ChatterboxConfig())


def utterances(texts, chapter=1):
    return [Utterance(f"b-{chapter:03d}-{i:05d}", "b", chapter, "", i, 0, 0, 0, t, t, 0.0) for i, t in enumerate(texts)]


def plan(texts, identity=IDENTITY, config=CONFIG):
    return plan_of(utterances(texts), identity, config)


def plan_of(said, identity=IDENTITY, config=CONFIG):
    return make_plan(said, parameters(identity, config), config.plan.chars_per_second)


def test_the_same_text_said_twice_has_two_seeds_and_two_keys():
    one, two = plan(["Yes.", "Yes."])
    assert one.key != two.key and one.seed != two.seed


def test_neighbours_change_neither_key_nor_seed():
    alone, among = plan(["Hello there."])[0], plan(["A.", "Hello there.", "B."])[1]
    assert (alone.key, alone.seed) == (among.key, among.seed)


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, sampling=Sampling(temperature=0.7)),
        replace(CONFIG, seed=1),
        replace(CONFIG, watermark=replace(CONFIG.watermark, enabled=False)),
        replace(CONFIG, precision=replace(CONFIG.precision, t3="fp32")),
    ],
)
def test_every_option_that_changes_samples_changes_the_key(config):
    assert plan(["Hello."], config=config)[0].key != plan(["Hello."])[0].key


@pytest.mark.parametrize("change", [{"voice_sha256": "beef"}, {"revision": "r2"}, {"options": {"flow_steps": 5}}])
def test_voice_revision_and_engine_options_change_the_key(change):
    assert plan(["Hello."], replace(IDENTITY, **change))[0].key != plan(["Hello."])[0].key


@pytest.mark.parametrize(
    "config", [replace(CONFIG, out="x"), replace(CONFIG, device="cpu"), replace(CONFIG, limit=3, num_shards=2)]
)
def test_where_and_how_much_is_rendered_does_not_change_the_key(config):
    assert plan(["Hello."], config=config)[0].key == plan(["Hello."])[0].key


def test_a_retry_has_a_seed_of_its_own_that_is_the_same_every_time():
    seeds = [retry_seed(7, attempt) for attempt in range(4)]
    assert len({7, *seeds}) == 5 and seeds == [retry_seed(7, attempt) for attempt in range(4)]
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(st.lists(st.text("abc ", min_size=1, max_size=280), min_size=1, max_size=60), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_every_utterance_is_in_exactly_one_shard_and_shards_are_contiguous(texts, count):
    planned = plan(texts)
    shards = [choose(planned, shard=i, num_shards=count) for i in range(count)]
    assert [item for shard in shards for item in shard] == planned


def test_shards_are_cut_by_predicted_seconds_not_by_count():
    planned = plan(["x" * 280] * 10 + ["y" * 14] * 200)
    first, second = (choose(planned, shard=i, num_shards=2) for i in (0, 1))
    seconds = [sum(item.predicted_s for item in shard) for shard in (first, second)]
    assert abs(seconds[0] - seconds[1]) < 20 and len(first) < len(second)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_chosen_is_rendered_once_however_it_is_cut(data):
    """Shards and their windows together hold every chosen utterance exactly once."""
    texts = st.lists(st.sampled_from(["Yes.", "No."]) | st.text("abc ", min_size=1, max_size=280), max_size=20)
    chapters = data.draw(st.lists(texts, min_size=1, max_size=4).filter(any))
    planned = plan_of([u for i, part in enumerate(chapters) for u in utterances(part, i)])
    first, last = sorted(data.draw(st.tuples(*[st.sampled_from([p.utterance.chapter for p in planned])] * 2)))
    chapters = data.draw(st.sampled_from([None, f"{first}-{last}", f"{last},{first}"]))
    limit, num_shards = data.draw(st.none() | st.integers(1, 40)), data.draw(st.integers(1, 9))
    window = data.draw(st.integers(1, 40))
    chosen = choose(planned, chapters, limit)
    shards = [choose(planned, chapters, limit, shard, num_shards) for shard in range(num_shards)]
    parts = [part for shard in shards for part in windows(shard, window)]
    assert [item for part in parts for item in part] == chosen
    rendered = [item for part in parts for item in render_order(part)]
    assert sorted(item.utterance.id for item in rendered) == [item.utterance.id for item in chosen]
    assert len({item.key for item in planned}) == len({item.seed for item in planned}) == len(planned)


def test_a_window_is_rendered_longest_first():
    made = render_order(plan(["short one.", "x" * 200, "y" * 100]))
    assert [len(item.utterance.text) for item in made] == [200, 100, 10]


@pytest.mark.parametrize(("count", "early"), [(15, 0), (16, 1), (100, 6), (1000, 16)])
def test_a_large_window_begins_with_a_few_short_utterances(count, early):
    made = render_order(plan(["x" * length for length in range(1, count + 1)]))
    shortest, rest = range(early, 0, -1), range(count, early, -1)
    assert [len(item.utterance.text) for item in made] == [*shortest, *rest]


def test_windows_follow_the_order_of_reading():
    planned = plan([f"Sentence {i}." for i in range(10)])
    assert [len(part) for part in windows(planned, 4)] == [4, 4, 2]
    assert [item for part in windows(planned, 4) for item in part] == planned


def test_chapters_and_limit_choose_what_is_rendered_and_leave_the_ids_alone():
    both = utterances(["A.", "B."], 1) + utterances(["C.", "D.", "E."], 2)
    planned = plan_of(both)
    chosen = choose(planned, chapters="2", limit=2)
    assert [item.utterance.id for item in chosen] == ["b-002-00000", "b-002-00001"]
    assert chosen == planned[2:4]


@pytest.mark.parametrize("spec", ["3", "0-2", "x", "1-", "-1", "2-1,9"])
def test_chapters_that_are_not_there_or_not_numbers_are_a_user_error(spec):
    with pytest.raises(UserError, match="chapters="):
        choose(plan(["A."]), chapters=spec)


def test_a_shard_beyond_the_last_is_a_user_error():
    with pytest.raises(UserError, match="shard=2 .*0 to 1"):
        choose(plan(["A."]), shard=2, num_shards=2)
