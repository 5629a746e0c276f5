"""The fair queue: whose work is done next, how the load is reported, and how it ends."""

import gc
import threading
import weakref
from concurrent.futures import wait

import pytest

from sampler_service.load import EventRate, LoadMeter
from sampler_service.scheduler import FairScheduler
from tests.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def one(clock):
    found = FairScheduler(1, clock)
    yield found
    found.close()


def held(scheduler, project="held"):
    """Occupy the only thread; return what releases it, and the task."""
    gate, there = threading.Event(), threading.Event()

    def work():
        there.set()
        gate.wait(20)

    task = scheduler.submit(project, work)
    assert there.wait(20)
    return gate, task


def test_projects_take_turns_by_the_time_their_work_takes(one, clock):
    order = []

    def work(project, seconds):
        def run():
            order.append(project)
            clock.now += seconds

        return run

    gate, _ = held(one)
    tasks = [one.submit("many", work("many", 1.0)) for _ in range(60)]
    tasks += [one.submit("few", work("few", 3.0)) for _ in range(3)]
    gate.set()
    wait(tasks, 20)
    # Each of few's takes as long as three of many's.
    first, second, third = (index for index, project in enumerate(order) if project == "few")
    assert first <= 2
    assert second - first - 1 in {2, 3, 4}
    assert third - second - 1 in {2, 3, 4}
    assert len(order) == 63


def test_an_idle_project_accumulates_no_credit(one, clock):
    order = []

    def work(project):
        def run():
            order.append(project)
            clock.now += 1.0

        return run

    wait([one.submit("busy", work("busy")) for _ in range(50)], 20)
    gate, _ = held(one, "busy")
    tasks = [one.submit("busy", work("busy")) for _ in range(4)]
    tasks += [one.submit("late", work("late")) for _ in range(4)]
    order.clear()
    gate.set()
    wait(tasks, 20)
    assert order.count("late") == 4
    # Not four times in a row, though busy has had fifty seconds more.
    assert order[:4].count("late") in {1, 2}


def test_a_project_with_one_long_task_at_a_time_gets_no_larger_share(one, clock):
    spent = {"one by one": 0.0, "many": 0.0}

    def work(project, seconds):
        def run():
            spent[project] += seconds
            clock.now += seconds

        return run

    many = [one.submit("many", work("many", 0.005)) for _ in range(4_000)]
    # Between two of its tasks it has nothing to do, and only its debt is kept.
    while spent["one by one"] < 8.0:
        one.submit("one by one", work("one by one", 0.2)).result(20)
        if spent["many"] >= 20.0:
            break
    assert spent["one by one"] <= spent["many"] + 0.5
    one.close()
    wait(many, 20)


def test_a_late_project_is_not_served_before_those_with_pending_work(clock):
    two = FairScheduler(2, clock)
    gate, task = held(two, "long")
    wait([two.submit("busy", lambda: setattr(clock, "now", clock.now + 1.0)) for _ in range(10)], 20)
    order = []
    other, blocked = held(two, "busy")
    tasks = [two.submit(project, lambda project=project: order.append(project)) for project in ["late", "busy"] * 10]
    other.set()
    wait([blocked, *tasks], 20)
    # What `long` has had is not known yet; that does not put a newcomer where it began.
    assert two._virtual >= 8.0
    assert order[:6].count("busy") >= 2
    gate.set()
    task.result(20)
    two.close()


def test_nothing_is_kept_of_a_task_that_is_done(one):
    class Model:
        pass

    model = Model()
    gone = weakref.ref(model)
    one.submit("a", lambda kept=model: None).result(20)
    del model
    # Whatever comes next finds the thread empty-handed.
    one.submit("b", lambda: None).result(20)
    gc.collect()
    assert gone() is None


def test_work_of_one_project_is_done_in_order(one):
    order = []
    gate, _ = held(one)
    tasks = [one.lane("a").submit(order.append, number) for number in range(20)]
    gate.set()
    wait(tasks, 20)
    assert order == list(range(20))


def test_a_project_without_work_is_removed(one):
    wait([one.submit(f"project-{number}", lambda: None) for number in range(50)], 20)
    gate, task = held(one, "last")
    assert set(one._lanes) == {"last"}
    gate.set()
    task.result(20)


def test_errors_and_cancellations_are_those_of_their_task(one):
    gate, _ = held(one)
    ran = []
    failing = one.submit("a", lambda: 1 // 0)
    cancelled = one.submit("a", lambda: ran.append("cancelled"))
    good = one.lane("a").submit(divmod, 7, 2)
    assert one.queued == 3
    assert cancelled.cancel()
    gate.set()
    assert good.result(20) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        failing.result(20)
    assert ran == []


def test_closing_cancels_what_waits(one):
    gate, task = held(one)
    waiting = one.submit("a", lambda: None)
    one.close()
    assert waiting.cancelled()
    gate.set()
    task.result(20)
    with pytest.raises(RuntimeError, match="closed"):
        one.submit("a", lambda: None)
    for thread in one._threads:
        thread.join(20)
        assert not thread.is_alive()


def test_the_load_is_that_of_the_queue(one, clock):
    assert one.load().rate == 0.0
    gate, task = held(one)
    waiting = [one.submit("a", lambda: None) for _ in range(3)]
    clock.now += 60.0
    load = one.load()
    # One at work and three that wait, for far longer than the averages reach back.
    assert load.utilization == pytest.approx(4.0)
    assert load.rate == pytest.approx(0.0)
    gate.set()
    wait([task, *waiting], 20)
    clock.now += 60.0
    assert one.load().utilization == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("slowness", [1, 4])
def test_a_slowed_machine_shows_less_weight(slowness):
    # What arrives is the same: 1,000 candidates a second, which take `slowness` times 0.1 s on one of two threads.
    meter, now = LoadMeter(2, 0.0), 0.0
    for _ in range(100):
        meter.advance(now, 0)
        now += 0.1 * slowness
        meter.advance(now, 1)
        meter.count(1000)
        now += 1.0 - 0.1 * slowness
    load = meter.load(now, 0)
    assert load.rate == pytest.approx(1000.0, rel=0.1)
    # By Little's law: two threads divided by the time a candidate spends there.
    assert load.rate / load.utilization == pytest.approx(1000 * 2 / (0.1 * slowness), rel=0.15)


def test_long_tasks_of_much_work_weigh_like_short_ones_of_little():
    weights = []
    for seconds, candidates in ((5.0, 100_000), (0.005, 100)):
        meter, now = LoadMeter(1, 0.0), 0.0
        for _ in range(int(100 / seconds)):
            meter.advance(now, 1)
            now += seconds
            meter.advance(now, 1)
            meter.count(candidates)
        load = meter.load(now, 1)
        weights.append(load.rate / load.utilization)
    assert weights[0] == pytest.approx(weights[1], rel=0.7)


def test_events_a_second_fade():
    rate = EventRate()
    now = 0.0
    for _ in range(400):
        now += 0.1
        rate.count(now)
    assert rate.rate(now) == pytest.approx(10.0, rel=0.05)
    assert rate.rate(now + 60.0) == pytest.approx(0.0, abs=1e-3)
