"""What a server's answer means, in words that help and hold no secret."""

from __future__ import annotations

import json
import pickle
import ssl
import time
from typing import Any
from urllib.parse import unquote

import pytest
import requests
import urllib3

from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    HTTPStatusError,
    InvalidRequestError,
    InvalidResponseError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    STACGitLabError,
)
from stac_gitlab.http.responses import (
    error_for_failure,
    error_for_page,
    error_for_status,
    is_html,
    redacted_cause,
    without_traceback,
)
from stac_gitlab.redaction import redact_response, remember_secrets

URL = "https://hub.example.org/api/stac?gitlab_token=canary"


@pytest.fixture(autouse=True)
def known_secrets(no_known_secrets: None) -> None:
    remember_secrets(["canary", "glpat-secret-token"])


SHOWN = "https://hub.example.org/api/stac?gitlab_token=***"


def response(
    status: int = 200, body: bytes | str | Any = b"", headers: dict[str, str] | None = None
) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.reason = requests.status_codes._codes.get(status, ("",))[0]
    made.url = URL
    made.headers.update(headers or {})
    if not isinstance(body, bytes | str):
        body = json.dumps(body)
    made._content = body.encode() if isinstance(body, str) else body
    made.request = requests.Request(
        "GET", URL, headers={"X-Gitlab-Token": "canary", "X-Own": "has a canary", "Accept": "*"}
    ).prepare()
    return made


# -- statuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "cls", "means"),
    [
        (400, InvalidRequestError, "rejects this"),
        (401, AuthenticationError, "Check the token"),
        (403, PermissionDeniedError, "does not allow"),
        (404, NotFoundError, "token has no access"),
        (405, HTTPStatusError, "does not offer"),
        (410, NotFoundError, "removed permanently"),
        (418, HTTPStatusError, "rejects this"),
        (422, InvalidRequestError, "one of the values"),
        (429, RateLimitError, "Too many requests"),
        (500, ServerError, "failed"),
        (599, ServerError, "failed"),
        (300, HTTPStatusError, "without a target"),
        (304, HTTPStatusError, "no condition"),
    ],
)
def test_a_status_is_an_error_that_says_what_was_asked_and_what_it_means(
    status: int, cls: type[HTTPStatusError], means: str
) -> None:
    error = error_for_status(response(status))
    assert type(error) is cls
    assert str(error).startswith(f"GET {SHOWN}: {status}")
    assert means in str(error)
    assert (error.status_code, error.url, error.retry_after) == (status, SHOWN, None)


def test_advice_takes_the_place_of_the_usual_meaning() -> None:
    message = str(error_for_status(response(404), advice="Ask the librarian."))
    assert message.endswith("Ask the librarian.")
    assert "no access" not in message


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "wait 0 s"), (59.7, "wait 60 s"), (float("inf"), "wait inf s")],
)
def test_a_wait_is_named(seconds: float, said: str) -> None:
    error = error_for_status(response(429), retry_after=seconds)
    assert error.retry_after == seconds
    assert said in str(error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "Collection not found"}, "Collection not found"),
        ({"message": "404 Project Not Found"}, "404 Project Not Found"),
        ({"message": {"base": "x"}, "error": "insufficient_scope"}, "insufficient_scope"),
        (
            {"error": "invalid_token", "error_description": "Token was revoked."},
            "Token was revoked.",
        ),
        ({"code": "NotFound", "description": "No such item"}, "No such item"),
        ({"title": "Bad", "detail": {"error": "deep"}}, "deep"),
        (
            {"detail": [{"loc": ["query", "limit"], "msg": "too large", "type": "x"}]},
            "query.limit: too large",
        ),
        ({"detail": {"errors": [{"message": "Invalid token"}]}}, None),
        (["one", "two"], "one; two"),
        ("plain text", "plain text"),
        ("Retry later\n", "Retry later"),
        ("[" * 100_000, "[[["),
        ({"unknown": 1}, '{"unknown": 1}'),
    ],
)
def test_what_the_server_says_is_part_of_the_message(body: Any, said: str | None) -> None:
    message = str(error_for_status(response(400, body)))
    assert said is None or f"(the server says: {said}" in message
    assert len(message) < 700
    assert "\n" not in message


@pytest.mark.parametrize("body", [b"", b"<!DOCTYPE html><html>an error page</html>"])
def test_what_says_nothing_is_left_out(body: bytes) -> None:
    assert "the server says" not in str(error_for_status(response(502, body)))


def test_no_escape_sequence_of_a_server_reaches_the_terminal() -> None:
    message = str(error_for_status(response(400, "\x1b[31mred\x1b[0m \x07bell \u202eevil")))
    assert message.isprintable()
    assert "red" in message


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"\x80" * 1000, b'{"detail": "\xff"}'])
def test_a_body_that_is_no_text_does_no_harm(body: bytes) -> None:
    assert isinstance(error_for_status(response(500, body)), ServerError)


