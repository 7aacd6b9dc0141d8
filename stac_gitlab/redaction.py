"""Removes secrets and control characters from texts that people, logs and files can hold.

Code that sends a secret first passes it to :func:`remember_secrets`. From then on, the functions
here remove it from every text, for all readers.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import logging
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import quote

import requests
from requests.structures import CaseInsensitiveDict

from stac_gitlab.errors import InvalidResponseError

REDACTED = "***"

SHORTEST_SECRET = 6
"""Shorter values are ordinary words: replacing each of them would ruin messages and documents."""

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error's body that are kept."""

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
"""Headers, in lower case, that hold a credential whatever their value is."""

_HIDDEN_HEADERS = CREDENTIAL_HEADERS | {"set-cookie", "proxy-authorization"}

_SECRET_PARAMETER = re.compile(
    r"\b(gitlab_token|private[-_]token|job[-_]token|deploy[-_]token|access_token|id_token"
    r"|refresh_token|api[-_]?key|x-gitlab-token|x-amz-signature|x-amz-security-token|sig"
    r"|signature|password|secret|token)(=|%3D|[\"']?:\s*+[\"']?)[^&#\s\"'<>)\],;]++",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(?<=://)[^/?#\s\"'<>]+@")
_BEARER = re.compile(r"\b(bearer|basic)\s++[\w.~+/=-]{8,}+", re.IGNORECASE)
_TOKEN_SHAPE = re.compile(r"\bgl[a-z]{2,6}-[\w.-]{8,}+")

# Each match of the four patterns above contains a match of this one, which is faster.
_SUSPECT = re.compile(r"@|\bgl[a-z]|basic|bearer|key|password|secret|sig|token", re.IGNORECASE)

# A character that is escaped for a URL (once or several times), for JSON or for HTML. No match
# starts inside a run of backslashes, so the time grows with the length of the text only.
_ESCAPED = re.compile(
    r"%(?:25){0,8}([0-9A-Fa-f]{2})|(?<!\\)\\++u([0-9A-Fa-f]{4})"
    r"|&#(?:0*+([1-9]\d{0,6})|[xX]0*+([1-9A-Fa-f][0-9A-Fa-f]{0,5}));"
    r"|\\([\"\\/])|&(amp|lt|gt|quot|apos);"
)
_NAMED_CHARACTERS = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
# JSON inside a URL inside HTML is escaped three times. More levels have not been observed.
_MAX_ESCAPE_LEVELS = 3
# Characters at the end of a text that was cut, where half an escaped secret may be left.
_CUT = 4096

# A token in a query, as SharingHub writes it into hrefs and Markdown.
_PAIR = r"gitlab(?:_|%5F)token(?:=|%3D)(?:(?!%26)[^&#\s\"'<>()\[\]\\])*"
_TOKEN_PARAMETER = re.compile(
    rf"([?&]|&amp;|%26|%3F){_PAIR}(?:(?:&amp;|&|%26){_PAIR})*(&amp;|&|%26)?", re.IGNORECASE
)

# Both begin with a literal byte, for which `re` searches fastest.
_UNDERSCORE_TOKEN = re.compile(rb"_[tT][oO][kK][eE][nN]")
_QUOTED_TOKEN = re.compile(rb"%5[fF][tT][oO][kK][eE][nN]")
# The escape of a character that no URL has to escape. Tokens consist of such characters.
_NEEDLESS_ESCAPE = re.compile(
    rb"%(?:25)*(?:2[DdEe]|3\d|4[1-9A-Fa-f]|5[\dAaFf]|6[1-9A-Fa-f]|7[\dAaEe])"
)

# Control and format characters (some of which reverse the direction of a text), lone surrogates and
# line breaks. The two joiners are part of the spelling of Persian, Hindi and other languages.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"


# -- which secrets are known -----------------------------------------------------------------------


class Secret(str):
    """A secret that its repr does not show, so that a traceback with locals does not either.

    What is made of it (a slice, a formatted text) is a plain string.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(REDACTED)


class KnownSecrets:
    """The most recently used secrets, with the parts of them that a server may repeat alone."""

    __slots__ = ("_values",)

    _MAX = 256

    def __init__(self) -> None:
        # A dict keeps the order, and each of its operations is atomic: no lock, none to be held
        # while the process forks.
        self._values: dict[Secret, None] = {}

    def __repr__(self) -> str:
        return f"<{len(self._values)} secrets>"

    def __iter__(self) -> Iterator[Secret]:
        """Yield the longest first: one secret may be the beginning of another."""
        return iter(sorted(self._values, key=len, reverse=True))

    def __contains__(self, secret: str) -> bool:
        return secret in self._values

    def add(self, secret: Secret) -> None:
        """Add a secret, unless it is shorter than `SHORTEST_SECRET`.

        Of ``Bearer x``, the ``x`` is added, too. Of a Basic credential, also what it encodes.
        """
        if secret in self._values:
            return
        for form in (secret, Secret(secret.rpartition(" ")[2]), *_decoded_basic(secret)):
            if len(form) >= SHORTEST_SECRET:
                self._values[form] = None
        while len(self._values) > self._MAX:
            self._values.pop(next(iter(self._values)), None)


def _decoded_basic(credential: Secret) -> Iterator[Secret]:
    """Yield ``user:password`` and the password of a Basic credential."""
    if credential[:6].lower() == "basic ":
        with contextlib.suppress(ValueError):
            pair = Secret(base64.b64decode(credential[6:].strip()).decode("utf-8"))
            yield pair
            yield Secret(pair.partition(":")[2])


_known = KnownSecrets()


def remember_secrets(values: Iterable[str]) -> None:
    """Redact these values from now on. Values shorter than `SHORTEST_SECRET` are ignored."""
    for value in values:
        _known.add(Secret(value))


# -- texts ---------------------------------------------------------------------------------------


def redact(text: str) -> str:
    """Return `text` without anything that is, or looks like, a secret, on one line.

    Control and invisible characters are escaped: they could change what a terminal shows.

    Args:
        text: A URL, a header, an error message, a log message.
    """
    return _escaped(_without_secrets(text))


def _without_secrets(text: str) -> str:
    text = redact_known(text)
    if _SUSPECT.search(text) is None:
        return text
    text = _USER_INFO.sub(f"{REDACTED}@", text)
    text = _SECRET_PARAMETER.sub(rf"\1\2{REDACTED}", text)
    text = _BEARER.sub(rf"\1 {REDACTED}", text)
    return _TOKEN_SHAPE.sub(REDACTED, text)


def redact_known(text: str) -> str:
    """Return `text` without the known secrets, also where their characters are escaped."""
    secrets = list(_known)
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    decoded = text
    for _ in range(_MAX_ESCAPE_LEVELS):
        if not any(sign in decoded for sign in "%\\&"):
            break
        decoded = _ESCAPED.sub(_character, decoded)
        if any(secret in decoded for secret in secrets):
            return _without_escaped(secrets, text)
    return text


def _without_escaped(secrets: list[Secret], text: str) -> str:
    """Return `text` without secrets. This takes several times the memory of the text."""
    decoded, places = text, array("L", range(len(text) + 1))
    for _ in range(_MAX_ESCAPE_LEVELS):
        decoded, inner = _decoded(decoded)
        places = array("L", (places[index] for index in inner))
        spans = _spans(secrets, decoded)
        if spans:
            text = _replaced(text, [(places[start], places[end]) for start, end in spans])
            decoded, places = text, array("L", range(len(text) + 1))
    return text


def _decoded(text: str) -> tuple[str, array[int]]:
    """Return `text` without escapes, and for each of its characters where it stood in `text`."""
    parts: list[str] = []
    places = array("L")
    position = 0
    for match in _ESCAPED.finditer(text):
        parts += text[position : match.start()], _character(match)
        places.extend(range(position, match.start() + 1))
        position = match.end()
    parts.append(text[position:])
    places.extend(range(position, len(text) + 1))
    return "".join(parts), places


def _character(match: re.Match[str]) -> str:
    """Return what an escape stands for. A secret consists of ASCII characters."""
    in_url, in_json, decimal, hexadecimal, backslashed, name = match.groups()
    if backslashed or name:
        return cast("str", backslashed or _NAMED_CHARACTERS[name])
    code = int(decimal) if decimal else int(in_url or in_json or hexadecimal, 16)
    return chr(code) if code < 128 else "\0"


def _spans(secrets: Iterable[str], text: str) -> list[tuple[int, int]]:
    """Return where secrets stand in `text`, in order and without overlaps."""
    found = (match.span() for each in secrets for match in re.finditer(re.escape(each), text))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _replaced(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts: list[str] = []
    position = 0
    for start, end in spans:
        parts += text[position:start], REDACTED
        position = end
    return "".join([*parts, text[position:]])


def strip_token_parameters(text: str) -> str:
    """Remove every ``gitlab_token=…`` from a URL, or from a text that holds URLs."""
    if "gitlab" not in text.lower():
        return text
    # The separator stays where another parameter follows.
    return _TOKEN_PARAMETER.sub(lambda match: match[1] if match[2] else "", text)


def redact_text(text: str) -> str:
    """Return a text that a server sent without token parameters and known secrets."""
    return redact_known(strip_token_parameters(text))


def quoted(text: str, *, limit: int = 200) -> str:
    """Return a text in quotes, without known secrets and control characters, and shortened."""
    text = redact_known(text)
    shown = ascii(text) if has_invisible(text) else repr(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}…"


def printable(text: str, *, limit: int = 200) -> str:
    """Return the same as :func:`quoted`, without the quotes."""
    shown = quoted(text, limit=limit)
    return shown[1:] if shown.endswith("…") else shown[1:-1]


def has_invisible(text: str) -> bool:
    """Return whether a text has control or other invisible characters."""
    return not text.isprintable() and any(map(_is_invisible, text))


def redact_beginning(text: str) -> str:
    """Return the beginning of a text, which was cut, without secrets and the half of one."""
    return _without_secrets(text)[:-_CUT]


def _escaped(text: str, *, keep: str = "") -> str:
    """Return `text` with its control and invisible characters escaped, but those in `keep`."""
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if _is_invisible(c) and c not in keep else c for c in text)


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE and character not in _JOINERS


class _RedactingFilter(logging.Filter):
    """Passes the message of each record through :func:`redact`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        return True


def redacting_logger(name: str) -> logging.Logger:
    """Return the logger of a module. Its messages may name ids, hrefs and errors as they are."""
    logger = logging.getLogger(name)
    if not any(isinstance(each, _RedactingFilter) for each in logger.filters):
        logger.addFilter(_RedactingFilter())
    return logger


# -- documents -----------------------------------------------------------------------------------


def holds_secret(body: bytes) -> bool:
    """Return whether a file contains a known secret."""
    return any(secret.encode() in body for secret in list(_known))


def redact_document(document: dict[str, Any], body: bytes, *, url: str) -> dict[str, Any]:
    """Return the document without token parameters and known secrets.

    Args:
        document: What `body` holds. It is changed in place.
        body: The bytes it was read from: a search in them tells whether there is work to do.
        url: Where it came from, for errors.

    Raises:
        InvalidResponseError: If the document is nested too deeply to be searched.
    """
    secrets = tuple(_known)
    if not _may_hold_secret(body, secrets):
        return document
    try:
        _redact_in(document, secrets)
    except RecursionError:
        raise InvalidResponseError(
            f"{url}: JSON that is nested too deeply to be read.", url=url
        ) from None
    return document


def redact_body(body: bytes) -> bytes:
    """Return a JSON document or another text without token parameters and known secrets.

    Raises:
        RecursionError: If the document is nested too deeply to be searched.
    """
    secrets = tuple(_known)
    if not _may_hold_secret(body, secrets):
        return body
    text = body.decode("utf-8", "surrogateescape")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, (dict, list)):
        return redact_text(text).encode("utf-8", "surrogateescape")
    _redact_in(document, secrets)
    return json.dumps(document).encode()


def _may_hold_secret(body: bytes, secrets: Iterable[str]) -> bool:
    """Return whether there is a token parameter, a secret, or an escape that may contain one.

    Searching for a single byte is about a hundred times as fast as searching for two of them.
    """
    return (
        _UNDERSCORE_TOKEN.search(body) is not None
        or (b"\\" in body and (b"\\u00" in body or b"\\/" in body))
        or (b"&" in body and b"&#" in body)
        or (b"%" in body and _may_hold_quoted_secret(body, secrets))
        or any(
            json.dumps(form)[1:-1].encode() in body
            for secret in secrets
            for form in {str(secret), html.escape(secret)}
        )
    )


def _may_hold_quoted_secret(body: bytes, secrets: Iterable[str]) -> bool:
    if _QUOTED_TOKEN.search(body) is not None or _NEEDLESS_ESCAPE.search(body) is not None:
        return True
    lowered = body.lower()
    return any(quote(secret, safe="").encode().lower() in lowered for secret in secrets)


def _redact_in(holder: dict[str, Any] | list[Any], secrets: tuple[str, ...]) -> None:
    pairs: Iterable[tuple[Any, Any]] = enumerate(holder)
    if type(holder) is dict:
        if _is_suspect("\n".join(holder), secrets):
            renamed = {redact_text(key): value for key, value in holder.items()}
            holder.clear()
            holder.update(renamed)
        pairs = holder.items()
    for place, value in pairs:
        if type(value) is str:
            if len(value) >= SHORTEST_SECRET and _is_suspect(value, secrets):
                holder[place] = redact_text(value)
        elif type(value) is dict or type(value) is list:
            _redact_in(value, secrets)


def _is_suspect(text: str, secrets: tuple[str, ...]) -> bool:
    # A token parameter follows one of these characters, and escapes begin with them.
    if "?" in text or "&" in text or "%" in text or "\\" in text:
        return True
    for secret in secrets:  # noqa: SIM110  # twice as fast as any()
        if secret in text:
            return True
    return False


# -- responses -----------------------------------------------------------------------------------


def redact_response(response: requests.Response) -> requests.Response:
    """Return a copy of a response, and of its request, that can be shown, kept and pickled."""
    clean = requests.Response()
    clean.status_code = response.status_code
    clean.reason = redact(response.reason or "")[:200]
    clean.url = redact(response.url or "")
    # Not the charset that the server names: a secret in UTF-7 or UTF-16 would not be found.
    clean.encoding = "utf-8"
    clean.elapsed = response.elapsed
    clean.headers = _redacted_headers(response.headers)
    body = response._content if isinstance(response._content, bytes) else b""
    text = body[:MAX_ERROR_BODY].decode("utf-8", "replace").replace("\0", "")
    text = _without_secrets(text) if len(body) < MAX_ERROR_BODY else redact_beginning(text)
    clean._content = _escaped(text, keep="\t\r\n").encode()
    if response.request is not None:
        asked = requests.PreparedRequest()
        asked.method = response.request.method
        asked.url = redact(response.request.url or "")
        asked.headers = _redacted_headers(response.request.headers or {})
        clean.request = asked
    return clean


def _redacted_headers(headers: Mapping[str, Any]) -> CaseInsensitiveDict[str]:
    return CaseInsensitiveDict(
        {
            name: REDACTED if isinstance(value, Secret) else redact(str(value))
            for name, value in headers.items()
            if name.lower() not in _HIDDEN_HEADERS
        }
    )


def canonical_name(header: str) -> str:
    """Return the name by which a program behind WSGI or Rack, which merge two, finds a header."""
    return header.lower().replace("_", "-")


def is_credential(name: str, value: str) -> bool:
    """Return whether a header is a credential, by its name or by the beginning of its value."""
    return _CREDENTIAL_NAME.search(name) is not None or _BEARER.match(value) is not None


_CREDENTIAL_NAME = re.compile(
    r"auth|cookie|credential|key|passw|secret|session|signature|token", re.IGNORECASE
)
