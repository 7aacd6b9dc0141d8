"""What a server says about waiting, and about the requests that are left."""

from __future__ import annotations

import time

import pytest
from requests.structures import CaseInsensitiveDict

from stac_gitlab.http.rate_headers import Quota, quota_of, retry_after

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


def test_the_local_clock_counts_where_it_agrees_with_the_date_of_the_server() -> None:
    headers = {"Date": DATE, "RateLimit-Reset": str(EPOCH + 2)}
    assert retry_after(headers, rate_limited=True, now=EPOCH + 0.75) == 1.25
    assert retry_after(headers, rate_limited=True, now=EPOCH + 1.5) == 2
    assert retry_after(headers, rate_limited=True, now=EPOCH - 0.5) == 2


# -- what is left -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "quota"),
    [
        ({}, None),
        ({"RateLimit-Limit": "20"}, None),
        ({"RateLimit-Remaining": "7"}, Quota(7, None)),
        ({"RateLimit-Remaining": "7", "RateLimit-Reset": "30"}, Quota(7, 30)),
        ({"RateLimit-Remaining": "7", "RateLimit-Reset": str(EPOCH + 30)}, Quota(7, 30)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(EPOCH + 30)}, Quota(0, 30)),
        ({"RateLimit": '"api";r=7;t=30'}, Quota(7, 30)),
        ({"RateLimit": '"api";r=7'}, Quota(7, None)),
        ({"RateLimit": '"hour";r=900;t=1800, "second";r=2;t=1'}, Quota(2, 1)),
        ({"RateLimit": "limit=10, remaining=7, reset=30"}, Quota(7, 30)),
        ({"RateLimit-Remaining": "many"}, None),
        ({"RateLimit-Remaining": "-1"}, None),
        ({"RateLimit-Remaining": "9" * 400}, Quota(10**9, None)),
        ({"RateLimit": "soon"}, None),
    ],
)
def test_a_server_says_how_many_requests_are_left(
    headers: dict[str, str], quota: Quota | None
) -> None:
    named = CaseInsensitiveDict({**headers, "Date": DATE})
    assert quota_of(named, now=LOCAL) == quota
