"""Texts and documents without secrets and without control characters."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from stac_gitlab.redaction import redact, remember_secrets


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
