"""Texts and documents without secrets and without control characters."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
import requests

import stac_gitlab
from stac_gitlab.redaction import (
    Secret,
    quoted,
    redact,
    redact_response,
    redacting_logger,
    remember_secrets,
)


def redact_with(secrets: Iterable[str], text: str) -> str:
    remember_secrets(secrets)
    return redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "a token {} in a sentence",
        "https://hub.example.org/x?gitlab_token={}",
        "https://hub.example.org/x?a=1&private_token={}&b=2",
        "https://someone:{}@hub.example.org/x",
        "https://hub.example.org/x?url=https%3A%2F%2Fa%2F%3Fgitlab_token%3D{}",
        '{{"token": "{}"}}',
        "Authorization: Bearer {}",
    ],
)
def test_a_known_secret_is_masked_wherever_it_stands(text: str) -> None:
    masked = redact_with(["s3cr3t/+="], text.format("s3cr3t/+="))
    assert "s3cr3t" not in masked
    assert "***" in masked


@pytest.mark.parametrize(
    "spelled",
    [
        "%67lpat%2Dsecret",
        "glpat%2dsecret",
        "glpat%252Dsecret",
        "%67%6C%70%61%74%2D%73%65%63%72%65%74",
        r"\u0067lpat-secret",
        r"glpat\\u002Dsecret",
        "&#103;lpat&#x2D;secret",
    ],
)
def test_a_secret_is_masked_however_it_is_escaped(spelled: str) -> None:
    assert redact_with(["glpat-secret"], f"a {spelled} b") == "a *** b"


@pytest.mark.parametrize(
    "spelled",
    [
        r"pass\"word\\x&y/z",
        r"pass\"word\\x&y\/z",
        r"pass\\\"word\\\\x&y\/z",
        "pass&quot;word\\x&amp;y/z",
        "pass%22word%5Cx%26y/z",
    ],
)
def test_a_secret_with_special_characters_is_redacted_however_it_is_escaped(spelled: str) -> None:
    assert redact_with(['pass"word\\x&y/z'], f"a {spelled} b") == "a *** b"


def test_quoted_text_holds_no_secret() -> None:
    remember_secrets(["glpat-in-quotes"])
    assert quoted("a glpat-in-quotes") == "'a ***'"


def test_escapes_without_a_secret_take_little_memory() -> None:
    remember_secrets(["glpat-not-there"])
    text = "%" + "25" * 500_000
    tracemalloc.start()
    try:
        redact(text)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(text)
    finally:
        tracemalloc.stop()


def test_a_secret_is_masked_in_its_quoted_form_too() -> None:
    assert redact_with(["a/b+c=="], "x?t=a%2Fb%2Bc%3D%3D&y=1") == "x?t=***&y=1"


def test_a_secret_that_begins_another_leaves_no_tail() -> None:
    assert redact_with(["abcdef", "abcdef-gh"], "abcdef-gh and abcdef") == "*** and ***"


@pytest.mark.parametrize(
    "text",
    [
        "glpat-0123456789abcdefghij",
        "glcbt-64_abcdefghijklmnop",
        "https://h/x?gitlab_token=unknown-one",
        "https://h/x?gitlab_token%3Dunknown-one",
        "https://h/x?X-Amz-Signature=unknown-one&X-Amz-Date=1",
        "https://h/x?access_token=unknown-one",
        "https://unknown-one@h/x",
        "https://me:unknown-one@h/x",
        "https://me:p@ss-unknown-one@h/x",
        '{"password": "unknown-one"}',
        "PRIVATE-TOKEN: unknown-one",
        "authorization: bearer unknown-one",
        "Basic dW5rbm93bi1vbmU=",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    masked = redact(text)
    assert "***" in masked
    for secret in ("unknown-one", "0123456789abc", "64_abc", "dW5rbm93"):
        assert secret not in masked


@pytest.mark.parametrize(
    "text",
    [
        "https://hub.example.org/api/stac/collections/dataset/items?limit=100&after=abc",
        "Missing token, either use login, or pass it as header or query",
        "GET https://hub.example.org/a@b/c: 404 Not Found",
        "a token of time",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert redact(text) == text


def test_a_value_too_short_to_be_a_secret_does_not_garble_texts() -> None:
    assert redact_with(["a", "an", ""], "a banana") == "a banana"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\tc", r"a\nb\tc"),
        ("a\u202eb\u2028c\x85", r"a\u202eb\u2028c\x85"),
        ("\N{BLACK SQUARE}\u200d b\u00a0c", "\N{BLACK SQUARE}\u200d b\u00a0c"),
    ],
)
def test_control_and_invisible_characters_are_escaped(text: str, escaped: str) -> None:
    assert redact(text) == escaped
    assert redact(escaped) == escaped


def test_the_body_of_an_error_keeps_its_lines() -> None:
    response = requests.Response()
    response.status_code, response._content = 500, b"one\n\ttwo\x1b[31m"
    assert redact_response(response).text == "one\n\ttwo\\x1b[31m"


def test_log_messages_are_redacted(caplog: pytest.LogCaptureFixture) -> None:
    remember_secrets(["the-secret-one"])
    logger = redacting_logger("stac_gitlab.test")
    assert redacting_logger("stac_gitlab.test").filters == logger.filters
    with caplog.at_level("INFO", "stac_gitlab"):
        logger.info("of %s: %s", "an id\n\x1b", "the-secret-one")
    assert caplog.messages == [r"of an id\n\x1b: ***"]


def test_every_logger_of_the_package_redacts() -> None:
    package = Path(stac_gitlab.__path__[0])
    modules = [path for path in package.rglob("*.py") if "getLogger(" in path.read_text("utf-8")]
    # The first adds the handler that the logging documentation asks libraries for.
    assert sorted(path.relative_to(package).as_posix() for path in modules) == [
        "__init__.py",
        "redaction.py",
    ]


def test_a_secret_is_not_in_its_repr_or_that_of_a_container() -> None:
    secret = Secret("glpat-hidden")
    assert "hidden" not in repr({"a": [secret]})
    assert secret == "glpat-hidden"
    assert f"{secret}" == "glpat-hidden"
