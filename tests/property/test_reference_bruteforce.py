"""The reference evaluation against exhaustive search, on stories small enough to try everything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations, permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from signal_router.testing.reference import (
    CandidateInput,
    Evaluation,
    Evidence,
    Limits,
    MarkInput,
    Position,
    count_any_order,
    evaluate,
)
from signal_router.testing.reference_choice import bindable, choose
from signal_router.testing.scenario import START_MS, TOPIC, TOPIC_ID, Scenario

MINUTE = 60_000
WITHIN = 10 * MINUTE
DEDUPE = 15 * MINUTE
ALIASES = ("a", "b", "c")


@dataclass(frozen=True)
class Given:
    """A signal of a story: the aliases it fits, its key, when it was recorded, its id."""

    fits: frozenset[str]
    key: int
    minute: int
    id: str


@dataclass(frozen=True)
class Mark:
    """The clock moves."""

    minute: int


@dataclass(frozen=True)
class Waiting:
    """What the choice looks at."""

    sequence: int
    recorded_at: int
    aliases: frozenset[str]


FITS = st.sets(st.sampled_from(ALIASES), min_size=1).map(frozenset)
MINUTES = st.integers(0, 30)
GIVENS = st.builds(Given, FITS, st.sampled_from([1, 1, 1, 2]), MINUTES, st.sampled_from("uvwxyz"))
STORIES = st.lists(st.one_of(GIVENS, GIVENS, GIVENS, st.builds(Mark, st.integers(0, 60))), max_size=7)


def told(steps: list[Given | Mark], *, policy: str = "fifo", limits: Limits | None = None) -> Scenario:
    """A story with one subscription of three members; each signal on a partition of its own: any order may be."""
    members = {alias: {"signal": "S", "match": {alias: True}} for alias in ALIASES}
    story = Scenario(limits=limits or Limits()).subscription(
        "t/three", members=members, join=["k"], policy=policy, within="10m", dedupe="15m"
    )
    for number, step in enumerate(steps):
        if isinstance(step, Mark):
            story.mark(step.minute * MINUTE)
        else:
            fits = {alias: alias in step.fits for alias in ALIASES}
            story.signal("S", id=step.id, at=step.minute * MINUTE, partition=number, params=fits, k=step.key)
    return story


def prefixes(story: Scenario) -> list[tuple[Evidence, Evaluation]]:
    """The evaluation after each decision input."""
    evidence = [
        replace(story.evidence(), inputs={0: story.inputs[:count]}) for count in range(1, len(story.inputs) + 1)
    ]
    return [(each, evaluate(each)) for each in evidence]


def complete_sets(waiting: list[Waiting]) -> list[tuple[Waiting, ...]]:
    """All sets that could fire, found by trying every choice and every binding."""
    return [
        chosen
        for chosen in combinations(waiting, len(ALIASES))
        if spread(chosen) <= WITHIN
        and any(
            all(alias in signal.aliases for alias, signal in zip(ALIASES, order, strict=True))
            for order in permutations(chosen)
        )
    ]


def spread(signals: tuple[Waiting, ...]) -> int:
    times = [signal.recorded_at for signal in signals]
    return max(times) - min(times)


def still_waiting(evidence: Evidence, evaluation: Evaluation) -> dict[str, list[Waiting]]:
    """What is pending, by join key, in the order of joining."""
    sets: dict[str, list[Waiting]] = {}
    for pending in evaluation.pending:
        sets.setdefault(pending.key_text, []).append(waiting_of(evidence, pending.position, pending.sequence))
    return sets


def waiting_of(evidence: Evidence, position: Position, sequence: int) -> Waiting:
    record = evidence.signals[position.topic, position.partition][position.offset]
    (candidate,) = [each for each in evaluate(evidence).expected if each.position == position]
    return Waiting(sequence, record.timestamp, frozenset(candidate.aliases))


@given(STORIES)
@settings(deadline=None, max_examples=80)
def test_fifo_never_leaves_a_complete_set_pending(steps):
    for evidence, evaluation in prefixes(told(steps)):
        for waiting in still_waiting(evidence, evaluation).values():
            assert complete_sets(waiting) == []


@given(STORIES, st.sampled_from(["fifo", "latest"]))
@settings(deadline=None, max_examples=80)
def test_each_candidate_has_one_outcome_and_each_signal_one_trigger(steps, policy):
    story = told(steps, policy=policy)

    evaluation = story.evaluate()

    outcomes = Counter(
        [*((each.position, each.sequence) for each in evaluation.ended)]
        + [(each.position, each.sequence) for each in evaluation.pending]
    )
    taken = [each for each in story.inputs if isinstance(each, CandidateInput)]
    assert outcomes == Counter((each.position, each.sequence) for each in taken)
    bound = Counter(
        tuple(signal["position"].values()) for trigger in evaluation.triggers for signal in trigger.value["signals"]
    )
    assert all(count == 1 for count in bound.values())
    assert set(bound) == {tuple(each.position) for each in evaluation.ended if each.outcome == "fired"}
    assert evaluation.violations == ()


@given(STORIES, st.sampled_from(["fifo", "latest"]))
@settings(deadline=None, max_examples=80)
def test_the_signals_of_a_set_fit_their_aliases_agree_on_the_key_and_lie_within(steps, policy):
    story = told(steps, policy=policy)

    for trigger in story.evaluate().triggers:
        signals = trigger.value["signals"]
        times = [steps[signal["position"]["partition"]].minute for signal in signals]
        assert [signal["alias"] for signal in signals] == list(ALIASES)
        assert all(signal["params"][signal["alias"]] is True for signal in signals)
        assert {signal["params"]["k"] for signal in signals} == {trigger.value["join_key"]["k"]}
        assert (max(times) - min(times)) * MINUTE <= WITHIN
        assert trigger.value["order"]["sequence"] == max(signal["sequence"] for signal in signals)


@given(STORIES, st.sampled_from(["fifo", "latest"]))
@settings(deadline=None, max_examples=80)
def test_an_identity_joins_once_in_the_horizon(steps, policy):
    story = told(steps, policy=policy)

    admitted: dict[tuple[int, str], list[tuple[int, int]]] = {}  # (key, id) → (sequence, recorded_at)
    evaluation = story.evaluate()
    duplicates = {each.sequence for each in evaluation.ended if each.outcome == "duplicate"}
    for each in story.inputs:
        if not isinstance(each, CandidateInput):
            continue
        step = steps[each.position.partition]
        earlier = admitted.setdefault((step.key, step.id), [])
        beyond = all(clock_before(story, each.sequence) > at + DEDUPE for _, at in earlier)
        if each.sequence in duplicates:
            assert earlier
        else:
            assert beyond
            earlier.append((each.sequence, each.recorded_at))


def clock_before(story: Scenario, sequence: int) -> int:
    """The largest time that the clock can have reached before a decision: the largest one announced."""
    marks = [each for each in story.inputs if isinstance(each, MarkInput) and each.sequence < sequence]
    return max((time for mark in marks for time in mark.announced.values()), default=0)


@given(st.lists(st.builds(Given, FITS, st.just(1), MINUTES, st.just("-")), min_size=1, max_size=7))
@settings(deadline=None, max_examples=150)
def test_the_choice_finds_a_set_exactly_where_one_exists(signals):
    *waiting, arriving = pool_of(signals)

    chosen = choose(arriving, waiting, ALIASES, WITHIN, newest_first=False)

    possible = [each for each in complete_sets([*waiting, arriving]) if arriving in each]
    if chosen is None:
        assert possible == []
    else:
        assert tuple(sorted(chosen.values(), key=lambda signal: signal.sequence)) in possible
        assert all(alias in signal.aliases for alias, signal in chosen.items())


@given(
    st.lists(st.builds(Given, FITS, st.just(1), st.integers(0, 10), st.just("-")), min_size=1, max_size=7),
    st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_where_time_divides_nothing_the_earliest_possible_set_is_chosen(signals, newest_first):
    *waiting, arriving = pool_of(signals)

    chosen = choose(arriving, waiting, ALIASES, WITHIN, newest_first=newest_first)

    possible = [
        sorted((signal.sequence for signal in each if signal != arriving), reverse=newest_first)
        for each in complete_sets([*waiting, arriving])
        if arriving in each
    ]
    if possible:
        preferred = max(possible) if newest_first else min(possible)
        found = [signal.sequence for signal in chosen.values() if signal != arriving]
        assert sorted(found, reverse=newest_first) == preferred


@given(st.lists(FITS, max_size=5))
def test_bindable_agrees_with_trying_every_binding(fits):
    signals = [Waiting(number, 0, aliases) for number, aliases in enumerate(fits)]

    possible = len(signals) <= len(ALIASES) and any(
        all(alias in signal.aliases for signal, alias in zip(signals, order, strict=False))
        for order in permutations(ALIASES, len(signals))
    )

    assert bindable(signals, ALIASES) == possible


def pool_of(signals: list[Given]) -> list[Waiting]:
    return [Waiting(number, START_MS + each.minute * MINUTE, each.fits) for number, each in enumerate(signals)]


SINGLE_FITS = st.sampled_from([frozenset(alias) for alias in ALIASES])


@given(
    st.lists(
        st.builds(Given, SINGLE_FITS, st.sampled_from([1, 2]), st.integers(0, 10), st.sampled_from("uvw")), max_size=7
    ),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=150)
def test_where_no_signal_fits_two_aliases_the_counts_hold_in_any_order(signals, random):
    owned = [replace(each, id="".join(each.fits) + each.id) for each in signals]  # an identity fits one alias
    shuffled = random.sample(owned, len(owned))
    story, other = told(list(owned)), told(list(shuffled))

    counts = count_any_order(story.definitions, story.signals, {TOPIC: TOPIC_ID})

    for each in (story, other):
        fired = Counter(
            ("t/three", f'{{"k":{trigger.value["join_key"]["k"]}}}') for trigger in each.evaluate().triggers
        )
        assert fired == counts


@given(st.lists(GIVENS, max_size=7), st.integers(0, 3))
@settings(deadline=None, max_examples=100)
def test_never_more_is_pending_than_the_limit_allows(signals, limit):
    story = told(list(signals), limits=Limits(per_key=limit))

    for evidence, evaluation in prefixes(story):
        assert all(len(waiting) <= limit for waiting in still_waiting(evidence, evaluation).values())


@given(STORIES)
@settings(deadline=None, max_examples=60)
def test_under_latest_what_is_pending_is_the_newest_of_an_alias(steps):
    for evidence, evaluation in prefixes(told(steps, policy="latest")):
        for waiting in still_waiting(evidence, evaluation).values():
            newest = {max(each.sequence for each in waiting if alias in each.aliases) for alias in aliases_of(waiting)}
            assert newest == {each.sequence for each in waiting}


def aliases_of(waiting: list[Waiting]) -> set[str]:
    return {alias for each in waiting for alias in each.aliases}
