"""What is fuzzed: functions that take bytes from anywhere and may raise errors of ours only.

Each is run by ``run.py`` with atheris for as long as one likes, and by ``tests/test_fuzz.py`` with
a few hundred inputs of hypothesis whenever the tests run.
"""

from __future__ import annotations

import contextlib
import email
import http.client
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urldefrag, urljoin

import pystac

from stac_gitlab.auth import Origin
from stac_gitlab.dialects.gitlab import GitLab
from stac_gitlab.dialects.sharinghub import SharingHub
from stac_gitlab.errors import InvalidResponseError, STACGitLabError, UnsafePathError
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError
from stac_gitlab.files.paths import is_local, relative_path
from stac_gitlab.http.head import ResponseHead
from stac_gitlab.http.rate_headers import retry_after
from stac_gitlab.reading.documents import check_stac, parse_json
from stac_gitlab.reading.objects import explain_pystac_errors
from stac_gitlab.reading.untrusted_links import REMOTE_FILE, secure_links, secure_schema
from stac_gitlab.redaction import (
    quoted,
    redact,
    redact_document,
    remember_secrets,
    strip_token_parameters,
)

__all__ = ["PIECES", "SEEDS", "TARGETS"]

PIECES = [
    *(b"file:", b"FILE://", b"/", b"\\", b"//", b"..", b"C:", b"http:", b"https://h", b"/vsi"),
    *(b"gitlab_token=", b"gitlab%5Ftoken%3D", b"&", b"?", b"#", b"%2F", b"%00", b"\x00", b"\t"),
    *(
        b" ",
        b"[",
        b"]",
        b"@",
        b":",
        b'"',
        b"{",
        b"}",
        b",",
        b"\\u00",
        b"\\ud800",
        b"a-known-secret",
    ),
    *(b"Wed, 01 Jan 2020 00:00:00 GMT", b"9" * 30, b"-1", b"1e9", b"reset=", b"r=0;t=5", b"\n"),
    *(b'"type": "Feature"', b'"stac_version": "1.0.0"', b'"links": []', b'"$ref": "file:///x"'),
    *(b"HTTP/1.1 200 OK\r\n", b"\r\n", b"A: 1\r\n", b" b\r\n", b"\r\n\r\n"),
    *(b'"0.8.1"', b'"0.9.0"', b'"stac_extensions"', b'"$id": "urn:x"', b'"eo"', b"null", b"NaN"),
]
"""Of what inputs are made: words that mean something to one target or another."""

_LINKS = [{"rel": "self", "href": "https://h/a"}, {"rel": "child", "href": "../b"}]
_ITEM = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "stac_extensions": ["eo", "https://stac-extensions.github.io/file/v2.1.0/schema.json"],
    "id": "a",
    "geometry": {"type": "Point", "coordinates": [1, 2]},
    "bbox": [1, 2, 1, 2],
    "properties": {"datetime": "2020-01-01T00:00:00Z", "created": None},
    "collection": "c",
    "links": _LINKS,
    "assets": {"k": {"href": "x?gitlab_token=y", "roles": ["data"], "file:size": 1}},
}
_COLLECTION = {
    "type": "Collection",
    "stac_version": "1.0.0",
    "id": "c",
    "description": "",
    "license": "MIT",
    "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [[None, None]]}},
    "summaries": {"gsd": {"minimum": 1, "maximum": 2}},
    "providers": [{"name": "p", "roles": ["host"]}],
    "links": _LINKS,
}
_OTHERS = [
    {**_ITEM, "stac_version": "0.8.1"},
    {"type": "Catalog", "stac_version": "1.1.0", "id": "t", "description": "", "links": _LINKS},
    {"type": "FeatureCollection", "features": [_ITEM], "links": [{"rel": "next", "href": "?b"}]},
    {"$id": "urn:x", "allOf": [{"$ref": "/x"}, {"id": "file:///y", "$ref": "#/z"}]},
]
SEEDS = [
    *(json.dumps(document).encode() for document in (_ITEM, _COLLECTION, *_OTHERS)),
    b'{"$id": "urn:x", "allOf": [{"id": "fi/: y", "$ref": "#/z"}]}',
    b'{"$id": " urn:x", "allOf": [{"$ref": "/"}, {"$id": "u\\nrn:y", "$ref": "x"}]}',
    json.dumps({**_ITEM, "stac_extensions": ["c\t:/x", " c:/x", "c:\n/x", "c\t:x"]}).encode(),
    b'{"$id": "U", "allOf": [{"id": "/vsif:/", "$ref": "?]/~"}]}',
    b"https://user:pw@hub.example.org:8443/api/download/g/p?ref=main&gitlab_token=glpat-x#y",
    b"https://h/g/p/-/raw/main/a%20b/c.json?inline=false",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200\nA: 1\r\nb:\r\n c\r\nA:  2 \r\n\r\nbody",
    b'120\n1700000000\n"api";r=0;t=55\n60\nWed, 01 Jan 2020 00:00:00 GMT',
    bytes.fromhex("1220" + "00" * 32),
    "data/\N{LATIN SMALL LETTER E WITH ACUTE}\N{RIGHT-TO-LEFT OVERRIDE}/CON.csv".encode(),
]
"""Whole inputs to begin with; what was found goes here as well."""

URL = "https://hub.example.org/api/stac/collections/all/items"


def wait_headers(data: bytes) -> None:
    """Headers that say when to come back."""
    names = ("Retry-After", "RateLimit-Reset", "RateLimit", "X-RateLimit-Reset", "Date")
    parts = data.decode("latin-1").split("\n")
    hint = retry_after(dict(zip(names, parts, strict=False)), rate_limited=True)
    assert hint is None or hint >= 0


