"""The range and the version of partial responses, whatever a server writes there."""

from __future__ import annotations

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from stac_gitlab.download.ranges import ByteRange, ContentVersion


def part(content_range: str, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = 206
    response.headers["Content-Range"] = content_range
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


def starts_at(content_range: str, offset: int, total: int | None) -> bool:
    response = part(content_range)
    found = ByteRange.of(response)
    return (
        found is not None and found.start == offset and ContentVersion(size=total).matches(response)
    )


@given(
    st.text() | st.from_regex(r"bytes \d+-\d+/(\d+|\*)"), st.integers(0), st.none() | st.integers(0)
)
@example("bytes 5-9/10", 5, 10)
@example("bytes \u0665-9/10", 5, 10)
@example("bytes 00000000000000000000000000005-9/10", 5, 10)
def test_any_content_range_is_read_without_a_crash(
    text: str, offset: int, total: int | None
) -> None:
    if starts_at(text, offset, total):
        unit, _, rest = text.strip().partition(" ")
        assert unit.lower() == "bytes"
        assert int(rest.partition("-")[0]) == offset


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_part_fits_where_start_and_length_do(first: int, more: int, wrong: int) -> None:
    last, total = first + more, first + more + 1
    assert starts_at(f"bytes {first}-{last}/{total}", first, total)
    assert starts_at(f"Bytes {first}-{last}/*", first, total)
    assert starts_at(f"bytes {first}-{last}/{total}", first, None)
    if wrong != first:
        assert not starts_at(f"bytes {first}-{last}/{total}", wrong, total)
    if wrong != total:
        assert not starts_at(f"bytes {first}-{last}/{total}", first, wrong)


@pytest.mark.parametrize(
    "response",
    [
        part("bytes 5-4/10"),
        part("bytes 0-9/10", Content_Length="9"),
        part("bytes 0-9/10", Content_Length="10", Content_Encoding="gzip"),
        part("bytes */10"),
        part(""),
    ],
    ids=["backwards", "of another length", "encoded", "unsatisfied", "unsaid"],
)
def test_what_is_no_plain_part_is_none(response: requests.Response) -> None:
    assert ByteRange.of(response) is None


def test_a_whole_answer_is_no_part() -> None:
    response = part("bytes 0-9/10")
    response.status_code = 200
    assert ByteRange.of(response) is None


FRIDAY, SATURDAY = "Fri, 20 Nov 2026 11:51:58 GMT", "Sat, 21 Nov 2026 11:51:58 GMT"
ONE = {"ETag": '"one"'}
WEAK = {"ETag": 'W/"one"'}


@pytest.mark.parametrize(
    ("whole", "partial", "matches"),
    [
        (ONE, ONE, True),
        (ONE, {"ETag": '"two"'}, False),
        (ONE, {}, False),
        (ONE, {"Last-Modified": FRIDAY}, False),
        ({**ONE, "Last-Modified": FRIDAY}, ONE, True),
        ({**ONE, "Last-Modified": FRIDAY}, {**ONE, "Last-Modified": SATURDAY}, True),
        ({"Last-Modified": FRIDAY}, {"Last-Modified": FRIDAY}, True),
        ({"Last-Modified": FRIDAY}, {"Last-Modified": SATURDAY}, False),
        ({"Last-Modified": FRIDAY}, {}, False),
        ({**WEAK, "Last-Modified": FRIDAY}, {**WEAK, "Last-Modified": FRIDAY}, True),
        ({**WEAK, "Last-Modified": FRIDAY}, WEAK, False),
        ({**WEAK, "Last-Modified": FRIDAY}, {"Last-Modified": FRIDAY}, False),
        (WEAK, WEAK, True),
        ({}, {"ETag": '"two"'}, True),
    ],
)
def test_a_part_has_to_repeat_the_validators_of_the_whole(
    whole: dict[str, str], partial: dict[str, str], matches: bool
) -> None:
    version = ContentVersion.of(part("", **whole), size=10)
    assert version.matches(part("bytes 0-9/10", **partial)) is matches


@pytest.mark.parametrize(
    ("headers", "conditions"),
    [
        (ONE, {"If-Range": '"one"'}),
        ({**ONE, "Last-Modified": FRIDAY}, {"If-Range": '"one"'}),
        ({"Last-Modified": FRIDAY}, {"If-Range": FRIDAY}),
        ({**WEAK, "Last-Modified": FRIDAY}, {"If-Unmodified-Since": FRIDAY}),
        ({**ONE, "Content-Encoding": "gzip"}, None),
        (WEAK, None),
        ({"Last-Modified": FRIDAY, "Date": FRIDAY}, None),
        ({}, None),
    ],
)
def test_a_part_is_requested_on_the_condition_that_its_validators_allow(
    headers: dict[str, str], conditions: dict[str, str] | None
) -> None:
    version = ContentVersion.of(part("", **headers), size=10)
    assert version.has_strong_validator is (conditions is not None)
    if conditions is not None:
        assert version.range_conditions() == conditions
