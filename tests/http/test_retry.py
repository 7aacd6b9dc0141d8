"""How long to wait, as the policy, the server and the other threads have it."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable

import pytest
from requests.structures import CaseInsensitiveDict

from stac_gitlab.errors import ConfigurationError
from stac_gitlab.http.deadline import Cancelled, Deadline, enforcing
from stac_gitlab.http.retry import RateLimiter, retry_after
from stac_gitlab.settings import RetryPolicy
from tests.conftest import Clock

# A moment that the response's Date names, and the local clock an hour off.
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
EPOCH = 1_700_000_000
LOCAL = EPOCH + 3600.0


def hint(status: int = 429, **headers: str) -> float | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return retry_after(CaseInsensitiveDict(named), rate_limited=status == 429, now=LOCAL)


# -- what a server says about waiting -----------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "7"}, 7.0),
        ({"retry_after": " 7 "}, 7.0),
        ({"Retry_After": "0.25"}, 0.25),
        ({"Retry_After": "0"}, 0.0),
        ({"Retry_After": "Tue, 14 Nov 2023 22:13:50 GMT", "Date": DATE}, 30.0),
        ({"Retry_After": "Tue, 14 Nov 2023 23:13:50 GMT"}, 30.0),
        ({"Retry_After": "Tuesday, 14-Nov-23 22:13:50 GMT", "Date": DATE}, 30.0),
        ({"Retry_After": "Tue, 14 Nov 2023 23:13:50 +0100", "Date": DATE}, 30.0),
        ({"Retry_After": "Tue, 14 Nov 2023 22:00:00 GMT", "Date": DATE}, 0.0),
        ({"RateLimit_Reset": str(EPOCH + 42), "Date": DATE}, 42.0),
        ({"RateLimit_Reset": str(EPOCH + 3642)}, 42.0),
        ({"RateLimit_Reset": str(EPOCH - 42), "Date": DATE}, 0.0),
        ({"RateLimit_Reset": "42", "Date": DATE}, 42.0),
        ({"X_RateLimit_Reset": str(EPOCH + 42), "Date": DATE}, 42.0),
        ({"X_RateLimit_Reset": "42"}, 42.0),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api"; r=0; t=55'}, 55.0),
        ({"RateLimit": '"api";t=55;r=0'}, 55.0),
        ({"RateLimit": '"api";t=55'}, 55.0),
        ({"RateLimit": '"minute";r=0;t=5, "day";r=0;t=60'}, 60.0),
        ({"RateLimit": '"minute";r=0;t=5, "day";r=99;t=6000'}, 5.0),
        ({"RateLimit": "limit=10, remaining=0, reset=55"}, 55.0),
        ({"RateLimit_ResetTime": "Tue, 14 Nov 2023 22:14:20 GMT", "Date": DATE}, 60.0),
        ({"x_amz_retry_after": "1500"}, 1.5),
        # The more explicit word wins, and what cannot be read leaves the word to the next.
        ({"Retry_After": "7", "RateLimit_Reset": "42"}, 7.0),
        ({"Retry_After": "soon", "RateLimit_Reset": "42"}, 42.0),
        ({"Retry_After": "-7", "x_amz_retry_after": "1500"}, 1.5),
        ({"RateLimit": '"api";r=5;t=55', "RateLimit_Reset": "42"}, 42.0),
        ({"RateLimit": "what?", "X_RateLimit_Reset": "42"}, 42.0),
        # A Date that cannot be read leaves the local clock.
        ({"RateLimit_Reset": str(EPOCH + 3642), "Date": "yesterday"}, 42.0),
    ],
)
def test_a_server_says_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert hint(**headers) == seconds


NONSENSE = [
    "",
    " ",
    "soon",
    "-1",
    "+1",
    "-1.5",
    "1e3",
    "1_000",
    "0x10",
    "nan",
    "inf",
    "-inf",
    "Infinity",
    "١٢",
    "²",
    "\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}",
    "12, 12",
    "12 s",
    "1:30",
    "Mon, 99 Foo 2023 99:99:99 GMT",
    "Mon, 01 Jan 99999999999 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "\x00",
    "\N{SNOWMAN}",
    "=",
    ";;;,,,",
    "null",
    "[]",
]


@pytest.mark.parametrize("value", NONSENSE)
@pytest.mark.parametrize(
    "name",
    [
        "Retry_After",
        "RateLimit_Reset",
        "X_RateLimit_Reset",
        "RateLimit_ResetTime",
        "RateLimit",
        "x_amz_retry_after",
    ],
)
def test_nonsense_counts_as_absent(name: str, value: str) -> None:
    # Dates at the ends of time are dates: on some systems they cannot be told from nonsense.
    assert hint(**{name: value}) in (None, 0.0) or "9999" in value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Retry_After", "9" * 30),
        ("Retry_After", "9" * 5000),
        ("RateLimit_Reset", "9" * 5000),
        ("X_RateLimit_Reset", "1" + "0" * 400),
        ("RateLimit", '"api";r=0;t=' + "9" * 5000),
        ("RateLimit", '"api";r=' + "0" * 5000 + ";t=99999999"),
        ("x_amz_retry_after", "9" * 5000),
        ("RateLimit_Reset", str(EPOCH * 1000)),
    ],
)
def test_an_absurdly_long_wait_is_handed_on_to_be_refused(name: str, value: str) -> None:
    seconds = hint(**{name: value})
    assert seconds is not None
    assert seconds > 10**7


def test_only_a_429_listens_to_the_headers_that_every_answer_has() -> None:
    every_answer = {
        "RateLimit_Reset": "42",
        "X_RateLimit_Reset": "42",
        "RateLimit": '"api";r=0;t=42',
        "RateLimit_ResetTime": DATE,
    }
    assert hint(503, **every_answer) is None
    assert hint(503, **every_answer, Retry_After="7") == 7.0
    assert hint(503, **every_answer, x_amz_retry_after="7000") == 7.0


def test_without_any_date_the_local_clock_counts() -> None:
    at = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 50))
    seconds = retry_after({"Retry-After": at}, rate_limited=True)
    assert seconds is not None
    assert 40 < seconds < 60


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