def checksums(data: bytes) -> None:
    """The `file:checksum` of an asset."""
    for text in (data.hex(), data.decode("latin-1")):
        with contextlib.suppress(UnknownChecksumError):
            checksum = Checksum.parse(text)
            assert Checksum.parse(str(checksum)) == checksum


def hrefs(data: bytes) -> None:
    """Hrefs, in links and of assets."""
    href = data.decode("utf-8", "surrogateescape")
    Origin.of(href)
    stripped = strip_token_parameters(f"https://h/?gitlab_token=a-known-secret&{href}")
    assert "a-known-secret" not in stripped or "a-known-secret" in href
    document = {"links": [{"rel": "child", "href": href}], "features": [{"links": []}]}
    document["features"][0]["links"] = [{"rel": "self", "href": href}]  # type: ignore[index]
    secure_links(document, url=URL)
    for holder, rel in ((document, "child"), (document["features"][0], "self")):
        got = holder["links"][0]["href"]  # type: ignore[index,call-overload]
        with contextlib.suppress(ValueError):
            if got.startswith(REMOTE_FILE) or not got:
                continue
            absolute = pystac.utils.make_absolute_href(got, URL if rel == "child" else None)
            is_read_as_is = rel == "self" or pystac.utils.is_absolute_href(got)
            assert not is_local(got if is_read_as_is else absolute), (href, got)
    for each in (href, f"https://{href}"):
        item = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": "i",
            "geometry": None,
            "bbox": None,
            "properties": {"datetime": "2024-01-01T00:00:00Z"},
            "links": [{"rel": "self", "href": each}],
            "assets": {"a": {"href": href}},
        }
        with contextlib.suppress(InvalidResponseError):
            secure_links(item, url=URL)
            check_stac(item, url=URL, listed=True)
            pystac.Item.from_dict(item, preserve_dict=True).to_dict()
    with contextlib.suppress(ValueError):
        SharingHub().asset_url(href, key="a", item_id="b", item_url=URL, properties={})
        GitLab().lfs_url(href)
        list(GitLab().request_urls(href))


def keys(data: bytes) -> None:
    """Asset keys, which become file names."""
    key = data.decode("utf-8", "surrogateescape")
    quoted(key)
    with contextlib.suppress(UnsafePathError):
        path = relative_path(key)
        assert not path.startswith("/")
        assert ".." not in path.split("/")


def documents(data: bytes) -> None:
    """Bytes that may be a STAC document."""
    with contextlib.suppress(InvalidResponseError):
        document = parse_json(data, url=URL)
        remember_secrets(["a-known-secret"])
        document = redact_document(document, data, url=URL)
        secure_links(document, url=URL)
        with contextlib.suppress(InvalidResponseError):
            check_stac(document, url=URL)
        assert "a-known-secret" not in json.dumps(document)


def objects(data: bytes) -> None:
    """Documents of which pystac makes objects."""
    # A ValueError is what urllib says of an address that it cannot take apart.
    with (
        contextlib.suppress(STACGitLabError, pystac.STACError, ValueError),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        document = parse_json(data, url=URL)
        secure_links(document, url=URL)
        check_stac(document, url=URL)
        with explain_pystac_errors(URL, document):
            found = pystac.read_dict(document, href=URL)
        json.dumps(found.to_dict(transform_hrefs=False))
        for link in found.links:
            assert not is_local(link.get_absolute_href() or URL), link
        for name in found.stac_extensions:
            schema = getattr(name, "schema", name)
            assert not is_local(pystac.utils.make_absolute_href(schema, None)), name


def schemas(data: bytes) -> None:
    """JSON Schemas, which may refer to others."""
    with contextlib.suppress(InvalidResponseError, ValueError):
        text = secure_schema(data.decode(), url=URL)
        if not text.lstrip("\ufeff \t\r\n").startswith("{"):
            return
        for resource, base in _resources(json.loads(text), URL):
            for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
                reference = resource.get(keyword)
                if isinstance(reference, str):
                    target = urldefrag(urljoin(base, reference))[0]
                    assert not target or not is_local(target), (base, reference)


def _resources(schema: Any, base: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Every object in a schema, with every base that a validator may take for its own."""
    if isinstance(schema, dict):
        bases = {base}
        for keyword in ("$id", "id"):
            if isinstance(schema.get(keyword), str):
                bases.add(urldefrag(urljoin(base, schema[keyword]))[0])
        for one in bases:
            yield schema, one
        for value in schema.values():
            for one in bases:
                yield from _resources(value, one)
    elif isinstance(schema, list):
        for value in schema:
            yield from _resources(value, base)


def heads(data: bytes) -> None:
    """The heads of answers. What is taken for one says the same to the standard library."""
    stream = io.BytesIO(data)
    try:
        head = ResponseHead.read_from(stream)
    except http.client.HTTPException:
        return
    *_, last, _ = re.split(rb"(?<=\n)\r?\n", data[: stream.tell()])
    usual = email.message_from_string(last.partition(b"\n")[2].decode("latin-1")).items()
    assert [(name, value.split()) for name, value in usual] == [
        (name, value.split()) for name, value in head.fields
    ]


def texts(data: bytes) -> None:
    """Whatever is shown to people."""
    text = data.decode("utf-8", "replace")
    remember_secrets(["a-known-secret"])
    assert "a-known-secret" not in redact(f"{text}a-known-secret{text}")
    with contextlib.suppress(InvalidResponseError):
        secure_schema(text, url=URL)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (wait_headers, checksums, hrefs, keys, documents, objects, schemas, heads, texts)
}
