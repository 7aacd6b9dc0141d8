"""With ``only_hosts`` no document, asset or redirect makes us ask a server that is not named."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pystac
import pytest
from stac_documents import a

from stac_gitlab import (
    STACAPI,
    ConfigurationError,
    DownloadError,
    GitLabStacIO,
    RetryPolicy,
    STACDownloader,
    UnreadableItemWarning,
)
from stac_gitlab.reading.listing import list_items
from stac_gitlab.testing import Answer, LoopbackServer

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
def internal(other_server: LoopbackServer, server: LoopbackServer) -> LoopbackServer:
    """A server that `server` would like us to ask."""
    there = other_server.url
    other_server.route("/catalog", a("catalog"))
    other_server.route("/page", {"type": "FeatureCollection", "features": [a("item")], "links": []})
    other_server.route("/data", b"inside")
    server.route("/catalog", a("catalog", links=[{"rel": "child", "href": f"{there}/catalog"}]))
    server.route("/away", lambda _: Answer(302, (("location", f"{there}/catalog"),)))
    server.route("/twice", lambda _: Answer(302, (("location", "/away"),)))
    server.route("/data", lambda _: Answer(302, (("location", f"{there}/data"),)))
    following = {"rel": "next", "href": f"{there}/page"}
    server.route("/items", {"type": "FeatureCollection", "features": [], "links": [following]})
    schema = f"{there}/schema.json"
    assets = {
        "straight": {"href": f"{there}/data", "roles": ["data"]},
        "round": {"href": f"{server.url}/data", "roles": ["data"]},
    }
    server.route("/item", a("item", stac_extensions=[schema], assets=assets))
    return other_server


@pytest.fixture
def confined(server: LoopbackServer) -> Iterator[GitLabStacIO]:
    with GitLabStacIO(only_hosts=[server.url], retry=ONCE) as stac_io:
        pystac.StacIO.set_default(stac_io)
        yield stac_io


def test_neither_links_nor_redirects_nor_pages_lead_to_another_server(
    server: LoopbackServer, internal: LoopbackServer, confined: GitLabStacIO
) -> None:
    for path in ("/away", "/twice"):
        with pytest.raises(ConfigurationError, match=r"only_hosts= does not name http://"):
            confined.read_json(f"{server.url}{path}")
    with pytest.raises(ConfigurationError, match="not requested"):
        confined.read_json(f"{internal.url}/catalog")
    with pytest.raises(ConfigurationError):
        list(list_items(confined, f"{server.url}/items"))
    with pytest.raises(ConfigurationError):
        STACAPI(internal.url, stac_io=confined).conformance()
    catalog = pystac.Catalog.from_file(f"{server.url}/catalog")
    with pytest.warns(UnreadableItemWarning, match="only_hosts= does not name"):
        assert list(catalog.get_children()) == []
    with pytest.raises(Exception, match="only_hosts= does not name"):
        pystac.Item.from_file(f"{server.url}/item").validate()
    assert internal.requests == []


def test_assets_do_not_lead_to_another_server(
    server: LoopbackServer, internal: LoopbackServer, confined: GitLabStacIO, tmp_path: Path
) -> None:
    item = pystac.Item.from_file(f"{server.url}/item")
    downloader = STACDownloader(stac_io=confined)
    with pytest.raises(DownloadError, match="only_hosts= does not name") as caught:
        downloader.download_assets(item, tmp_path)
    assert set(caught.value.errors) == {"straight", "round"}
    for asset in item.assets.values():
        with pytest.raises(ConfigurationError):
            downloader.open(asset, item=item)
    assert internal.requests == []


def test_what_is_named_and_what_gets_the_token_is_asked(
    server: LoopbackServer, internal: LoopbackServer, tmp_path: Path
) -> None:
    for named in ({"base_url": internal.url}, {"hosts": internal.url}, {}):
        own: list[str] = [server.url] if named else [server.url, internal.url]
        with GitLabStacIO("glpat-only-hosts-1", only_hosts=own, retry=ONCE, **named) as stac_io:
            assert stac_io.read_json(f"{server.url}/away")["id"] == "top"
            item = pystac.Item.from_file(f"{server.url}/item", stac_io=stac_io)
            downloader = STACDownloader(stac_io=stac_io)
            assert downloader.download_assets(item, tmp_path, overwrite="always").ok


def test_no_hosts_at_all_means_those_that_get_the_token(
    server: LoopbackServer, internal: LoopbackServer
) -> None:
    with GitLabStacIO(base_url=server.url, only_hosts=[], retry=ONCE) as stac_io:
        assert stac_io.read_json(f"{server.url}/catalog")["id"] == "top"
        with pytest.raises(ConfigurationError):
            stac_io.read_json(f"{server.url}/away")
    assert internal.requests == []


def test_other_spellings_are_not_a_way_around(server: LoopbackServer) -> None:
    with GitLabStacIO(only_hosts="hub.example.org", retry=ONCE) as stac_io:
        for url in (
            f"http://hub.example.org@127.0.0.1:{server.port}/",
            f"http://127.0.0.1:{server.port}\\@hub.example.org/",
            f"http://0:{server.port}/",
            f"http://hub.example.org:{server.port}/",
        ):
            with pytest.raises(ConfigurationError):
                stac_io.read_json(url)
    assert server.requests == []


def test_the_bound_travels_in_a_pickle(server: LoopbackServer, internal: LoopbackServer) -> None:
    with GitLabStacIO(only_hosts=[server.url], retry=ONCE) as stac_io:
        again = pickle.loads(pickle.dumps(stac_io))
    with again, pytest.raises(ConfigurationError, match="only_hosts="):
        again.read_json(f"{server.url}/away")
    assert internal.requests == []
