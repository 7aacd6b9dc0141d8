"""How long to wait, as the policy and the other threads have it."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable

import pytest

from stac_gitlab.errors import ConfigurationError
from stac_gitlab.http.deadline import Cancelled, Deadline, enforcing
from stac_gitlab.http.rate_headers import Quota
from stac_gitlab.http.retry import RateLimiter
from stac_gitlab.settings import RetryPolicy, pause
from tests.conftest import Clock

# -- the policy ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"deadline": -1.0},
        {"deadline": float("nan")},
        {"backoff_base": -0.1},
        {"backoff_cap": -0.1},
        {"max_wait": -1.0},
        {"stall_window": -1.0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_a_policy_is_varied_by_a_copy() -> None:
    policy = RetryPolicy()
    assert policy.replace(max_attempts=2) == RetryPolicy(max_attempts=2)
    assert policy == RetryPolicy()
    with pytest.raises(AttributeError):
        policy.max_attempts = 1  # type: ignore[misc]
    assert RetryPolicy(statuses={429}).statuses == frozenset({429})  # type: ignore[arg-type]


def test_a_policy_pickles_and_still_tells_the_time() -> None:
    policy = pickle.loads(pickle.dumps(RetryPolicy(max_attempts=2)))
    assert policy == RetryPolicy(max_attempts=2)
    assert policy.clock() <= policy.clock()
    policy.sleep(0)


def test_the_documented_defaults_hold() -> None:
    assert repr(RetryPolicy()) == (
        "RetryPolicy(max_attempts=5, deadline=300.0, backoff_base=0.5, backoff_cap=30.0, "
        "max_wait=120.0, statuses=frozenset({500, 408, 502, 503, 504, 429}), min_rate=1024.0, "
        "stall_window=60.0)"
    ).replace("frozenset({500, 408, 502, 503, 504, 429})", repr(RetryPolicy().statuses))
    assert RetryPolicy().statuses == {408, 429, 500, 502, 503, 504}


def test_backoff_has_full_jitter_below_a_ceiling_that_doubles() -> None:
    policy = RetryPolicy(backoff_base=0.5, backoff_cap=3.0)
    for attempt, ceiling in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (10_000, 3.0)):
        drawn = [policy.backoff(attempt) for _ in range(500)]
        assert 0 <= min(drawn) < 0.1 * ceiling
        assert 0.9 * ceiling < max(drawn) <= ceiling
        assert 0.4 * ceiling < sum(drawn) / 500 < 0.6 * ceiling


def test_the_default_sleep_is_the_one_that_a_test_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    RetryPolicy().sleep(3)
    assert slept == [3]


# -- what threads share -------------------------------------------------------------------------


@pytest.fixture
def policy(clock: Clock) -> RetryPolicy:
    return RetryPolicy(clock=clock.time, sleep=clock.sleep, backoff_base=8.0, max_wait=100.0)


def test_the_gate_is_open_until_someone_is_refused(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    with limiter.slot(), limiter.slot(), limiter.slot():
        pass
    assert clock.slept == []


def test_a_refusal_makes_everyone_wait(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    until = limiter.refused(30.0)
    with limiter.slot():
        assert clock.slept == [30.0]
    assert clock.now == until
    with limiter.slot():
        assert clock.slept == [30.0], "the pause is over"


def test_who_has_waited_already_does_not_wait_again(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    until = limiter.refused(30.0)
    with limiter.slot(until):
        assert clock.slept == []
    limiter.refused(50.0)
    with limiter.slot(until):
        assert clock.slept == [50.0]


def test_a_hint_is_never_shortened_by_a_later_one(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    limiter.refused(30.0)
    limiter.refused(10.0)
    limiter.refused(None)
    limiter.refused(0.0)
    with limiter.slot():
        assert clock.slept == [30.0]


@pytest.mark.parametrize("useless", [None, 0.0])
def test_without_a_hint_the_pause_grows_and_is_never_nothing(
    useless: float | None, policy: RetryPolicy, clock: Clock
) -> None:
    limiter = RateLimiter(policy)
    for ceiling in (8.0, 16.0, 30.0, 30.0):
        pause = limiter.refused(useless) - clock.now
        assert ceiling / 2 <= pause <= ceiling
        clock.now += pause


def test_a_wait_that_nobody_would_sit_out_pauses_nobody(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    limiter.refused(3600.0)
    limiter.refused(float("inf"))
    with limiter.slot():
        assert clock.slept == []


def test_a_pause_ends_with_the_deadline(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    limiter.refused(90.0)
    with (
        enforcing(Deadline(clock.now + 5, clock=clock.time)),
        pytest.raises(TimeoutError),
        limiter.slot(),
    ):
        pytest.fail("nobody may ask")
    assert clock.slept == [5.0]


def test_a_pause_ends_with_a_stop(policy: RetryPolicy) -> None:
    limiter = RateLimiter(policy)
    limiter.refused(90.0)
    stop = threading.Event()
    stop.set()
    with enforcing(Deadline(stop=stop)), pytest.raises(Cancelled), limiter.slot():
        pytest.fail("nobody may ask")


def test_a_refusal_leaves_a_quarter_of_the_places_and_answers_let_them_grow(
    policy: RetryPolicy, clock: Clock
) -> None:
    limiter = RateLimiter(policy)
    places = [limiter.slot() for _ in range(8)]
    for place in places:
        place.__enter__()
    until = limiter.refused(1.0)
    for place in places:
        place.__exit__(None, None, None)
    clock.now = until
    assert how_many_may_ask(limiter, clock) == 2
    for _ in range(2 * 16):
        limiter.served()
    assert how_many_may_ask(limiter, clock) == 3


def how_many_may_ask(limiter: RateLimiter, clock: Clock) -> int:
    """Enter until it would have to wait; a deadline that has passed ends the wait."""
    inside: list[object] = []
    places = []
    while True:
        place = limiter.slot()
        late = Deadline(clock.now, clock=clock.time)
        try:
            with enforcing(late):
                place.__enter__()
        except TimeoutError:
            for entered in places:
                entered.__exit__(None, None, None)
            return len(inside)
        places.append(place)
        inside.append(place)


def test_a_place_is_given_back_when_a_request_fails(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    clock.now = limiter.refused(1.0)
    for _ in range(3):
        with pytest.raises(OSError, match="broken"), limiter.slot():
            raise OSError("broken")
    assert how_many_may_ask(limiter, clock) == 1


def test_threads_that_wait_for_a_place_get_it(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    clock.now = limiter.refused(1.0)
    most, inside = 0, 0
    lock = threading.Lock()

    def ask() -> None:
        nonlocal most, inside
        with limiter.slot():
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.001)
            with lock:
                inside -= 1
        limiter.served()

    run_all([ask] * 6)
    assert most == 1


def test_who_waits_for_a_place_is_not_overtaken(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    clock.now = limiter.refused(1.0)
    order = []

    def ask() -> None:
        with limiter.slot():
            order.append("who waited")

    asker = threading.Thread(target=ask)
    with limiter.slot():
        asker.start()
        while not limiter._waiting:
            asker.join(0.001)
    with limiter.slot():
        order.append("who came back")
    asker.join(5)
    assert order == ["who waited", "who came back"]


def test_nobody_waits_behind_one_who_has_given_up(policy: RetryPolicy, clock: Clock) -> None:
    limiter = RateLimiter(policy)
    clock.now = limiter.refused(1.0)
    late = Deadline(clock.now, clock=clock.time)
    with limiter.slot(), enforcing(late), pytest.raises(TimeoutError), limiter.slot():
        pytest.fail("there is one place")
    with enforcing(late), limiter.slot():
        pass


def run_all(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_after_a_storm_requests_keep_the_distance_that_the_server_bears(clock: Clock) -> None:
    limiter = RateLimiter(RetryPolicy(clock=clock.time, sleep=clock.sleep))
    limiter.refused(1.0)
    for _ in range(4):
        with limiter.slot():
            limiter.served()
    # Four in a round of one second, the pause at its end: a quarter of a second for each.
    paused_until = limiter.refused(1.0)
    clock.slept.clear()
    with limiter.slot(paused_until):
        limiter.served()
    with limiter.slot():
        limiter.served()
    assert clock.slept == [pytest.approx(1.0), pytest.approx(0.25)]


@pytest.mark.parametrize("was_refused_before", [False, True])
def test_time_in_which_nobody_asks_makes_no_distance_longer(
    was_refused_before: bool, clock: Clock
) -> None:
    limiter = RateLimiter(RetryPolicy(clock=clock.time, sleep=clock.sleep))
    if was_refused_before:
        clock.now = limiter.refused(1.0)
    with limiter.slot():
        limiter.served()
    clock.now += 600
    if not was_refused_before:
        clock.now = limiter.refused(1.0)
    for _ in range(4 - was_refused_before):
        with limiter.slot():
            limiter.served()
    clock.now = limiter.refused(1.0)
    clock.slept.clear()
    # Four in a second.
    for _ in range(2):
        with limiter.slot():
            pass
    assert clock.slept == [pytest.approx(0.25)]


def test_turns_that_nobody_took_put_off_no_others(clock: Clock) -> None:
    limiter = RateLimiter(RetryPolicy(clock=clock.time, sleep=clock.sleep))
    clock.now = limiter.refused(1.0)
    for _ in range(4):
        with limiter.slot():
            limiter.served()
    clock.now = limiter.refused(1.0)
    with limiter.slot():
        pass
    for _ in range(100):
        hurried = Deadline(clock.now + 0.001, clock=clock.time)
        with enforcing(hurried), pytest.raises(TimeoutError), limiter.slot():
            pytest.fail("its turn is later")
    clock.slept.clear()
    with limiter.slot():
        pass
    assert clock.slept == [pytest.approx(0.15)]


def test_a_round_in_which_little_was_served_goes_on_after_the_storm(clock: Clock) -> None:
    limiter = RateLimiter(RetryPolicy(clock=clock.time, sleep=clock.sleep))
    limiter.refused(1.0)
    # Eight in two rounds of a second, then: the rest of the pause, and a quarter of a second.
    for served, slept in ((2, 0.0), (6, 1.25)):
        for _ in range(served):
            with limiter.slot():
                limiter.served()
        paused_until = limiter.refused(1.0)
        clock.slept.clear()
        for _ in range(2):
            with limiter.slot(paused_until):
                pass
        assert sum(clock.slept) == pytest.approx(slept)


def test_the_distance_shrinks_with_every_answer_until_there_is_none(clock: Clock) -> None:
    limiter = RateLimiter(RetryPolicy(clock=clock.time, sleep=clock.sleep))
    for _ in range(2):
        limiter.refused(1.0)
        for _ in range(4):
            with limiter.slot():
                limiter.served()
    waits = []
    for _ in range(800):
        clock.slept.clear()
        with limiter.slot():
            limiter.served()
        waits.append(sum(clock.slept))
    assert waits[1] > waits[10] > waits[100]
    assert waits[-1] == 0


# -- a quota that the server announces ------------------------------------------------------------


def test_no_more_requests_are_sent_together_than_the_server_accepts(
    policy: RetryPolicy, clock: Clock
) -> None:
    limiter = RateLimiter(policy)
    limiter.note_quota(Quota(3, 60.0))
    assert how_many_may_ask(limiter, clock) == 3
    limiter.note_quota(Quota(1, 59.0))
    assert how_many_may_ask(limiter, clock) == 1
    assert clock.slept == []


def test_a_response_that_was_overtaken_does_not_raise_the_quota(
    policy: RetryPolicy, clock: Clock
) -> None:
    limiter = RateLimiter(policy)
    for remaining in (5, 2, 4):
        limiter.note_quota(Quota(remaining, 60.0))
    assert how_many_may_ask(limiter, clock) == 2


def test_an_exhausted_quota_is_a_pause_and_then_one_request_tries_the_next(
    policy: RetryPolicy, clock: Clock
) -> None:
    limiter = RateLimiter(policy)
    limiter.note_quota(Quota(1, 60.0))
    limiter.note_quota(Quota(0, 60.0))
    with limiter.slot():
        assert clock.slept == [60.0]
    assert how_many_may_ask(limiter, clock) == 1
    # The last response of the former quota, and the first of the new one.
    limiter.note_quota(Quota(9, 60.0))
    assert how_many_may_ask(limiter, clock) == 9
    limiter.note_quota(Quota(0, 1.0))
    assert how_many_may_ask(limiter, clock) == 9


@pytest.mark.parametrize("reset", [None, 3600.0])
def test_an_exhausted_quota_without_an_end_in_sight_is_no_pause(
    reset: float | None, policy: RetryPolicy, clock: Clock
) -> None:
    limiter = RateLimiter(policy)
    limiter.note_quota(Quota(1, reset))
    limiter.note_quota(Quota(0, reset))
    assert how_many_may_ask(limiter, clock) == 1
    assert clock.slept == []


def test_a_server_that_always_announces_nothing_is_not_believed(
    policy: RetryPolicy, clock: Clock
) -> None:
    limiter = RateLimiter(policy)
    for _ in range(3):
        limiter.note_quota(Quota(0, 60.0))
    with limiter.slot(), limiter.slot(), limiter.slot():
        assert clock.slept == []


def test_a_wait_ends_when_it_is_cancelled() -> None:
    stop = threading.Event()
    setting = threading.Timer(0.05, stop.set)
    setting.start()
    with pytest.raises(Cancelled):
        Deadline(stop=stop).sleep(3600, pause)
    setting.join()


def test_a_wait_with_the_clock_of_the_caller_is_not_replaced_by_a_real_one() -> None:
    slept: list[float] = []
    Deadline(stop=threading.Event()).sleep(3600, slept.append)
    assert slept == [3600]
