"""What is fuzzed: functions that take bytes from anywhere and may raise errors of ours only.

Each is run by ``run.py`` with atheris for as long as one likes, and by ``tests/test_fuzz.py`` with
a few hundred inputs of hypothesis whenever the tests run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pystac

from stac_gitlab.auth import Origin, scrub
from stac_gitlab.confinement import REMOTE_FILE, confine, confined_schema, is_local_path
from stac_gitlab.documents import check_stac, parse_json, without_tokens
from stac_gitlab.errors import InvalidResponseError, UnsafePathError
from stac_gitlab.gitlab import GitLab
from stac_gitlab.multihash import Checksum, UnknownChecksumError
from stac_gitlab.names import relative_path, shown
from stac_gitlab.retry import wait_hint
from stac_gitlab.sharinghub import SharingHub, strip_token

__all__ = ["TARGETS"]

URL = "https://hub.example.org/api/stac/collections/all/items"


def wait_headers(data: bytes) -> None:
    """Headers that say when to come back."""
    names = ("Retry-After", "RateLimit-Reset", "RateLimit", "X-RateLimit-Reset", "Date")
    parts = data.decode("latin-1").split("\n")
    hint = wait_hint(dict(zip(names, parts, strict=False)), rate_limited=True)
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
    assert "gitlab_token=x" not in strip_token(f"https://h/?gitlab_token=x&{href}").split("&")[0]
    document = {"links": [{"rel": "child", "href": href}], "features": [{"links": []}]}
    document["features"][0]["links"] = [{"rel": "self", "href": href}]  # type: ignore[index]
    confine(document, url=URL)
    for holder, rel in ((document, "child"), (document["features"][0], "self")):
        got = holder["links"][0]["href"]  # type: ignore[index,call-overload]
        with contextlib.suppress(ValueError):
            if got.startswith(REMOTE_FILE) or not got:
                continue
            absolute = pystac.utils.make_absolute_href(got, URL if rel == "child" else None)
            is_read_as_is = rel == "self" or pystac.utils.is_absolute_href(got)
            assert not is_local_path(got if is_read_as_is else absolute), (href, got)
    with contextlib.suppress(ValueError):
        SharingHub().asset_url(href, key="a", item_id="b", item_url=URL, properties={})
        GitLab().lfs_url(href)
        list(GitLab().request_urls(href))


def keys(data: bytes) -> None:
    """Asset keys, which become file names."""
    key = data.decode("utf-8", "surrogateescape")
    shown(key)
    with contextlib.suppress(UnsafePathError):
        path = relative_path(key)
        assert not path.startswith("/")
        assert ".." not in path.split("/")


def documents(data: bytes) -> None:
    """Bytes that may be a STAC document."""
    with contextlib.suppress(InvalidResponseError):
        document = parse_json(data, url=URL)
        document = without_tokens(document, data, ["a-known-secret"], url=URL)
        confine(document, url=URL)
        check_stac(document, url=URL)
        assert "a-known-secret" not in json.dumps(document)


def texts(data: bytes) -> None:
    """Whatever is shown to people."""
    text = data.decode("utf-8", "replace")
    assert "a-known-secret" not in scrub(f"{text}a-known-secret{text}", ["a-known-secret"])
    with contextlib.suppress(InvalidResponseError):
        confined_schema(text, url=URL)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (wait_headers, checksums, hrefs, keys, documents, texts)
}
