"""What a part of a file says about itself, whatever a server writes there."""

from __future__ import annotations

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from stac_gitlab.download.ranges import Version, span_of, total_of


def part(content_range: str, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = 206
    response.headers["Content-Range"] = content_range
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


def starts_at(content_range: str, offset: int, total: int | None) -> bool:
    span, whole = span_of(part(content_range)), total_of(part(content_range))
    return span is not None and span.start == offset and (None in (total, whole) or total == whole)


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
    assert span_of(response) is None


def test_a_whole_answer_is_no_part() -> None:
    response = part("bytes 0-9/10")
    response.status_code = 200
    assert span_of(response) is None


@pytest.mark.parametrize(
    ("validator", "headers", "same"),
    [
        ('"one"', {"ETag": '"one"'}, True),
        ('"one"', {"ETag": '"two"'}, False),
        ('"one"', {}, True),
        (
            "Fri, 20 Nov 2026 11:51:58 GMT",
            {"Last_Modified": "Sat, 21 Nov 2026 11:51:58 GMT"},
            False,
        ),
        ("Fri, 20 Nov 2026 11:51:58 GMT", {"ETag": '"two"'}, True),
        (None, {"ETag": '"two"'}, True),
    ],
)
def test_another_name_is_another_version(
    validator: str | None, headers: dict[str, str], same: bool
) -> None:
    assert Version(validator).is_that_of(part("bytes 0-9/10", **headers)) is same
