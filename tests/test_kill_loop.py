"""The coordinator killed a few times under load; `bench/kill_loop.py` does it for as long as one likes."""

from bench import kill_loop


def test_nothing_acknowledged_is_lost_changed_or_done_twice_by_kills() -> None:
    report = kill_loop.run(kills=4, seed=7)
    assert report.wrong == []
    assert report.kills == 4
    assert sum(report.sent_by_key.values()) > 0
    assert report.results
