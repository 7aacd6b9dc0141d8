"""Documents that pystac can work with, from the bytes of a response.

JSON is read as UTF-8. What claims to be STAC is checked for the fields that pystac cannot do
without, so that a broken document raises an error that names the field, not a ``KeyError``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any
from urllib.parse import urlsplit

from stac_gitlab.errors import InvalidResponseError
from stac_gitlab.redaction import quoted, redact, redact_beginning, strip_token_parameters
from stac_gitlab.settings import Limits

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # optional: several times as fast


_TOO_DEEP = "JSON that is nested too deeply to be read."
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Brackets as signed bytes: one level more, or one less.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_STEPS = bytes(set(range(256)) - set(b'[{]}"'))
_USUAL = Limits()


def parse_json(body: bytes, *, url: str, limits: Limits = _USUAL) -> dict[str, Any]:
    """Return the JSON object in `body`, which came from `url`.

    Raises:
        InvalidResponseError: If the bytes are anything else, or the object exceeds a limit.
    """
    body = body.removeprefix(_BOM)
    # Each value follows one of these bytes. Counting them takes no memory; parsing would.
    if len(body) > limits.members < sum(map(body.count, (b",", b"[", b"{"))):
        raise InvalidResponseError(
            f"{url}: JSON with more than {limits.members} values. If you expect that, raise "
            "Limits(members=).",
            url=url,
        )
    try:
        document = _loads(body)
        if b"\\" in body and _SURROGATE.search(body):
            # A lone surrogate cannot be encoded. U+FFFD replaces it.
            document = _without_surrogates(document)
    except ValueError as error:
        raise _unreadable(error, body, url=url) from None
    except RecursionError:
        raise InvalidResponseError(f"{url}: {_TOO_DEEP}", url=url) from None
    if not isinstance(document, dict):
        raise InvalidResponseError(
            f"{url}: JSON, but {_json_type(document)} where an object was expected.", url=url
        )
    if _depth(body) > limits.nesting:
        raise InvalidResponseError(
            f"{url}: {_TOO_DEEP} It has more than {limits.nesting} levels; if you expect that, "
            "raise Limits(nesting=).",
            url=url,
        )
    return document


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(v) for v in value]
    return value


def _depth(body: bytes) -> int:
    """Return how many levels the objects and lists of a JSON text have.

    Only brackets and quotes are kept of the text, which is several times as fast as a walk through
    the parsed document.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    steps = body.translate(_STEPS, _NO_STEPS).replace(b'""', b"")
    if b'"' in steps:
        # What is left of the texts holds brackets.
        steps = b"".join(steps.split(b'"')[::2])
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def _unreadable(error: ValueError, body: bytes, *, url: str) -> InvalidResponseError:
    """Return the error for bytes that are not JSON, or not all of it."""
    if not body.strip():
        return InvalidResponseError(f"{url}: the response is empty.", url=url, truncated=True)
    if _ends_early(error, body):
        return InvalidResponseError(
            f"{url}: the JSON ends in the middle, after {len(body)} bytes: the response was cut "
            "short. Try again.",
            url=url,
            truncated=True,
        )
    if isinstance(error, UnicodeDecodeError):
        return InvalidResponseError(
            f"{url}: not UTF-8 (at byte {error.start}), so not JSON.", url=url
        )
    if isinstance(error, json.JSONDecodeError):
        return InvalidResponseError(
            f"{url}: not JSON ({error.msg} at line {error.lineno}, column {error.colno}); it "
            f"begins with {_excerpt(error.doc)}. Check that the URL is one of the API.",
            url=url,
        )
    return InvalidResponseError(f"{url}: JSON that cannot be read: {error}.", url=url)


