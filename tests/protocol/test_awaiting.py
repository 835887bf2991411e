"""Trees of awaited results: the combinator table, and that a suspension once ready stays ready."""

import itertools

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.awaiting import (
    MAX_DEPTH,
    Awaiting,
    Combinator,
    Key,
    Outcome,
    from_suspension,
    key_of,
    outcome,
    outcome_of,
)
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.messages import Failure, Future, Notification, Suspension, Value, Void
from tests.protocol.strategies import arrivals, trees

P, S, F, U = Outcome.PENDING, Outcome.SUCCEEDED, Outcome.FAILED, Outcome.UNDETERMINED
ANY, FIRST, ALL, FIRST_SUCCESS, ALL_SUCCESS = Combinator
Arrivals = list[tuple[Key, Outcome]]


def at_least(earlier: Outcome, later: Outcome) -> bool:
    """PENDING < SUCCEEDED, FAILED < UNDETERMINED."""
    return earlier is P or later is U or earlier is later


@given(trees, arrivals)
def test_outcomes_only_climb(tree: Awaiting, arriving: Arrivals) -> None:
    known: dict[Key, Outcome] = {}
    before = outcome(tree, known)
    for key, result in arriving:
        known[key] = result
        after = outcome(tree, known)
        assert at_least(before, after)
        before = after


@given(trees, arrivals)
def test_the_outcome_does_not_depend_on_the_order_of_arrival(tree: Awaiting, arriving: Arrivals) -> None:
    assert outcome(tree, dict(arriving)) is outcome(tree, dict(reversed(arriving)))


@given(trees)
def test_everything_resolved_resolves_a_tree_without_empty_nodes(tree: Awaiting) -> None:
    if all(node.children or any(node.leaves()) for node in tree.nodes()):
        assert outcome(tree, dict.fromkeys(tree.keys(), S)) is not P
        assert outcome(tree, dict.fromkeys(tree.keys(), F)) is not P


@given(trees, arrivals)
def test_results_nobody_awaits_change_nothing(tree: Awaiting, arriving: Arrivals) -> None:
    known = dict(arriving)
    relevant = {key: result for key, result in known.items() if key in tree.keys()}  # noqa: SIM118
    assert outcome(tree, known) is outcome(tree, relevant)


@given(trees)
def test_documents_round_trip(tree: Awaiting) -> None:
    stored = msgpack.unpackb(msgpack.packb(tree.to_document()))
    again = Awaiting.from_document(stored)
    assert again == tree
    assert hash(again) == hash(tree)
    assert again.keys() == tree.keys()


TABLE = [
    (ANY, (P, P), P),
    (ANY, (P, F), U),
    (ANY, (S, S), U),
    (FIRST, (P, P), P),
    (FIRST, (P, S), S),
    (FIRST, (F, P), F),
    (FIRST, (F, S), U),  # which came first is not known here: wake
    (ALL, (S, P), P),
    (ALL, (F, P), P),
    (ALL, (S, F), S),
    (FIRST_SUCCESS, (S, P), S),
    (FIRST_SUCCESS, (F, P), P),
    (FIRST_SUCCESS, (F, F), F),
    (ALL_SUCCESS, (S, P), P),
    (ALL_SUCCESS, (F, P), F),
    (ALL_SUCCESS, (S, S), S),
    (ALL_SUCCESS, (S, F), F),
]


@pytest.mark.parametrize(("combinator", "children", "expected"), TABLE)
def test_the_table(combinator: Combinator, children: tuple[Outcome, ...], expected: Outcome) -> None:
    leaves = Awaiting((1, 2), combinator=combinator)
    nested = Awaiting((), (), (), (Awaiting((1,), combinator=FIRST), Awaiting((2,), combinator=ALL_SUCCESS)), combinator)
    for order in itertools.permutations(children):
        known: dict[Key, Outcome] = {("c", id): result for id, result in zip((1, 2), order, strict=True)}
        assert outcome(leaves, known) is expected
        assert outcome(nested, known) is expected


@pytest.mark.parametrize("combinator", [FIRST_SUCCESS, ALL_SUCCESS])
def test_an_undetermined_child_decides(combinator: Combinator) -> None:
    tree = Awaiting((), (), (), (Awaiting((1,)), Awaiting((2,), combinator=FIRST)), combinator)
    assert outcome(tree, {("c", 1): S}) is U


def test_ids_indexes_and_names_are_separate_spaces() -> None:
    tree = Awaiting((1,), (2,), ("1",))
    assert tree.keys() == {("c", 1), ("s", 2), ("n", "1")}
    assert outcome(tree, {("s", 1): S, ("c", 2): S, ("n", "2"): S}) is P
    assert outcome(tree, {("n", "1"): S}) is U


