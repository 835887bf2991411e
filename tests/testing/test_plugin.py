"""The pytest plugin in a project of its own: fixtures, marker, options, and what a failing test prints."""

import time
from pathlib import Path

import pytest

from tests.testing import shop, stack

pytest_plugins = ["pytester"]

SHOP = (Path(__file__).parent / "shop.py").read_text()
WITH_MARKER = """
    from datetime import timedelta
    import pytest
    from shop import EFFECTS, Trip, approvals, book, nap, naps, request, trips

    pytestmark = pytest.mark.holdfast(trips, naps)

    async def test_async(holdfast_runtime):
        assert await holdfast_runtime.call(book, Trip("Bern", 300)) == ["flight-1", "hotel-1", "payment-300"]

    def test_plain(holdfast_runtime_sync):
        assert holdfast_runtime_sync.call(nap, 30)

    @pytest.mark.holdfast(always_replay=True, crash_at=2)
    async def test_options_add_up(holdfast_runtime):
        assert await holdfast_runtime.call(book, Trip("Bern", 300))

    @pytest.mark.holdfast(approvals)
    def test_other_services(holdfast_runtime_sync):
        asked = holdfast_runtime_sync.send(request, "a desk", key="k")
        holdfast_runtime_sync.advance(timedelta(days=3))
        assert asked.status() == "completed"
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """An empty project with the services in `shop.py`."""
    pytester.makepyfile(shop=SHOP)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\naddopts = --strict-markers\n")
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_fixtures_and_marker(project: pytest.Pytester) -> None:
    project.makepyfile(WITH_MARKER)
    run(project).assert_outcomes(passed=4)


def test_services_by_fixture_and_always_replay_for_all(project: pytest.Pytester) -> None:
    project.makeconftest("""
        import pytest, shop

        @pytest.fixture
        def holdfast_services():
            return [shop.trips, shop.naps]
    """)
    project.makepyfile("""
        import random
        from shop import naps, nap
        from holdfast import Context

        @naps.handler
        async def chance(ctx: Context) -> None:
            ctx.send(nap, random.randint(0, 10**9))

        async def test_it(holdfast_runtime):
            await holdfast_runtime.call(chance)
    """)
    run(project).assert_outcomes(passed=1)
    replayed = run(project, "--holdfast-always-replay")
    replayed.assert_outcomes(failed=1)
    replayed.stdout.fnmatch_lines(
        ["*NotDeterministic: naps/chance (inv_*) is not deterministic: journal mismatch: entry 1 records send naps/nap*"]
    )


def test_a_failing_test_prints_what_went_wrong_and_the_journals(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest
        from shop import Trip, book, naps, trips, wait_for_answer

        @pytest.mark.holdfast(trips)
        async def test_other_result(holdfast_runtime):
            assert await holdfast_runtime.call(book, Trip("Bern", 300)) == []

        @pytest.mark.holdfast(trips)
        def test_other_steps(holdfast_runtime_sync):
            booked = holdfast_runtime_sync.send(book, Trip("Bern", 300))
            booked.result()
            booked.journal().assert_steps("run flight", "run payment", "output")

        @pytest.mark.holdfast(naps)
        async def test_stuck(holdfast_runtime):
            await holdfast_runtime.call(wait_for_answer)
    """)
    failed = run(project)
    failed.assert_outcomes(failed=3)
    failed.stdout.fnmatch_lines_random(
        [
            "*Journals of the test runtime at the failure, virtual time 2*",
            "*trips/book  inv_*  completed*",
            '*3  run hotel    → "hotel-1"*',
            "*AssertionError: the journal has other steps than expected (- expected, + recorded):*",
            "*+ run hotel*",
            "*Stuck: the test waits for a result that nothing can bring about: no timer is due, and no handler runs.*",
            "*It waits for an awakeable or a signal; complete it with runtime.resolve_awakeable or handle.signal.*",
        ]
    )


def test_a_runtime_without_services_says_what_to_do(project: pytest.Pytester) -> None:
    project.makepyfile("async def test_it(holdfast_runtime): ...")
    found = run(project)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["*holdfast_runtime has no services: mark the test with @pytest.mark.holdfast(service, ...)*"])


def test_options_that_do_not_go_together(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(): ...")
    alone = run(project, "--holdfast-admin", "http://127.0.0.1:1")
    assert "--holdfast-admin needs --holdfast-ingress" in alone.stderr.str()
    both = run(project, "--holdfast-ingress", "http://127.0.0.1:1", "--holdfast-always-replay")
    assert "--holdfast-always-replay needs the runtime in memory" in both.stderr.str()


def test_the_same_tests_against_a_deployed_stack(project: pytest.Pytester) -> None:
    project.makepyfile("""
        from datetime import timedelta
        import pytest
        from holdfast.testing import TestRuntime
        from shop import Trip, book, request, approvals, trips

        @pytest.mark.holdfast(trips)
        def test_steps(holdfast_runtime_sync):
            booked = holdfast_runtime_sync.send(book, Trip("Bern", 300))
            assert booked.result() == ["flight-1", "hotel-1", "payment-300"]
            booked.journal().assert_steps("run flight", "run hotel", "run payment", "output")

        async def test_time():
            async with TestRuntime(approvals) as runtime:
                asked = await runtime.send(request, "a desk", key="k")
                await runtime.advance(timedelta(days=3))
                assert await asked.result() == "expired"

        @pytest.mark.holdfast(trips, crash_at=2)
        async def test_crash(holdfast_runtime):
            await holdfast_runtime.call(book, Trip("Bern", 300))
    """)
    run(project).assert_outcomes(passed=3)
    with stack.running(shop.trips, shop.approvals) as (ingress, admin):
        deployed = run(project, "-rs", "--holdfast-ingress", ingress, "--holdfast-admin", admin)
    deployed.assert_outcomes(passed=1, skipped=2)
    deployed.stdout.fnmatch_lines_random(
        ["*advancing time by 3 days, 0:00:00 needs virtual time*", "*crash_at needs the runtime in memory*"]
    )


def test_a_hundred_tests_take_seconds(project: pytest.Pytester) -> None:
    project.makepyfile("""
        from datetime import timedelta
        import pytest
        from shop import Item, Trip, add, approvals, book, carts, checkout, nap, naps, payments, request, summarize, reports, trips

        pytestmark = pytest.mark.holdfast(trips, carts, payments, approvals, reports, naps)

        @pytest.mark.parametrize("number", range(20))
        @pytest.mark.parametrize("kind", ["saga", "cart", "approval", "fan-out", "nap"])
        async def test_it(holdfast_runtime, kind, number):
            match kind:
                case "saga":
                    await holdfast_runtime.call(book, Trip("Bern", number))
                case "cart":
                    await holdfast_runtime.call(add, Item("pot", number), key="ann")
                    await holdfast_runtime.call(checkout, key="ann")
                case "approval":
                    assert await holdfast_runtime.call(request, "a desk", key="k") == "expired"
                case "fan-out":
                    assert await holdfast_runtime.call(summarize, [1, 2, 3]) == 14
                case "nap":
                    await holdfast_runtime.call(nap, 30)
    """)
    began = time.monotonic()
    done = run(project, "-q")
    done.assert_outcomes(passed=100)
    print(f"100 tests: {time.monotonic() - began:.2f} s with the start of Python")
