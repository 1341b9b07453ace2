from __future__ import annotations

import asyncio
import itertools
import math
import statistics
import time

import pytest

from turbokube.load.pacing import Curve, Gate, Poisson, Schedule, closed_loop, constant, open_loop


def offsets(pace: Curve | Poisson, count: int) -> list[float]:
    return [pace.offset(number) for number in range(count)]


def test_a_constant_rate_is_a_grid() -> None:
    assert offsets(constant(4.0), 5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert constant(3.0).offset(3_000_000) == 1_000_000.0


def test_steps_follow_each_other_and_the_last_goes_on() -> None:
    steps = Curve([(2.0, 2.0, 2.0), (0.0, 0.0, 5.0), (10.0, 10.0, 0.2)], 7.2)
    assert offsets(steps, 9) == pytest.approx([0, 0.5, 1.0, 1.5, 7.0, 7.1, 7.2, 7.3, 7.4])


@pytest.mark.parametrize(("begin", "end"), [(0.0, 10.0), (10.0, 0.0), (5.0, 50.0)])
def test_a_ramp_has_its_rate_at_every_moment(begin: float, end: float) -> None:
    seconds = 10.0
    ramp = Curve([(begin, end, seconds)], seconds)
    items = int((begin + end) / 2 * seconds)
    due = offsets(ramp, items)
    slope = (end - begin) / seconds
    assert [begin * t + slope * t * t / 2 for t in due] == pytest.approx(list(range(items)))
    assert all(a < b <= seconds for a, b in itertools.pairwise(due))
    after = ramp.offset(items + 10)
    assert after == (math.inf if end == 0.0 else pytest.approx(seconds + 10 / end))


def test_poisson_is_the_seeds_and_memoryless() -> None:
    due = offsets(Poisson(20.0, 7), 5000)
    again = Poisson(20.0, 7)
    assert [again.offset(number) for number in reversed(range(5000))] == due[::-1]
    assert offsets(Poisson(20.0, 8), 10) != due[:10]
    gaps = [b - a for a, b in itertools.pairwise(due)]
    assert statistics.mean(gaps) == pytest.approx(1 / 20, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 20, rel=0.1)  # as exponential gaps have


def test_schedule_moves_only_while_the_gate_is_shut() -> None:
    async def scenario() -> None:
        gate = Gate()
        schedule = Schedule(constant(10.0), 1000.0, gate)
        assert [schedule.due(n) for n in (0, 1, 10)] == [1000.0, 1000.1, 1001.0]
        gate.shut()
        await asyncio.sleep(0.05)
        gate.reopen()
        assert 1001.05 <= schedule.due(10) < 1001.5
        await asyncio.sleep(0.05)
        assert schedule.due(10) == 1001.0 + gate.away

    asyncio.run(scenario())


def test_a_schedule_goes_on_in_the_middle() -> None:
    steps = Curve([(1.0, 1.0, 10.0), (100.0, 100.0, 10.0)], 20.0)
    schedule = Schedule(steps, 1000.0, Gate(), first=9)
    assert [schedule.due(n) for n in (9, 10, 11)] == pytest.approx([1000.0, 1001.0, 1001.01])


def test_an_open_loop_intends_the_same_however_slow_the_answers() -> None:
    async def intended(answer: float, start: float) -> list[tuple[int, float]]:
        seen: list[tuple[int, float]] = []

        async def one(number: int, due: float) -> None:
            seen.append((number, due))
            assert time.time() >= due
            await asyncio.sleep(answer)

        await open_loop(range(20), one, Schedule(constant(200.0), start, Gate()))
        return seen

    start = time.time() + 0.01
    fast, slow = asyncio.run(intended(0.0, start)), asyncio.run(intended(0.3, start))
    assert fast == slow == [(n, pytest.approx(start + n / 200)) for n in range(20)]


def test_an_open_loop_that_is_late_lets_others_work() -> None:
    async def scenario() -> int:
        begun, when_first_ended = 0, 0

        async def one(number: int, due: float) -> None:
            nonlocal begun, when_first_ended
            begun += 1
            await asyncio.sleep(0)
            when_first_ended = when_first_ended or begun

        await open_loop(range(2000), one, Schedule(constant(1e6), time.time() - 10, Gate()))
        assert begun == 2000
        return when_first_ended

    assert asyncio.run(scenario()) < 500


def test_a_closed_loop_has_so_many_in_work_and_no_more() -> None:
    async def scenario() -> None:
        working, most, done = 0, 0, []

        async def one(number: int, begun: float) -> None:
            nonlocal working, most
            working += 1
            most = max(most, working)
            await asyncio.sleep(0.001)
            working -= 1
            done.append(number)

        await closed_loop(range(20), one, 3, Gate())
        assert most == 3
        assert sorted(done) == list(range(20))

    asyncio.run(scenario())
