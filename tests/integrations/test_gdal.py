"""The opener for rasterio, without rasterio: `libraries/test_rasters.py` has the rest."""

from __future__ import annotations

import abc
import pickle
import sys
from typing import Any

import pytest
from fault_server import ServedFile

from stac_gitlab import GitLabStacIO, RasterioOpener, gdal_env
from stac_gitlab.errors import ConfigurationError, DownloadError, NotFoundError, RemoteWriteError
from stac_gitlab.integrations import gdal
from stac_gitlab.testing import Answer, LoopbackServer

TOKEN = "glpat-canary-of-the-opener"
CONTENT = bytes(range(256)) * 16_384  # 4 MiB


class FileContainer(abc.ABC):  # noqa: B024  # as in rasterio.abc
    """What rasterio recognises openers by."""


class FakeRasterio:
    class abc:  # noqa: N801  # the name of the module
        FileContainer = FileContainer


@pytest.fixture
def opener(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> RasterioOpener:
    monkeypatch.setattr(gdal, "_rasterio", FakeRasterio)
    return RasterioOpener(GitLabStacIO(TOKEN, base_url=server.url))


def test_rasterio_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setitem(sys.modules, "rasterio.abc", None)
    with pytest.raises(ConfigurationError, match=r"stac-gitlab\[rasters\]"):
        RasterioOpener()
    reader = GitLabStacIO(TOKEN)
    with pytest.raises(ConfigurationError, match="rasters"), gdal_env(reader, "https://a.test"):
        pass


def test_rasterio_recognises_the_opener(opener: RasterioOpener) -> None:
    assert isinstance(opener, FileContainer)
    with pytest.raises(ConfigurationError, match="GitLabStacIO"):
        RasterioOpener("reader")  # type: ignore[arg-type]  # that is the point


def test_one_file_is_opened_many_times_with_one_request(
    opener: RasterioOpener, server: LoopbackServer
) -> None:
    server.route("/a.tif", ServedFile(CONTENT, keeps_ranges=False))
    href = f"{server.url}/a.tif?ref=main"
    one, other = opener.open(href, "rb"), opener.open(href)
    one.seek(5)
    assert other.read(5) == CONTENT[:5]
    assert one.read(5) == CONTENT[5:10]
    assert opener.size(href) == len(CONTENT)
    assert opener.isfile(href)
    assert opener.ls(server.url) == ["a.tif?ref=main"]
    assert len(server.requests) == 1
    one.close()
    other.close()


def test_files_beside_a_raster_are_not_requested(
    opener: RasterioOpener, server: LoopbackServer
) -> None:
    server.route("/a.tif", ServedFile(CONTENT))
    with opener.open(f"{server.url}/a.tif"):
        assert not opener.isfile(f"{server.url}/a.tif.aux.xml")
        assert not opener.isdir(server.url)
    assert len(server.requests) == 1


def test_near_ranges_are_one_request(opener: RasterioOpener, server: LoopbackServer) -> None:
    server.route("/a.tif", ServedFile(CONTENT))
    file: Any = opener.open(f"{server.url}/a.tif")
    offsets, sizes = [3_000_000, 2_000_000, 2_000_150, 10], [100, 100, 50, 5]
    expected = [CONTENT[o : o + s] for o, s in zip(offsets, sizes, strict=True)]
    assert file.get_byte_ranges(offsets, sizes) == expected
    assert len(server.requests) == 3
    file.close()


def test_a_raster_that_changed_can_be_opened_again(
    opener: RasterioOpener, server: LoopbackServer
) -> None:
    route = ServedFile(CONTENT)
    server.route("/a.tif", route)
    with opener.open(f"{server.url}/a.tif") as file:
        route.etag = '"two"'
        file.seek(3_000_000)
        with pytest.raises(DownloadError, match="Open it again"):
            file.read(1)
    with opener.open(f"{server.url}/a.tif") as file:
        file.seek(3_000_000)
        assert file.read(1) == CONTENT[3_000_000:3_000_001]


def test_the_token_stays_with_its_server(
    opener: RasterioOpener, server: LoopbackServer, other_server: LoopbackServer
) -> None:
    other_server.route("/a.tif", ServedFile(CONTENT))
    server.route("/a.tif", lambda _: Answer(302, (("location", f"{other_server.url}/a.tif"),), b""))
    for href in (f"{server.url}/a.tif", f"{other_server.url}/a.tif"):
        with opener.open(href) as file:
            assert file.read(4) == CONTENT[:4]
    assert TOKEN in repr(server.requests[0].headers)
    assert TOKEN not in repr([request.headers for request in other_server.requests])


def test_an_error_is_raised_again_when_gdal_asks_what_there_is(
    opener: RasterioOpener, server: LoopbackServer
) -> None:
    href = f"{server.url}/nothing.tif"
    with pytest.raises(NotFoundError):
        opener.open(href)
    with pytest.raises(DownloadError, match="404 Not Found") as caught:
        opener.isfile(href)
    # rasterio says nothing about these.
    assert not isinstance(caught.value, FileNotFoundError)
    server.route("/nothing.tif", ServedFile(CONTENT))
    opener.open(href).close()
    assert opener.isfile(href)


def test_nothing_is_written(opener: RasterioOpener) -> None:
    for act in (
        lambda: opener.open("https://a.test/a", "wb"),
        lambda: opener.rm("https://a.test/a"),
    ):
        with pytest.raises(RemoteWriteError, match="only be read"):
            act()


def test_a_patched_href_is_a_text_that_brings_its_opener(opener: RasterioOpener) -> None:
    patched = opener.patch_url("https://a.test/a.tif")
    assert patched == "https://a.test/a.tif"
    assert patched.fs.open is opener  # type: ignore[attr-defined]  # what rasterio looks at
    assert TOKEN.encode() not in pickle.dumps(patched)
    assert type(pickle.loads(pickle.dumps(patched))) is type(patched)
    assert type(opener.patch_url("/vsizip/a.zip/a.tif")) is str
