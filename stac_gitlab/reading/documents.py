"""The bytes of an answer made a document that pystac can be trusted with.

JSON is read from bytes as UTF-8. What claims to be STAC is checked for the shape that pystac needs,
so that a broken document is an error that names the field, not a ``KeyError`` from the depths.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast
from urllib.parse import urlsplit

from stac_gitlab.errors import InvalidResponseError
from stac_gitlab.files.paths import is_web
from stac_gitlab.reading.untrusted_links import FOLLOWED
from stac_gitlab.redaction import redact, strip_token_parameters
from stac_gitlab.settings import Limits

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # optional: several times as fast


_TOO_DEEP = "JSON that is nested too deeply to be read."
_BOM = b"\xef\xbb\xbf"
_NO_BRACKETS = bytes(code for code in range(256) if code not in b'"[]{}')
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_PEAK = re.compile(rb"(\[+)(\]+)")
# As many levels as go at once, each in a search of its own; few documents have more.
_LEVELS_AT_ONCE = 8
_OBJECT_OR_NULL = frozenset({dict, type(None)})
_LIST_OR_NULL = frozenset({list, type(None)})
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_USUAL = Limits()
# Ids without any of this are no path.
_UNUSUAL_ID = re.compile(r"[/\\\0]|^\.\.$")


def parse_json(body: bytes, *, url: str, limits: Limits = _USUAL) -> dict[str, Any]:
    """Return the JSON object that `body` holds.

    Args:
        body: What was read.
        url: Where it came from, for errors.
        limits: How deeply it may be nested.

    Raises:
        InvalidResponseError: If it holds anything else.
    """
    body = body.removeprefix(_BOM)
    try:
        document = _loads(body)
    except ValueError as error:
        raise _unreadable(error, body, url=url) from None
    except RecursionError:
        raise InvalidResponseError(f"{url}: {_TOO_DEEP}", url=url) from None
    if not isinstance(document, dict):
        raise InvalidResponseError(
            f"{url}: JSON, but {_named(document)} where an object was expected.", url=url
        )
    if _is_too_deep(body, limits.nesting):
        raise InvalidResponseError(
            f"{url}: {_TOO_DEEP} It has more than {limits.nesting} levels; if you expect that, "
            "raise Limits(nesting=).",
            url=url,
        )
    if b"\\" not in body or not _SURROGATE.search(body):
        return document
    # Half a character can be neither written nor asked for; U+FFFD, which stands for it, can.
    try:
        return cast("dict[str, Any]", _whole(document))
    except RecursionError:
        raise InvalidResponseError(f"{url}: {_TOO_DEEP}", url=url) from None


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(k): _whole(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_whole(v) for v in value]
    return value


def _is_too_deep(body: bytes, allowed: int) -> bool:
    """Tell whether there are more levels than allowed in what is known to be JSON."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A text without brackets is now two quotes. In others, brackets stand behind an odd quote.
    left = body.translate(_ONE_KIND, _NO_BRACKETS).replace(b'""', b"")
    if b'"' in left:
        left = b"".join(left.split(b'"')[::2])
    # All that holds nothing else goes at once, and so, from inside, a level each time.
    level = min(allowed, _LEVELS_AT_ONCE)
    for _ in range(level):
        left = left.replace(b"[]", b"")
    # A search for each level would take long where many small parts are deep. What is left are
    # these, one after the other.
    for peak in _PEAK.finditer(left):
        level += len(peak[1])
        if level > allowed:
            return True
        level -= len(peak[2])
    return False


