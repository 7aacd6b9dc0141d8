"""Secrets in downloaded files: removed from generated documents, else a warning."""

from __future__ import annotations

import json

import fault_server as faulty
import pytest
from home import Home
from sample_items import BODY, SHA256, TOKEN

from stac_gitlab.download.checked_file import TransferResult
from stac_gitlab.errors import InvalidResponseError, NotFoundError, SecretInFileWarning
from stac_gitlab.testing import Fault


@pytest.mark.parametrize("segments", [1, 4])
@pytest.mark.parametrize("place", [0, 1_000_000 - 7, 3_000_000 - len(TOKEN)])
def test_a_file_that_contains_the_token_is_named_in_a_warning(
    home: Home, place: int, segments: int
) -> None:
    content = bytearray(BODY * 75)
    content[place : place + len(TOKEN)] = TOKEN.encode()
    home.file.content = bytes(content)
    home.server.inject(faulty.cut(1_000_000))
    with pytest.warns(SecretInFileWarning, match=r"'lakes\.bin': the file contains the token"):
        home.download(segments=segments)
    home.assert_there(bytes(content))


def test_a_token_that_arrives_byte_by_byte_is_found(home: Home) -> None:
    home.file.content = f"id;{TOKEN};name".encode()
    home.server.inject(Fault(trickle=(1, 0.0)))
    with pytest.warns(SecretInFileWarning):
        home.download()


def test_a_token_in_the_leftover_of_an_earlier_run_is_found(home: Home) -> None:
    home.file.content = TOKEN.encode() + BODY * 50
    home.server.inject(faulty.cut(1_500_000))
    home.server.inject(Fault(status=404))
    with pytest.raises(NotFoundError):
        home.download()
    with pytest.warns(SecretInFileWarning):
        assert home.download(continuing=True).resumed


def test_a_token_that_was_not_sent_causes_no_warning(home: Home) -> None:
    home.file.content = b"glpat-of-someone-else-0123456789"
    home.download()


def test_a_document_that_the_server_generates_is_saved_without_the_token(home: Home) -> None:
    path = "/api/stac/collections/dataset/items/lakes"
    href = f"https://hub.example.org/a.csv?gitlab_token={TOKEN}&ref=main"
    document = {"type": "Feature", "note": TOKEN, "assets": {"a.csv": {"href": href}}}
    home.server.route(path, document)
    received = home.download(path, key="item", size=7, checksum=SHA256)
    saved = json.loads(home.target.read_text())
    assert saved["assets"]["a.csv"]["href"] == "https://hub.example.org/a.csv?ref=main"
    assert TOKEN not in home.target.read_text()
    assert received == TransferResult(
        home.target.stat().st_size, None, verified=True, resumed=False
    )


def test_a_generated_document_that_is_only_a_text_is_saved_without_the_token(home: Home) -> None:
    home.server.route("/api/stac/search", json.dumps(f"your token is {TOKEN}").encode())
    home.download("/api/stac/search")
    assert json.loads(home.target.read_text()).startswith("your token is ")
    assert TOKEN not in home.target.read_text()


def test_a_generated_document_that_is_not_json_is_an_error(home: Home) -> None:
    home.server.route("/api/stac/search", b"[" * 100_000)
    home.fails(InvalidResponseError, "the document is not JSON", path="/api/stac/search")
