"""The head of an answer is taken apart in one way only, and bounded."""

from __future__ import annotations

import contextlib
import http.client
import io
import time

import pytest

from stac_gitlab.http.head import MAX_HEAD, Headers, Message, ResponseHead, is_chunked, length_in


def head_of(*lines: bytes) -> ResponseHead:
    return ResponseHead.read_from(io.BytesIO(b"\r\n".join([*lines, b"", b"body"])))


def test_a_head_ends_where_the_body_begins() -> None:
    stream = io.BytesIO(b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\nbody: no header\r\n\r\n")
    head = ResponseHead.read_from(stream)
    assert (head.version, head.status, head.reason) == (11, 200, "OK")
    assert head.fields == [("A", "1")]
    assert stream.read(4) == b"body"


@pytest.mark.parametrize(
    ("line", "version", "status", "reason"),
    [
        (b"HTTP/1.0 404 Not Found", 10, 404, "Not Found"),
        (b"HTTP/0.9 200 OK", 10, 200, "OK"),
        (b"HTTP/1.1 200", 11, 200, ""),
        (b"HTTP/1.1 200 ", 11, 200, ""),
        (b"HTTP/1.1  200   Very well ", 11, 200, "Very well"),
        (b"HTTP/1.2 999 \xe9t\xe9", 11, 999, "été"),
    ],
)
def test_a_status_line_is_read_as_servers_write_it(
    line: bytes, version: int, status: int, reason: str
) -> None:
    head = head_of(line)
    assert (head.version, head.status, head.reason) == (version, status, reason)


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"<html>", b"ICY 200 OK", b"http/1.1 200 OK", b"HTTP/2 200 OK", b"HTTP/2.0 200 OK"),
        *(b"HTTP/1.1 20 OK", b"HTTP/1.1 2000", b"HTTP/1.1 +20 OK", b"HTTP/1.1 099 OK"),
        b"HTTP/1.1200 OK",
    ],
)
def test_what_does_not_begin_as_http_does_is_an_error(line: bytes) -> None:
    with pytest.raises(http.client.BadStatusLine):
        head_of(line)


def test_headers_keep_their_order_their_case_and_their_repetitions() -> None:
    head = head_of(b"HTTP/1.1 200 OK", b"b: 1", b"A:2", b"B: \t3\t ", b"Empty:", b"Caf: \xe9:\x00")
    assert head.fields == [
        ("b", "1"),
        ("A", "2"),
        ("B", "3"),
        ("Empty", ""),
        ("Caf", "é:\x00"),
    ]
    assert Message(head.fields)["B"] == "1"


def test_bare_line_feeds_end_lines_too() -> None:
    head = ResponseHead.read_from(io.BytesIO(b"HTTP/1.1 200 OK\nA: 1\n\nbody"))
    assert (head.reason, head.fields) == ("OK", [("A", "1")])


def test_a_header_may_go_on_in_the_next_line() -> None:
    head = head_of(b"HTTP/1.1 200 OK", b"A: 1,", b"  2", b"\t3", b"B: 4")
    assert head.fields == [("A", "1, 2 3"), ("B", "4")]


@pytest.mark.parametrize(
    "line",
    [b"no header", b"Content-Length : 5", b": 5", b"A\x00: 5", b"A: 1\rB: 2", b"\xc3\x84: 5"],
)
@pytest.mark.parametrize("place", [1, 2])
def test_a_garbled_header_is_an_error_and_hides_no_other(line: bytes, place: int) -> None:
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: 4"]
    lines.insert(place, line)
    with pytest.raises(http.client.HTTPException, match="malformed"):
        head_of(*lines)


def test_a_head_cannot_begin_with_the_rest_of_a_header() -> None:
    with pytest.raises(http.client.HTTPException, match="malformed"):
        head_of(b"HTTP/1.1 200 OK", b" Content-Length: 4")


@pytest.mark.parametrize("cut", [0, 5, 17, 20, 24])
def test_a_head_that_breaks_off_is_no_head(cut: int) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        ResponseHead.read_from(io.BytesIO(b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"[:cut]))


@pytest.mark.parametrize("line", [b"A: " + b"x" * MAX_HEAD, b"A: 1\r\n" * (MAX_HEAD // 6)])
def test_a_head_is_bounded(line: bytes) -> None:
    with pytest.raises(http.client.HTTPException, match=f"more than {MAX_HEAD} bytes of headers"):
        head_of(b"HTTP/1.1 200 OK", line)


@pytest.mark.parametrize(
    ("lines", "is_garbled"),
    [
        ((b"A: 1" + b" " * (MAX_HEAD // 2) + b"2",), False),
        ((b"A: 1" + b" " * (MAX_HEAD // 2) + b"2", b" 3"), False),
        ((b"A:" + b"\t" * (MAX_HEAD // 2) + b"\r2",), True),
        ((b"A" * (MAX_HEAD // 2),), True),
        ((b"A: 1", *[b" "] * (MAX_HEAD // 4)), False),
    ],
)
def test_no_head_takes_long(lines: tuple[bytes, ...], is_garbled: bool) -> None:
    garbled = pytest.raises(http.client.HTTPException, match="malformed")
    began = time.process_time()
    with garbled if is_garbled else contextlib.nullcontext():
        head_of(b"HTTP/1.1 200 OK", *lines)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_heads_are_passed_over(status: bytes) -> None:
    interim = b"HTTP/1.1 " + status + b"\r\nLink: </style.css>\r\n\r\n"
    head = ResponseHead.read_from(io.BytesIO(interim * 3 + b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"))
    assert (head.status, head.fields) == (200, [("A", "1")])


@pytest.mark.parametrize(("status", "times"), [(b"100", 1000), (b"103", 1000), (b"101", 1)])
def test_interim_heads_are_no_answer(status: bytes, times: int) -> None:
    stream = io.BytesIO((b"HTTP/1.1 " + status + b" Wait\r\n\r\n") * times)
    with pytest.raises(
        http.client.HTTPException, match=f"{status.decode()} in place of a final response"
    ):
        ResponseHead.read_from(stream)


@pytest.mark.parametrize(
    ("value", "length"),
    [
        *((b"0", 0), (b"5", 5), (b"005", 5), (b"", None), (b"+5", None), (b"-5", None)),
        *((b"5_0", None), (b"\xb2", None), (b"\t5 ", 5)),
        *((b"9" * 18, 10**18 - 1), (b"9" * 19, None), (b"9" * 5000, None)),
        *((b"5, 5,5", 5), (b"5, 6", None), (b"5,", None), (b"5,\x0b5", None)),
        *((b"5\r\nContent-Length: 5", 5), (b"5\r\nContent-Length: 6", None)),
    ],
)
def test_only_digits_are_a_length(value: bytes, length: int | None) -> None:
    head = head_of(b"HTTP/1.1 200 OK", b"content-LENGTH: " + value)

    assert length_in(Headers(head.fields)) == length


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((b"chunked", True), (b"Chunked", True), (b"\tchunked ", True)),
        *((b"gzip, chunked", False), (b"\x0bchunked", False), (b"\xa0chunked", False)),
        (b"chunked\r\nTransfer-Encoding: gzip", False),
    ],
)
def test_a_body_in_chunks_is_known(value: bytes, expected: bool) -> None:
    head = head_of(b"HTTP/1.1 200 OK", b"Transfer-Encoding: " + value)

    assert is_chunked(Headers(head.fields)) is expected