def _ends_early(error: ValueError, body: bytes) -> bool:
    body = body.strip()
    if not body.startswith((b"{", b"[")) or getattr(error, "msg", "") == "Extra data":
        return False
    return not body.endswith((b"}", b"]")) or (
        isinstance(error, json.JSONDecodeError)
        and (error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"))
    )


def _loads(body: bytes) -> Any:
    if orjson is not None:
        try:
            return orjson.loads(body)
        except ValueError:
            # orjson refuses NaN, surrogates and deep nesting, which the standard library reads.
            pass
    return json.loads(body.decode("utf-8"))


def digest_of(document: Mapping[str, Any]) -> bytes:
    """Return a digest that is equal for equal documents, whatever the order of their members."""
    text = b""
    if orjson is not None:
        with contextlib.suppress(TypeError):
            # orjson has no integers of more than 64 bits.
            text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    if not text:
        text = json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def check_stac(document: dict[str, Any], *, url: str, listed: bool = False) -> None:
    """Check that a document that claims to be STAC has the fields that pystac needs.

    Documents that make no such claim (a schema, a list of conformance classes) pass. Fields that
    pystac stores without looking at them may have any type. The self link counts only if a page
    lists the document: pystac ignores it in a document that was read by its URL.

    Raises:
        InvalidResponseError: If a field is missing or of the wrong type; the message names it.
    """
    try:
        _check(document, listed=listed)
    except _BrokenFieldError as broken:
        name = document.get("id")
        about = f" (id {quoted(name)})" if isinstance(name, str) else ""
        raise InvalidResponseError(
            f"{url}: not valid STAC{about}: {broken}. The maintainer of the catalog has "
            "to correct it.",
            url=url,
        ) from None


def with_version(document: dict[str, Any]) -> dict[str, Any]:
    """Return what a page lists with a ``stac_version``, which some servers leave to the page."""
    return document if "stac_version" in document else {"stac_version": "1.0.0", **document}


class _BrokenFieldError(Exception):
    """A field of a document is missing or has the wrong type; the message names it."""


def _check(document: dict[str, Any], *, listed: bool) -> None:
    kind = document.get("type")
    if kind == "FeatureCollection":
        _expect(document, "features", list)
        _expect(document, "links", list, optional=True)
        return
    if "stac_version" not in document:
        if kind in ("Catalog", "Collection") or (kind == "Feature" and "assets" in document):
            raise _BrokenFieldError("stac_version is missing")
        return
    _expect(document, "stac_version", str)
    is_item = kind == "Feature"
    if not is_item:
        _expect(document, "id", (str, int, float))
        if not is_id(document["id"]):
            raise _BrokenFieldError("id is a truth value")
    # pystac reads a text as a list of characters, and an empty object as an empty list.
    if document.get("stac_extensions") != {}:
        _expect(document, "stac_extensions", (list, str), optional=True)
    _check_links(document, is_item=is_item, listed=listed)
    _check_assets(document)
    if is_item:
        _check_item(document)
        return
    if "description" not in document:
        raise _BrokenFieldError("description is missing")
    if kind == "Collection" and document.get("extent"):
        _check_extent(document)


def is_id(value: object) -> bool:
    """Return whether a value can tell members of a listing apart: a text or a number."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _check_item(document: dict[str, Any]) -> None:
    properties = _expect(document, "properties", dict)
    _expect(properties, "datetime", str, optional=True, where="properties.")
    if properties.get("datetime") is None and None in (
        properties.get("start_datetime", properties.get("dtr:start_datetime")),
        properties.get("end_datetime", properties.get("dtr:end_datetime")),
    ):
        raise _BrokenFieldError(
            "properties.datetime is null, and start_datetime and end_datetime are not both set"
        )


def _check_links(document: dict[str, Any], *, is_item: bool, listed: bool) -> None:
    # pystac reads an empty text or object like an empty list.
    if document.get("links") not in ("", {}):
        _expect(document, "links", list, optional=is_item)
    for index, link in enumerate(document.get("links") or ()):
        where = f"links[{index}]"
        if not isinstance(link, dict):
            raise _BrokenFieldError(f"{where} is {_json_type(link)}, not an object")
        if "rel" not in link:
            raise _BrokenFieldError(f"{where}.rel is missing")
        if link["rel"] == "self" and not listed:
            continue
        # pystac accepts an item with an empty href.
        if not (is_item and "href" in link and not link["href"]):
            _check_link_url(link, where)


def _check_assets(document: dict[str, Any]) -> None:
    _expect(document, "assets", dict, optional=True)
    # Before STAC 1.0, the assets of a collection described those of its items, without an href.
    is_old = not document["stac_version"].startswith("1.")
    are_templates = is_old and document.get("type") != "Feature"
    for key, asset in (document.get("assets") or {}).items():
        if type(asset) is dict and type(asset.get("href")) is str:
            continue
        where = f"assets[{quoted(key)}]"
        if not isinstance(asset, dict):
            raise _BrokenFieldError(f"{where} is {_json_type(asset)}, not an object")
        if "href" in asset or not are_templates:
            _expect(asset, "href", str, where=f"{where}.")


def _check_link_url(link: dict[str, Any], where: str) -> None:
    href = link.get("href")
    if type(href) is str and href.isascii() and "[" not in href and "]" not in href:
        return
    href = _expect(link, "href", str, where=f"{where}.")
    try:
        # pystac replaces the backslashes, and parses the path once more by itself.
        urlsplit(urlsplit(href.replace("\\", "/")).path)
    except ValueError as error:
        raise _BrokenFieldError(f"{where}.href is no URL ({error})") from None


def _check_extent(document: dict[str, Any]) -> None:
    extent = _expect(document, "extent", dict)
    for part, field in (("spatial", "bbox"), ("temporal", "interval")):
        _expect(_expect(extent, part, dict, where="extent."), field, list, where=f"extent.{part}.")


def _expect(
    holder: dict[str, Any],
    field: str,
    types: type | tuple[type, ...],
    *,
    optional: bool = False,
    where: str = "",
) -> Any:
    value = holder.get(field)
    if isinstance(value, types) or (value is None and optional):
        return value
    problem = f"is {_json_type(value)}" if field in holder else "is missing"
    raise _BrokenFieldError(f"{where}{field} {problem}")


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")


def _excerpt(text: str) -> str:
    # Redacted before it is cut: half a secret is still a secret.
    beginning = strip_token_parameters(text[:8192])
    redacted = redact(beginning) if len(text) < 8192 else redact_beginning(beginning)
    text = " ".join(redacted.split())
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")
