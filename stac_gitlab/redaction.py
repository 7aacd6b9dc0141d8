"""No secret and no control character in any text."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import requests
from requests.structures import CaseInsensitiveDict

from stac_gitlab.errors import InvalidResponseError

# Removed from a request before ours are set, so that a .netrc entry, a cookie or what an earlier
# hop carried cannot stand in for, or travel beside, the credential that belongs there.
CREDENTIAL_HEADERS = frozenset(
    {
        "authorization",
        "cookie",
        "deploy-token",
        "job-token",
        "private-token",
        "x-api-key",
        "x-gitlab-token",
    }
)


_CREDENTIAL_NAME = re.compile(
    r"auth|cookie|credential|key|passw|secret|session|signature|token", re.IGNORECASE
)


MASK = "***"


_SECRET_PARAMETER = re.compile(
    r"\b(gitlab_token|private[-_]token|job[-_]token|deploy[-_]token|access_token|id_token"
    r"|refresh_token|api[-_]?key|x-gitlab-token|x-amz-signature|x-amz-security-token|sig"
    r"|signature|password|secret|token)(=|%3D|[\"']?:\s*[\"']?)[^&#\s\"'<>)\],;]+",
    re.IGNORECASE,
)


_USER_INFO = re.compile(r"(?<=://)[^/?#\s\"'<>]+@")


_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)


_TOKEN_SHAPE = re.compile(r"\bgl[a-z]{2,6}-[\w.-]{8,}")


# Something of this is in everything that one of these finds.
_SUSPECT = re.compile(r"@|\bgl[a-z]|basic|bearer|key|password|secret|sig|token", re.IGNORECASE)


# What an escape begins with, in a URL, in JSON and in HTML.
_ESCAPE_SIGNS = ("%", "\\u", "&#")


# Shorter values are words rather than secrets: masking every "a" of a message helps nobody.
_SHORTEST_SECRET = 4


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask everything in `text` that is, or looks like, a secret.

    Args:
        text: A URL, a header, a server's answer, an error message.
        secrets: Values that are known to be secret and are masked wherever they stand.
    """
    text = redact_secrets(text, (secret for secret in secrets if len(secret) >= _SHORTEST_SECRET))
    if _SUSPECT.search(text) is None:
        return text
    text = _USER_INFO.sub(f"{MASK}@", text)
    text = _SECRET_PARAMETER.sub(rf"\1\2{MASK}", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    return _TOKEN_SHAPE.sub(MASK, text)


def redact_secrets(text: str, secrets: Iterable[str]) -> str:
    """Mask `secrets` in `text`, also where their characters are escaped."""
    is_escaped = any(sign in text for sign in _ESCAPE_SIGNS)
    # The longest first: one secret may be the beginning of another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
        if is_escaped:
            text = _spellings(secret).sub(MASK, text)
    return text


@functools.lru_cache(maxsize=64)
def _spellings(secret: str) -> re.Pattern[str]:
    """Return what finds a secret although it is escaped for a URL (also twice), JSON or HTML."""
    spelled = (
        rf"(?:{re.escape(char)}|(?i:%(?:25)*{ord(char):02x}|\\+u{ord(char):04x}"
        rf"|&\#(?:0*{ord(char)}|x0*{ord(char):x});))"
        for char in secret
    )
    return re.compile("".join(spelled))


def _is_credential(name: str, value: str) -> bool:
    """Tell whether a header stands in for a token, by its name or by how its value begins."""
    return _CREDENTIAL_NAME.search(name) is not None or _BEARER.match(value) is not None


_PAIR = r"gitlab(?:_|%5F)token(?:=|%3D)(?:(?!%26)[^&#\s\"'<>()\[\]\\])*"


_TOKEN_PARAMETER = re.compile(
    rf"([?&]|&amp;|%26|%3F){_PAIR}(?:(?:&amp;|&|%26){_PAIR})*(&amp;|&|%26)?",
    re.IGNORECASE,
)


def strip_token_parameters(text: str) -> str:
    """Remove every ``gitlab_token=…`` from a URL, or from a text that holds URLs."""
    if "gitlab" not in text.lower():
        return text
    return _TOKEN_PARAMETER.sub(_joint, text)


def _joint(match: re.Match[str]) -> str:
    """Keep the separator before a removed parameter where another parameter follows."""
    return match[1] if match[2] else ""


_HOLDERS = frozenset({dict, list})


_TOO_DEEP = "JSON that is nested too deeply to be read."


_SHORTEST_IN_DOCUMENT = 8


# Both begin with a plain byte, which is what a search is quickest for.
_UNDERSCORE_TOKEN = re.compile(rb"_[tT][oO][kK][eE][nN]")


_QUOTED_TOKEN = re.compile(rb"%5[fF][tT][oO][kK][eE][nN]")


# The escape of a character that no URL has to escape. A token consists of such.
_NEEDLESS_ESCAPE = re.compile(
    rb"%(?:25)*(?:2[DdEe]|3\d|4[1-9A-Fa-f]|5[\dAaFf]|6[1-9A-Fa-f]|7[\dAaEe])"
)


def without_tokens(
    document: dict[str, Any], body: bytes, secrets: Iterable[str], *, url: str
) -> dict[str, Any]:
    """Return the document without ``gitlab_token=…`` and without any of the known `secrets`.

    Args:
        document: What `body` holds. It is changed in place.
        body: The bytes it was read from: a search in them tells whether there is work to do.
        secrets: Values that must not stand anywhere in the document.
        url: Where it came from, for errors.

    Raises:
        InvalidResponseError: If the document is nested too deeply to be searched.
    """
    known = _long_enough(secrets)
    if not _may_hold_secret(body, known):
        return document
    try:
        _clean(document, known)
    except RecursionError:
        raise InvalidResponseError(f"{url}: {_TOO_DEEP}", url=url) from None
    return document


def _may_hold_secret(body: bytes, known: tuple[str, ...]) -> bool:
    """Tell whether the parameter or a secret stands there, or an escape that may hide one.

    A single byte is found in no time, two of them take a hundred times as long. Where servers write
    tokens into their answers, the parameter stands near the beginning.
    """
    return (
        _UNDERSCORE_TOKEN.search(body) is not None
        or (b"\\" in body and (b"\\u00" in body or b"\\/" in body))
        or (b"&" in body and b"&#" in body)
        or (b"%" in body and _hides_behind_percent_signs(body, known))
        or any(secret.encode() in body for secret in known)
    )


def _hides_behind_percent_signs(body: bytes, known: tuple[str, ...]) -> bool:
    if _QUOTED_TOKEN.search(body) is not None or _NEEDLESS_ESCAPE.search(body) is not None:
        return True
    lowered = body.lower()
    return any(quote(secret, safe="").encode().lower() in lowered for secret in known)


def text_without_tokens(text: str, secrets: Iterable[str]) -> str:
    """Return a text without ``gitlab_token=…`` and without any of the known `secrets`."""
    return _cleaned_text(text, _long_enough(secrets))


def _long_enough(secrets: Iterable[str]) -> tuple[str, ...]:
    # Shorter values occur by accident, and a document must not be changed by accident.
    return tuple(secret for secret in secrets if len(secret) >= _SHORTEST_IN_DOCUMENT)


def _cleaned_text(text: str, secrets: tuple[str, ...]) -> str:
    return redact_secrets(strip_token_parameters(text), secrets)


def _clean(holder: dict[str, Any] | list[Any], secrets: tuple[str, ...]) -> None:
    """Clean all texts of an object or a list, in place; nearly all of them are clean."""
    pairs: Iterable[tuple[Any, Any]] = enumerate(holder)
    if type(holder) is dict:
        if _is_suspect("\n".join(holder), secrets):
            renamed = {_cleaned_text(key, secrets): value for key, value in holder.items()}
            holder.clear()
            holder.update(renamed)
        pairs = holder.items()
    for place, value in pairs:
        if type(value) is str:
            if len(value) >= _SHORTEST_IN_DOCUMENT and _is_suspect(value, secrets):
                holder[place] = _cleaned_text(value, secrets)
        elif type(value) in _HOLDERS:
            _clean(value, secrets)


def _is_suspect(text: str, secrets: tuple[str, ...]) -> bool:
    # The parameter stands behind one of these, and escapes begin with them.
    if "?" in text or "&" in text or "%" in text or "\\" in text:
        return True
    for secret in secrets:  # noqa: SIM110  # twice as fast as any()
        if secret in text:
            return True
    return False


MAX_ERROR_BODY = 64 * 1024


def without_secrets(response: requests.Response, secrets: Iterable[str] = ()) -> requests.Response:
    """Return a copy of a response, and of its request, that can be shown, kept and pickled."""
    secrets = tuple(secrets)
    clean = requests.Response()
    clean.status_code = response.status_code
    clean.reason = _printable(redact(response.reason or "", secrets))
    clean.url = redact(response.url or "", secrets)
    # What the server calls it does not count: in UTF-7 or UTF-16 no secret would be found.
    clean.encoding = "utf-8"
    clean.elapsed = response.elapsed
    clean.headers = _clean_headers(response.headers, secrets)
    body = response._content if isinstance(response._content, bytes) else b""
    text = body[:MAX_ERROR_BODY].decode("utf-8", "replace").replace("\0", "")
    clean._content = redact(text, secrets).encode()
    if response.request is not None:
        asked = requests.PreparedRequest()
        asked.method = response.request.method
        asked.url = redact(response.request.url or "", secrets)
        asked.headers = _clean_headers(response.request.headers or {}, secrets)
        clean.request = asked
    return clean


def _clean_headers(headers: Any, secrets: tuple[str, ...]) -> CaseInsensitiveDict[str]:
    hidden = CREDENTIAL_HEADERS | {"set-cookie", "proxy-authorization"}
    return CaseInsensitiveDict(
        {
            name: redact(str(value), secrets)
            for name, value in headers.items()
            if name.lower() not in hidden
        }
    )


def _printable(text: str) -> str:
    """Keep the escape sequences of a server from reaching a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


# Cc control, Cf format (direction marks that make a name look like another), Cs lone surrogate,
# Zl and Zp line breaks.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


# Of the format characters, these two belong to the spelling of Persian, Hindi and others.
_JOINERS = "\u200c\u200d"


def quoted(key: str) -> str:
    """Return a key as it can be printed: quoted, control characters escaped, not endless."""
    text = ascii(key) if _is_deceptive(key) else repr(key)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _is_deceptive(key: str) -> bool:
    if key.isascii() and key.isprintable():
        return False
    return any(unicodedata.category(c) in _INVISIBLE and c not in _JOINERS for c in key)
