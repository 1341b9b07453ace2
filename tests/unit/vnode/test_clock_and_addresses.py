from __future__ import annotations

import asyncio
import collections
import time

import pytest

from turbokube.vnode.addresses import (
    FALLBACK,
    NODES,
    Range,
    dotted,
    fallback,
    node_address,
    node_index,
    node_room,
    number,
)
from turbokube.vnode.clock import Agenda, Wheel


def turn(count: int, interval: float, leave: range = range(0)) -> dict[int, float]:
    """One turn of a wheel with so many members: member → moment at which it was due, from the first tick."""

    async def run() -> dict[int, float]:
        due: list[tuple[int, float]] = []
        wheel: Wheel[int] = Wheel(interval, lambda member, moment: due.append((member, moment)))
        for member in range(count):
            wheel.add(member, member)
        for member in leave:
            wheel.remove(member, member)
        task = asyncio.create_task(wheel.run())
        await asyncio.sleep(interval * 1.2)
        task.cancel()
        start = due[0][1]
        return {member: moment - start for member, moment in reversed(due) if moment - start < interval * 0.999}

    return asyncio.run(run())


@pytest.mark.parametrize("count", [100, 1000, 1024])
def test_members_come_due_once_a_turn_and_evenly(count):
    interval = 1.0
    due = turn(count, interval)
    assert len(due) == count
    tenths = collections.Counter(int(moment / interval * 10 + 1e-6) for moment in due.values())
    assert len(tenths) == 10
    assert max(tenths.values()) - min(tenths.values()) <= max(3, count * 0.011)


def test_a_members_moment_does_not_depend_on_the_others():
    few, many = turn(50, 0.5), turn(500, 0.5)
    shift = {round((many[m] - few[m]) % 0.5, 3) % 0.5 for m in few}
    assert len(shift) == 1


def test_who_left_is_not_due():
    assert set(turn(20, 0.5, leave=range(5, 20))) == set(range(5))


def test_a_wheel_that_was_held_up_says_so_and_skips_nobody():
    async def run() -> tuple[int, float, float]:
        seen = []
        wheel: Wheel[int] = Wheel(0.2, lambda member, _: seen.append(member))
        wheel.add(0, 0)
        task = asyncio.create_task(wheel.run())
        await asyncio.sleep(0.01)
        import time

        time.sleep(0.7)
        await asyncio.sleep(0.02)
        task.cancel()
        return len(seen), wheel.worst_lag(), wheel.worst_lag()

    count, lag, again = asyncio.run(run())
    assert count >= 4
    assert lag > 0.5
    assert again == 0.0


def test_addresses_of_a_range_are_distinct_and_come_back():
    addresses = Range("10.128.7.0/29")
    taken = [addresses.take() for _ in range(5)]
    assert [dotted(a) for a in taken] == [f"10.128.7.{n}" for n in range(2, 7)]
    assert addresses.take() == 0
    addresses.release(taken[2])
    assert addresses.take() == taken[2]


def test_an_adopted_address_is_not_given_again():
    addresses = Range("10.0.0.0/24")
    addresses.adopt(number("10.0.0.2"))
    addresses.adopt(number("10.9.9.9"))
    assert dotted(addresses.take()) == "10.0.0.3"


@pytest.mark.parametrize("cidr", ["", "fd00::/64", "nonsense", "10.0.0.0"])
def test_what_is_no_ipv4_range_has_no_addresses(cidr):
    assert Range(cidr).take() == 0


def test_the_fallback_holds_four_million_pods_and_nodes_have_addresses_of_their_own():
    addresses = Range(FALLBACK)
    assert len({addresses.take() for _ in range(3000)} - {0}) == 3000
    assert len({node_address(NODES, i) for i in range(20000)}) == 20000


def test_processes_of_a_fleet_take_addresses_from_ranges_of_their_own():
    assert fallback(0, 1) == FALLBACK
    assert [fallback(shard, 3) for shard in range(3)] == ["100.64.0.0/12", "100.80.0.0/12", "100.96.0.0/12"]
    assert fallback(63, 64) == "100.127.0.0/16"


def test_a_nodes_address_and_number_are_inverse():
    assert node_address("127.16.0.0/12", 0) == "127.16.1.0"
    assert node_index("127.16.0.0/12", node_address("127.16.0.0/12", 70_000)) == 70_000
    assert node_index("127.16.0.0/12", "127.0.0.1") < 0


@pytest.mark.parametrize(
    ("cidr", "room"),
    [("172.16.0.0/12", 2**20 - 257), ("10.1.0.0/23", 255), ("10.1.0.0/24", -1), ("10.1.0.1/16", -1), ("fd00::/64", -1)],
)
def test_a_range_holds_so_many_nodes(cidr, room):
    assert node_room(cidr) == room


@pytest.mark.parametrize("cidr", ["", "10.0.0.0", "10.0.0.0/33", "300.0.0.0/8"])
def test_what_is_no_range_holds_none(cidr):
    assert node_room(cidr) < 0


def test_an_agenda_keeps_each_appointment_once_and_on_time():
    async def run() -> None:
        agenda, kept = Agenda(), []
        began = time.monotonic()
        for which, moment in ((2, began + 0.2), (1, began + 0.1), (0, began - 5.0)):
            agenda.at(moment, lambda which=which: kept.append((which, time.monotonic() - began)))
        task = asyncio.create_task(agenda.run())
        await asyncio.sleep(0.35)
        agenda.after(0.1, lambda: kept.append((3, time.monotonic() - began)))  # after a time without any
        await asyncio.sleep(0.25)
        task.cancel()
        assert [which for which, _ in kept] == [0, 1, 2, 3]
        for which, meant in ((1, 0.1), (2, 0.2), (3, 0.45)):
            assert abs(kept[which][1] - meant) < 0.06
        assert agenda.worst_lag() < 0.1 or kept[0][1] > 0.05

    asyncio.run(run())


def test_an_agenda_that_is_called_from_its_rest_misses_nothing():
    async def run() -> None:
        agenda, kept = Agenda(), []
        task = asyncio.create_task(agenda.run())
        await asyncio.sleep(0.2)  # it rests
        for late in (-1.0, 0.0):
            agenda.after(late, lambda: kept.append(None))
        time.sleep(0.15)  # and is held up before it hears of that
        await asyncio.sleep(0.1)
        task.cancel()
        assert len(kept) == 2

    asyncio.run(run())


def test_an_agenda_that_was_held_up_keeps_what_it_missed_and_tells_how_late_it_was():
    async def run() -> None:
        agenda, kept = Agenda(), []
        task = asyncio.create_task(agenda.run())
        for tenth in range(3):
            agenda.after(0.1 * (tenth + 1), lambda: kept.append(None))
        await asyncio.sleep(0.05)
        time.sleep(0.4)
        await asyncio.sleep(0.01)
        task.cancel()
        assert len(kept) == 3
        assert agenda.worst_lag() >= 0.3
        assert agenda.worst_lag() == 0.0

    asyncio.run(run())