# -- pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [
        b'<html><form action="/users/sign_in"></form></html>',
        b"<html><title>Log in</title></html>",
        b'<html><input type="password"></html>',
    ],
)
def test_a_sign_in_page_is_an_authentication_error(page: bytes) -> None:
    error = error_for_page(response(200, page), page, wanted="a document")
    assert isinstance(error, AuthenticationError)
    assert "sign-in page came in place of a document" in str(error)
    assert error.status_code == 200


def test_any_other_page_is_an_invalid_response() -> None:
    error = error_for_page(response(), b"<html>Welcome</html>", wanted="a document")
    assert isinstance(error, InvalidResponseError)
    assert not error.truncated
    assert "HTML page came in place of a document" in str(error)


@pytest.mark.parametrize(
    ("body", "kind", "html"),
    [
        (b"<!DOCTYPE html><html>", "application/json", True),
        (b"\xef\xbb\xbf\n <!doctype HTML>", "", True),
        (b"<!-- a\ncomment --> <html lang=de>", "", True),
        (b"<head>", "text/html; charset=utf-8", True),
        (b'{"a": 1}', "text/html", False),
        (b"<?xml version='1.0'?><x/>", "application/xml", False),
        (b"", "text/html", False),
        (b"<svg>", "image/svg+xml", False),
    ],
)
def test_a_page_is_known_by_what_it_says(body: bytes, kind: str, html: bool) -> None:
    assert is_html(response(headers={"Content-Type": kind}), body) is html


def test_a_page_made_to_slow_the_look_at_it_down_does_not() -> None:
    began = time.process_time()
    for body in (b"<!---->" * 146, b"<!--" * 256, b" " * 1024, b"<!-- -->\n" * 100):
        assert not is_html(response(), body)
    assert time.process_time() - began < 10


# -- failures -----------------------------------------------------------------------------------


def wrapped(reason: Exception, outer: type[Exception] = requests.ConnectionError) -> Exception:
    """Wrap a failure as urllib3 and requests do."""
    pool: Any = "HTTPSConnectionPool(host='hub.example.org', port=443)"
    return outer(urllib3.exceptions.MaxRetryError(pool, "/api/stac?gitlab_token=canary", reason))


EOF = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")

FAILURES: list[tuple[Exception, type[STACGitLabError], str]] = [
    (wrapped(OSError(111, "Connection refused")), NetworkError, "Connection refused"),
    (wrapped(OSError("canary is down")), NetworkError, r"\*\*\* is down"),
    (
        wrapped(urllib3.exceptions.SSLError(UNTRUSTED), requests.exceptions.SSLError),
        NetworkError,
        "no secure connection.*REQUESTS_CA_BUNDLE",
    ),
    (
        wrapped(urllib3.exceptions.SSLError(EOF), requests.exceptions.SSLError),
        NetworkError,
        "no connection .*EOF occurred",
    ),
    (
        wrapped(
            urllib3.exceptions.ProxyError("Cannot connect to proxy.", OSError("refused")),
            requests.exceptions.ProxyError,
        ),
        NetworkError,
        "through the proxy.*HTTP_PROXY",
    ),
    (requests.ConnectTimeout("slow"), RequestTimeoutError, "slow or unreachable"),
    (requests.ReadTimeout("slow"), RequestTimeoutError, "raise timeout="),
    (TimeoutError("the deadline of the whole request has passed"), RequestTimeoutError, "deadline"),
    (
        urllib3.exceptions.ReadTimeoutError(None, None, "Read timed out."),  # type: ignore[arg-type]
        RequestTimeoutError,
        "Read timed out",
    ),
    (requests.TooManyRedirects("Exceeded 10 redirects."), InvalidResponseError, "circle"),
    (requests.exceptions.InvalidSchema("file:"), InvalidResponseError, "is not valid"),
    (requests.exceptions.ChunkedEncodingError("cut"), InvalidResponseError, "cut short"),
    (urllib3.exceptions.IncompleteRead(3, 5), InvalidResponseError, "cut short"),
    (urllib3.exceptions.DecodeError("bad gzip"), InvalidResponseError, "malformed .bad gzip"),
    (
        urllib3.exceptions.ProtocolError("Connection broken", ConnectionResetError(104, "reset")),
        InvalidResponseError,
        "reset",
    ),
    (ConnectionResetError(), NetworkError, "ConnectionResetError"),
    (OSError("Could not find a suitable TLS CA bundle: x"), ConfigurationError, "CA bundle: x"),
    (OSError(113, "No route to host"), NetworkError, "No route"),
]