def _unreadable(error: ValueError, body: bytes, *, url: str) -> InvalidResponseError:
    """Return the error for bytes that are not JSON, or not all of it."""
    if not body.strip():
        return InvalidResponseError(f"{url}: the answer is empty.", url=url, truncated=True)
    if _ends_early(error, body):
        return InvalidResponseError(
            f"{url}: the JSON ends in the middle, after {len(body)} bytes: the answer was cut "
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
            f"begins with {_beginning(error.doc)}. Check that the URL is one of the API.",
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
            # Stricter than the standard library, which decides: NaN, surrogates, great depth.
            pass
    return json.loads(body.decode("utf-8"))


def check_stac(document: dict[str, Any], *, url: str) -> None:
    """Check that a document that claims to be STAC has the shape that pystac needs.

    Documents that make no such claim (a schema, a list of conformance classes) pass.

    Raises:
        InvalidResponseError: If a field is missing or of the wrong type; the message names it.
    """
    try:
        _check(document)
    except _BrokenFieldError as broken:
        name = document.get("id")
        about = f" (id {name!r})" if isinstance(name, str) else ""
        raise InvalidResponseError(
            f"{url}: not valid STAC{about}: {broken}. Whoever maintains the catalog has to mend "
            "it.",
            url=url,
        ) from None


def lists_plain_items(page: dict[str, Any]) -> bool:
    """Tell, quickly, whether a page lists items alone, and there is nothing to say about any.

    That is so for nearly all pages. Such items pass :func:`check_stac`, and neither their links nor
    their extensions have to be confined.
    """
    items = page.get("features")
    return type(items) is list and "collections" not in page and all(map(_is_plain_item, items))


def _is_plain_item(item: Any) -> bool:
    if type(item) is not dict or item.get("type") != "Feature":
        return False
    name, properties = item.get("id"), item.get("properties")
    links, assets = item.get("links"), item.get("assets")
    extensions = item.get("stac_extensions", [])
    return (
        type(name) is str
        and not _leads_out(name)
        and type(item.get("stac_version")) is str
        and type(properties) is dict
        and type(properties.get("datetime")) is str
        and type(item.get("geometry")) in _OBJECT_OR_NULL
        and type(item.get("bbox")) in _LIST_OR_NULL
        and type(item.get("collection", "")) is str
        and type(extensions) is list
        and all(map(is_web, extensions))
        and type(links) is list
        and all(map(_is_plain_link, links))
        and type(assets) is dict
        and all(map(_is_plain_asset, assets.values()))
    )


class _BrokenFieldError(Exception):
    """Says which field of a document is broken, and how."""


def _check(document: dict[str, Any]) -> None:
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
    _expect(document, "id", (str, int))
    if isinstance(document["id"], bool):
        raise _BrokenFieldError("id is a truth value")
    name = str(document["id"])
    if _leads_out(name):
        raise _BrokenFieldError(f"id {name[:80]!r} is a path that leads out of any folder")
    _expect(document, "stac_extensions", list, optional=True)
    _check_links(document, optional=kind == "Feature")
    _check_assets(document)
    if kind == "Feature":
        _check_item(document)
    else:
        _expect(document, "description", str)
        if kind == "Collection":
            _expect(document, "keywords", list, optional=True)
            _check_extent(document)


def _leads_out(name: str) -> bool:
    """Tell whether an id is a path that leads out: pystac makes files of ids that it saves."""
    return _UNUSUAL_ID.search(name) is not None and (
        name.startswith(("/", "\\"))
        or ".." in re.split(r"[/\\]", name)
        or re.match(r"[A-Za-z]:[/\\]", name) is not None
        or "\0" in name
    )


def _check_item(document: dict[str, Any]) -> None:
    _expect(document, "properties", dict)
    _expect(document, "geometry", dict, optional=True)
    _expect(document, "bbox", list, optional=True)
    _expect(document, "collection", str, optional=True)
    properties = document["properties"]
    _expect(properties, "datetime", str, optional=True, where="properties.")
    if properties.get("datetime") is None and None in (
        properties.get("start_datetime", properties.get("dtr:start_datetime")),
        properties.get("end_datetime", properties.get("dtr:end_datetime")),
    ):
        raise _BrokenFieldError(
            "properties.datetime is null, and start_datetime and end_datetime do not stand in for "
            "it"
        )


def _check_links(document: dict[str, Any], *, optional: bool) -> None:
    _expect(document, "links", list, optional=optional)
    for index, link in enumerate(document.get("links") or ()):
        if _is_plain_link(link):
            continue
        where = f"links[{index}]"
        if not isinstance(link, dict):
            raise _BrokenFieldError(f"{where} is {_named(link)}, not an object")
        _expect(link, "rel", str, where=f"{where}.")
        _expect(link, "href", str, where=f"{where}.")
        _expect(link, "type", str, optional=True, where=f"{where}.")
        if not link["href"] and link["rel"] in FOLLOWED:
            raise _BrokenFieldError(f"{where}.href is empty")
        try:
            # pystac turns backslashes round, and takes the path apart once more by itself.
            urlsplit(urlsplit(link["href"].replace("\\", "/")).path)
        except ValueError as error:
            raise _BrokenFieldError(f"{where}.href is no URL ({error})") from None


def _check_assets(document: dict[str, Any]) -> None:
    _expect(document, "assets", dict, optional=True)
    for key, asset in (document.get("assets") or {}).items():
        if _is_plain_asset(asset):
            continue
        where = f"assets[{key!r}]"
        if not isinstance(asset, dict):
            raise _BrokenFieldError(f"{where} is {_named(asset)}, not an object")
        _expect(asset, "href", str, where=f"{where}.")
        try:
            # pystac takes it apart when it writes the item.
            urlsplit(asset["href"])
        except ValueError as error:
            raise _BrokenFieldError(f"{where}.href is no URL ({error})") from None
        _expect(asset, "roles", list, optional=True, where=f"{where}.")


def _is_plain_link(link: Any) -> bool:
    """Tell, quickly, whether a link is one of the many that there is nothing to say about."""
    if type(link) is not dict:
        return False
    href = link.get("href")
    return (
        type(href) is str
        and type(link.get("rel")) is str
        and type(link.get("type", "")) is str
        and href.startswith(("http://", "https://"))
        and "[" not in href
        and "]" not in href
        and href.isascii()
    )


def _is_plain_asset(asset: Any) -> bool:
    """Tell, quickly, whether an asset is one of the many that there is nothing to say about."""
    if type(asset) is not dict:
        return False
    href = asset.get("href")
    return (
        type(href) is str
        and type(asset.get("roles", [])) is list
        and "[" not in href
        and "]" not in href
        and href.isascii()
    )


def _check_extent(document: dict[str, Any]) -> None:
    _expect(document, "extent", dict)
    extent = document["extent"]
    for part, field in (("spatial", "bbox"), ("temporal", "interval")):
        _expect(extent, part, dict, where="extent.")
        _expect(extent[part], field, list, where=f"extent.{part}.")


def _expect(
    holder: dict[str, Any],
    field: str,
    types: type | tuple[type, ...],
    *,
    optional: bool = False,
    where: str = "",
) -> None:
    value = holder.get(field)
    if isinstance(value, types) or (value is None and optional):
        return
    if value is None:
        problem = "is missing" if field not in holder else "is null"
        raise _BrokenFieldError(f"{where}{field} {problem}")
    raise _BrokenFieldError(f"{where}{field} is {_named(value)}")


def _named(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")


def _beginning(text: str) -> str:
    # Scrubbed before it is cut: half a secret is still a secret.
    text = " ".join(redact(strip_token_parameters(text[:4096])).split())
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")
