"""When a wait asks whether it is over."""

from holdfast.protocol.outcomes import EMPTY, All, Failed, First, Leaf, Resolution, Watch


def leaves(count: int) -> list[Leaf]:
    return [Leaf(("c", number)) for number in range(count)]


def resolve(leaf: Leaf, sequence: int, *, failed: bool = False) -> Leaf:
    leaf.resolution = Resolution(sequence, Failed(500, "no") if failed else EMPTY)
    return leaf


def test_waiting_for_all_of_many_asks_at_the_first_and_at_the_last() -> None:
    children = leaves(100)
    watch = Watch(All(children), ())
    asked = [watch.may_be_over(None)] + [watch.may_be_over(resolve(leaf, n)) for n, leaf in enumerate(children, 1)]
    assert [n for n, worth in enumerate(asked) if worth] == [0, 100]


def test_a_failure_among_all_is_noticed_at_once() -> None:
    children = leaves(3)
    watch = Watch(All(children), ())
    watch.may_be_over(None)
    assert not watch.may_be_over(resolve(children[0], 1))
    assert watch.may_be_over(resolve(children[1], 2, failed=True))


def test_one_result_awaited_twice_counts_once() -> None:
    child = Leaf(("c", 1))
    watch = Watch(All([child, child]), ())
    watch.may_be_over(None)
    assert watch.may_be_over(resolve(child, 1))


def test_results_of_others_are_not_worth_asking() -> None:
    mine, other = leaves(2)
    watch = Watch(First([mine]), ())
    watch.may_be_over(None)
    assert not watch.may_be_over(resolve(other, 1))
    assert watch.may_be_over(resolve(mine, 2))


def test_a_deadline_is_worth_asking() -> None:
    mine, deadline = leaves(2)
    watch = Watch(All([mine]), [deadline])
    watch.may_be_over(None)
    assert watch.may_be_over(resolve(deadline, 1))


def test_with_named_signals_every_step_is_worth_asking() -> None:
    signal = Leaf(("n", "go"), kind="signal", name="go")
    watch = Watch(All([signal, *leaves(1)]), ())
    assert all(watch.may_be_over(None) for _ in range(3))