@pytest.mark.parametrize("version", [5, 6])
def test_flat_suspensions_are_one_unknown_node(version: int) -> None:
    message = Suspension(waiting_completions=[3, 4], waiting_signals=[1], waiting_named_signals=["go"])
    assert from_suspension(message, version=version) == Awaiting((3, 4), (1,), ("go",))


def test_the_nested_example() -> None:
    """Service protocol §8.4: all of (sleep, race of awakeable and sleep), beside cancel."""
    race = Future(waiting_completions=[2], waiting_signals=[17], combinator_type=Future.FIRST_COMPLETED)
    both = Future(waiting_completions=[1], nested_futures=[race], combinator_type=Future.ALL_SUCCEEDED_OR_FIRST_FAILED)
    root = Future(waiting_signals=[1], nested_futures=[both], combinator_type=Future.FIRST_COMPLETED)
    tree = from_suspension(Suspension(awaiting_on=root), version=7)
    assert outcome(tree, {("c", 1): S}) is P
    assert outcome(tree, {("s", 17): S}) is P
    assert outcome(tree, {("c", 1): S, ("s", 17): S}) is S
    assert outcome(tree, {("s", 17): F}) is F
    assert outcome(tree, {("s", 1): S}) is S


def test_nodes_nothing_can_resolve_are_left_out() -> None:
    empty = Future(nested_futures=[Future(), Future(combinator_type=Future.ALL_COMPLETED)])
    root = Future(waiting_signals=[1], nested_futures=[empty], combinator_type=Future.FIRST_COMPLETED)
    tree = from_suspension(Suspension(awaiting_on=root), version=7)
    assert tree == Awaiting((), (1,), combinator=FIRST)


@pytest.mark.parametrize(
    ("message", "version"),
    [
        (Suspension(), 6),
        (Suspension(awaiting_on=Future(waiting_signals=[1])), 6),
        (Suspension(awaiting_on=Future()), 7),
        (Suspension(awaiting_on=Future(nested_futures=[Future()])), 7),
        (Suspension(waiting_signals=[1]), 7),
    ],
)
def test_awaiting_nothing_is_refused(message: Suspension, version: int) -> None:
    with pytest.raises(ProtocolError, match="awaits nothing"):
        from_suspension(message, version=version)


def test_an_unknown_combinator_wakes_on_any_child() -> None:
    message = Suspension.FromString(b"\x22\x05\x12\x01\x01\x28\x09")
    assert from_suspension(message, version=7).combinator is ANY


def chain(depth: int) -> Awaiting:
    tree = Awaiting((1,), combinator=FIRST)
    for _ in range(depth - 1):
        tree = Awaiting(children=(tree,), combinator=FIRST)
    return tree


def test_the_deepest_tree_is_stored_compared_and_resolved() -> None:
    tree = chain(MAX_DEPTH)
    assert Awaiting.from_document(msgpack.unpackb(msgpack.packb(tree.to_document()))) == tree
    assert hash(tree) == hash(chain(MAX_DEPTH))
    assert outcome(tree, {("c", 1): F}) is F
    assert tree != chain(MAX_DEPTH - 1)
    assert repr(tree).startswith("Awaiting([[1, [1]")


def test_depth_beyond_the_limit_is_refused() -> None:
    suspension = Suspension()
    innermost = suspension.awaiting_on
    for _ in range(MAX_DEPTH):
        innermost = innermost.nested_futures.add(waiting_signals=[1])
    with pytest.raises(ProtocolError, match="more than 1000 combinators"):
        from_suspension(suspension, version=7)


@pytest.mark.parametrize(
    "document",
    [
        [],
        [[0, [1], [], [], 1]],
        [[0, [1], [], [], 0], [0, [1], [], [], 0]],
        [[9, [1], [], [], 0]],
        [[0, [1]]],
        [7],
    ],
)
def test_a_damaged_document_is_refused(document: list[list[object]]) -> None:
    with pytest.raises(ProtocolError, match="unreadable"):
        Awaiting.from_document(document)


@given(st.integers(0, 2**32 - 1))
def test_notifications_name_their_key_and_outcome(number: int) -> None:
    completed = Notification(completion_id=number, value=Value())
    signalled = Notification(idx=number, failure=Failure(code=500))
    named = Notification(name="go", void=Void())
    assert (key_of(completed), outcome_of(completed)) == (("c", number), S)
    assert (key_of(signalled), outcome_of(signalled)) == (("s", number), F)
    assert (key_of(named), outcome_of(named)) == (("n", "go"), S)
    with pytest.raises(ProtocolError, match="found none"):
        key_of(Notification(void=Void()))
