"""The rule itself, without a runtime."""

from dataclasses import replace

from rate_limited_client.gate import Gate, Limits, admit, without

LIMITS = Limits(per_second=4, burst=2, at_once=3, lease_ms=10_000, queue=100)
NOW = 1_800_000_000_000


def queue(*ids: str) -> Gate:
    return Gate(waiting=list(ids))


def test_a_burst_goes_in_and_the_next_one_an_interval_later() -> None:
    first = admit(queue("a", "b", "c"), LIMITS, NOW)
    assert (first.admitted, first.gate.waiting, first.look_again_ms) == (["a", "b"], ["c"], NOW + 250)
    assert admit(first.gate, LIMITS, NOW + 249).admitted == []
    assert admit(first.gate, LIMITS, NOW + 250).admitted == ["c"]


def test_after_a_pause_there_is_a_burst_again_and_no_more() -> None:
    gate = admit(queue("a"), LIMITS, NOW).gate
    later = admit(replace(without(gate, "a"), waiting=["b", "c", "d"]), LIMITS, NOW + 3_600_000)
    assert later.admitted == ["b", "c"]


def test_a_full_house_waits_for_the_first_to_leave() -> None:
    gate = admit(queue("a", "b"), LIMITS, NOW).gate
    gate = admit(replace(gate, waiting=["c", "d"]), LIMITS, NOW + 1_000).gate
    assert (list(gate.inside), gate.waiting) == (["a", "b", "c"], ["d"])
    assert admit(without(gate, "b"), LIMITS, NOW + 1_000).admitted == ["d"]


def test_who_stays_too_long_loses_the_place() -> None:
    gate = admit(queue("a", "b"), LIMITS, NOW).gate
    full = admit(replace(gate, waiting=["c", "d"]), LIMITS, NOW + 1_000)
    assert full.look_again_ms == NOW + LIMITS.lease_ms
    assert admit(full.gate, LIMITS, NOW + LIMITS.lease_ms).admitted == ["d"]


def test_nobody_waits_nobody_looks_again() -> None:
    assert admit(queue("a"), LIMITS, NOW).look_again_ms is None


def test_an_interval_that_is_no_whole_number_is_never_short() -> None:
    thirds = replace(LIMITS, per_second=3, burst=1)
    gate, at = queue(*"abcdefg"), NOW
    for _ in range(6):
        admission = admit(gate, thirds, at)
        assert len(admission.admitted) == 1
        assert admission.look_again_ms is not None
        gate, at = without(admission.gate, admission.admitted[0]), admission.look_again_ms
    assert NOW + 2_000 <= at <= NOW + 2_006