@pytest.mark.parametrize(("failure", "cls", "said"), FAILURES)
def test_a_failure_is_an_error_with_its_reason(
    failure: Exception, cls: type[STACGitLabError], said: str
) -> None:
    error = error_for_failure(failure, method="GET", url=URL)
    assert type(error) is cls
    assert str(error).startswith(f"GET {SHOWN}: ")
    with pytest.raises(cls, match=said):
        raise error
    assert "0x" not in str(error)


@pytest.mark.parametrize("failure", [failure for failure, *_ in FAILURES])
def test_what_is_kept_of_a_failure_holds_no_secret(failure: Exception) -> None:
    failure.request = failure.canary = "canary"  # type: ignore[attr-defined]
    try:
        raise failure
    except type(failure) as caught:
        kept = redacted_cause(caught)
    assert isinstance(kept, requests.RequestException)
    assert "canary" not in f"{kept} {kept!r} {vars(kept)}"
    assert kept.__traceback__ is kept.__cause__ is kept.__context__ is None
    pickle.dumps(kept)


def test_the_kind_of_a_failure_is_kept() -> None:
    kinds = {
        type(redacted_cause(wrapped(OSError("refused")))): requests.ConnectionError,
        type(redacted_cause(requests.ReadTimeout("slow"))): requests.ReadTimeout,
        type(redacted_cause(FAILURES[2][0])): requests.exceptions.SSLError,
        type(redacted_cause(FAILURES[3][0])): requests.ConnectionError,
        type(redacted_cause(TimeoutError("late"))): requests.ConnectionError,
    }
    assert list(kinds) == list(dict.fromkeys(kinds.values()))


def test_a_failure_class_made_elsewhere_is_known_by_its_family() -> None:
    class OwnError(requests.exceptions.ReadTimeout):
        def __init__(self, request: object, *, needed: int) -> None:
            super().__init__(f"{request} {needed}")

    assert type(redacted_cause(OwnError("x", needed=1))) is requests.exceptions.ReadTimeout


def test_an_error_forgets_the_frames_it_came_through() -> None:
    body = "canary"
    try:
        try:
            int(body)
        except ValueError:
            raise InvalidResponseError("not a number") from None
    except InvalidResponseError as error:
        plain = without_traceback(error)
    assert plain.__traceback__ is plain.__context__ is None


# -- copies that can be shown -------------------------------------------------------------------


def test_a_shown_response_has_everything_but_the_secrets() -> None:
    answer = response(
        400,
        {"detail": "bad", "asked": "canary", "href": "https://h/x?gitlab_token=other"},
        {"Set-Cookie": "session=canary", "X-Echo": "canary", "Content-Type": "application/json"},
    )
    answer.history = [response(302)]
    clean = redact_response(answer)
    assert clean.json() == {"detail": "bad", "asked": "***", "href": "https://h/x?gitlab_token=***"}
    assert dict(clean.headers) == {"X-Echo": "***", "Content-Type": "application/json"}
    assert clean.url == clean.request.url == SHOWN
    assert dict(clean.request.headers) == {"X-Own": "has a ***", "Accept": "*"}
    assert (clean.status_code, clean.reason, clean.history) == (400, answer.reason, [])
    assert b"canary" not in pickle.dumps(clean)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (rb'{"detail": "\u0067lpat\u002dsecret-token"}', "application/json"),
        (rb'{"detail": "' + b"x" * 290 + rb' \u0067lpat\u002dsecret-token"}', "application/json"),
        (b"glpat%2Dsecret-token", "text/plain"),
        (b"+AGc-lpat-secret-token", "text/plain; charset=utf-7"),
        ("glpat-secret-token".encode("utf-16-le"), "text/plain; charset=utf-16-le"),
        (b"glpat\\x2dsecret-token", "text/plain; charset=unicode_escape"),
    ],
)
def test_no_spelling_hides_a_secret_in_a_body(body: bytes, kind: str) -> None:
    answer = response(400, body, {"content-type": kind})
    answer.encoding = requests.utils.get_encoding_from_headers(answer.headers)
    error = error_for_status(answer)
    for text in (str(error), error.response.text, unquote(error.response.text)):
        assert "glpat-s" not in text


def test_the_original_response_is_left_alone() -> None:
    answer = response(400, "canary")
    redact_response(answer)
    assert answer.text == "canary"
    assert answer.request.headers["X-Gitlab-Token"] == "canary"


def test_a_large_body_is_not_kept_whole() -> None:
    clean = redact_response(response(500, b"x" * 10**6))
    assert 0 < len(clean.content) <= 64 * 1024


def test_a_body_is_not_cut_in_the_middle_of_a_secret() -> None:
    remember_secrets(["glpat-cut-in-two"])
    body = b"x" * (64 * 1024 - 10) + b"glpat-cut-in-two"
    assert "glpat" not in redact_response(response(500, body)).text


def test_a_response_that_a_mock_left_half_empty_can_be_shown() -> None:
    bare = requests.Response()
    bare.status_code = 404
    assert isinstance(error_for_status(bare), NotFoundError)
