"""The bytes of an answer made a document that pystac can be trusted with.

JSON is read from bytes as UTF-8. What claims to be STAC is checked for the shape that pystac needs,
so that a broken document is an error that names the field, not a ``KeyError`` from the depths.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from stac_gitlab.auth import MASK
from stac_gitlab.errors import InvalidResponseError
from stac_gitlab.sharinghub import strip_token

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # optional: several times as fast

__all__ = ["check_stac", "parse_json", "without_tokens"]

_BOM = b"\xef\xbb\xbf"


def parse_json(body: bytes, *, url: str) -> dict[str, Any]:
    """Return the JSON object that `body` holds.

    Raises:
        InvalidResponseError: If it holds anything else.
    """
    body = body.removeprefix(_BOM)
    try:
        document = _loads(body)
    except UnicodeDecodeError as error:
        raise InvalidResponseError(
            f"{url}: not UTF-8 (at byte {error.start}), so not JSON.", url=url
        ) from None
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            raise InvalidResponseError(
                f"{url}: the answer is empty.", url=url, truncated=True
            ) from None
        if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
            raise InvalidResponseError(
                f"{url}: the JSON ends in the middle, after {len(body)} bytes: the answer was cut "
                "short. Try again.",
                url=url,
                truncated=True,
            ) from None
        raise InvalidResponseError(
            f"{url}: not JSON ({error.msg} at line {error.lineno}, column {error.colno}); it "
            f"begins with {_beginning(error.doc)!r}. Check that the URL is one of the API.",
            url=url,
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidResponseError(f"{url}: JSON that cannot be read: {error}.", url=url) from None
    if not isinstance(document, dict):
        raise InvalidResponseError(
            f"{url}: JSON, but {_named(document)} where an object was expected.", url=url
        )
    return document


def _loads(body: bytes) -> Any:
    if orjson is not None:
        try:
            return orjson.loads(body)
        except ValueError:
            # Stricter than the standard library, which decides: NaN, large integers.
            pass
    return json.loads(body.decode("utf-8"))


def without_tokens(document: dict[str, Any], body: bytes, secrets: Iterable[str]) -> dict[str, Any]:
    """Return the document without ``gitlab_token=…`` and without any of the known `secrets`.

    Args:
        document: What `body` holds.
        body: The bytes it was read from: a search in them tells whether there is work to do.
        secrets: Values that must not stand anywhere in the document.
    """
    known = tuple(secret for secret in secrets if len(secret) >= 8)
    suspicious = (
        b"gitlab_token" in body
        or b"gitlab%" in body
        or b"\\u00" in body
        or any(secret.encode() in body for secret in known)
    )
    if not suspicious:
        return document
    cleaned: dict[str, Any] = _cleaned(document, known)
    return cleaned


def _cleaned(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        value = strip_token(value)
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, dict):
        return {_cleaned(k, secrets): _cleaned(v, secrets) for k, v in value.items()}
    if isinstance(value, list):
        return [_cleaned(v, secrets) for v in value]
    return value


def check_stac(document: dict[str, Any], *, url: str) -> None:
    """Check that a document that claims to be STAC has the shape that pystac needs.

    Documents that make no such claim (a schema, a list of conformance classes) pass.

    Raises:
        InvalidResponseError: If a field is missing or of the wrong type; the message names it.
    """
    kind = document.get("type")
    if kind == "FeatureCollection":
        _expect(document, "features", list, url=url)
        return
    if "stac_version" not in document:
        if kind in ("Catalog", "Collection") or (kind == "Feature" and "assets" in document):
            _fail(document, "stac_version", "is missing", url=url)
        return
    _expect(document, "stac_version", str, url=url)
    _expect(document, "id", (str, int), url=url)
    _expect(document, "stac_extensions", list, url=url, optional=True)
    _check_links(document, url=url, optional=kind == "Feature")
    _check_assets(document, url=url)
    if kind == "Feature":
        _check_item(document, url=url)
    else:
        _expect(document, "description", str, url=url)
        if kind == "Collection":
            _check_extent(document, url=url)


def _check_item(document: dict[str, Any], *, url: str) -> None:
    _expect(document, "properties", dict, url=url)
    _expect(document, "geometry", dict, url=url, optional=True)
    _expect(document, "bbox", list, url=url, optional=True)
    _expect(document, "collection", str, url=url, optional=True)
    properties = document["properties"]
    _expect(properties, "datetime", str, url=url, optional=True, where="properties.")
    if properties.get("datetime") is None and None in (
        properties.get("start_datetime", properties.get("dtr:start_datetime")),
        properties.get("end_datetime", properties.get("dtr:end_datetime")),
    ):
        _fail(
            document,
            "properties.datetime",
            "is null, and start_datetime and end_datetime do not stand in for it",
            url=url,
        )


def _check_links(document: dict[str, Any], *, url: str, optional: bool) -> None:
    _expect(document, "links", list, url=url, optional=optional)
    for index, link in enumerate(document.get("links") or ()):
        where = f"links[{index}]"
        if not isinstance(link, dict):
            _fail(document, where, f"is {_named(link)}, not an object", url=url)
        _expect(link, "rel", str, url=url, where=f"{where}.")
        _expect(link, "href", str, url=url, where=f"{where}.")


def _check_assets(document: dict[str, Any], *, url: str) -> None:
    _expect(document, "assets", dict, url=url, optional=True)
    for key, asset in (document.get("assets") or {}).items():
        where = f"assets[{key!r}]"
        if not isinstance(asset, dict):
            _fail(document, where, f"is {_named(asset)}, not an object", url=url)
        _expect(asset, "href", str, url=url, where=f"{where}.")
        _expect(asset, "roles", list, url=url, optional=True, where=f"{where}.")


def _check_extent(document: dict[str, Any], *, url: str) -> None:
    _expect(document, "extent", dict, url=url)
    extent = document["extent"]
    for part, field in (("spatial", "bbox"), ("temporal", "interval")):
        _expect(extent, part, dict, url=url, where="extent.")
        _expect(extent[part], field, list, url=url, where=f"extent.{part}.")


def _expect(
    holder: dict[str, Any],
    field: str,
    types: type | tuple[type, ...],
    *,
    url: str,
    optional: bool = False,
    where: str = "",
) -> None:
    value = holder.get(field)
    if value is None and optional:
        return
    if value is None:
        _fail(
            holder, f"{where}{field}", "is missing" if field not in holder else "is null", url=url
        )
    if not isinstance(value, types):
        _fail(holder, f"{where}{field}", f"is {_named(value)}", url=url)


def _fail(holder: dict[str, Any], field: str, problem: str, *, url: str) -> None:
    name = holder.get("id")
    about = f" (id {name!r})" if isinstance(name, str) else ""
    raise InvalidResponseError(
        f"{url}: not valid STAC{about}: {field} {problem}. Whoever maintains the catalog has to "
        "mend it.",
        url=url,
    )


def _named(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")


def _beginning(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:60]}…"
