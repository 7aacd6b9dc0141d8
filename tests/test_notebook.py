"""What objects show in a notebook: escaped, redacted, and aligned to the left."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stac_gitlab import (
    STACAPI,
    AssetResult,
    BatchReport,
    DownloadReport,
    GitLabStacIO,
    MirrorReport,
    PublishReport,
    STACDownloader,
)
from stac_gitlab.errors import DownloadError
from stac_gitlab.notebook import html_table, web_link

CANARY = "glpat-canary-0123456789"
HOSTILE = f"<script>alert(1)</script>\"'&\x1b[2J\u202e?gitlab_token={CANARY}"
URL = f"https://hub.example.org/{HOSTILE}"


class Page(HTMLParser):
    """The tags of a page, the attributes of its links, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.hrefs: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.hrefs += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += f"{data}|"


def hostile_objects() -> list[Any]:
    # Offline, a reader does not create the folder of its cache.
    reader = GitLabStacIO(CANARY, base_url="https://hub.example.org", cache=HOSTILE, offline=True)
    api = STACAPI(URL, stac_io=reader)
    error = DownloadError(f"{HOSTILE}: not found")
    path = Path("out", "<script>'&\"\x1b[2J?#%")
    bad = AssetResult(HOSTILE, URL, path, status="failed", error=error)
    good = AssetResult("good", URL, path, 10, HOSTILE, verified=True)
    report = DownloadReport({HOSTILE: bad, "good": good})
    return [
        reader,
        STACDownloader(stac_io=reader, base_url=URL),
        api,
        api.items(HOSTILE, ids=[HOSTILE], q=HOSTILE, max_items=7),
        bad,
        good,
        report,
        BatchReport({HOSTILE: report}, path),
        MirrorReport(path, failed=1, ids={"failed": (HOSTILE,)}, errors={HOSTILE: error}),
        PublishReport((HOSTILE,), (HOSTILE,), (), (), 5, (), URL, URL),
    ]


@pytest.mark.parametrize("shown", hostile_objects(), ids=lambda shown: type(shown).__name__)
def test_what_an_object_shows_is_escaped_and_holds_no_token(shown: Any) -> None:
    html = shown._repr_html_()
    page = Page(html)
    assert page.tags <= {"table", "caption", "tr", "th", "td", "a"}
    assert page.attributes <= {"style", "href", "rel"}
    assert all(href.startswith(("https://hub.example.org/", "./")) for href in page.hrefs)
    assert html.isprintable()
    assert "canary" not in html
    assert "canary" not in repr(shown)
    assert not re.findall("<t[dh](?! style=.text-align:left)", html)


def test_a_reader_says_which_server_gets_its_token() -> None:
    reader = GitLabStacIO(CANARY, base_url="https://hub.example.org", cache="folder", offline=True)
    text = Page(reader._repr_html_()).text
    assert "token|yes|for|https://hub.example.org|cache|folder|offline|" in text
    assert "token|none" in Page(GitLabStacIO()._repr_html_()).text


def test_an_api_and_a_downloader_show_their_reader() -> None:
    reader = GitLabStacIO(CANARY, base_url="https://hub.example.org")
    api = STACAPI("https://hub.example.org/api/stac", stac_io=reader)
    downloader = STACDownloader(stac_io=reader, base_url="https://hub.example.org", max_workers=3)
    line = "reader|<GitLabStacIO with a token for https://hub.example.org>|"
    assert line in Page(api._repr_html_()).text
    assert f"workers|3|{line}" in Page(downloader._repr_html_()).text


def test_a_query_says_its_collection_its_filters_and_its_limits() -> None:
    api = STACAPI("https://hub.example.org/api/stac", stac_io=GitLabStacIO(page_size=50))
    query = api.items("lakes", bbox=[5, 46, 8, 47], ids=["a", "b"], limit=20, max_items=30)
    assert repr(query) == (
        "<ItemQuery of 'lakes': ids='a,b', bbox='5,46,8,47', limit='20', max_items=30>"
    )
    text = Page(query._repr_html_()).text
    assert "collection|lakes|ids|a,b|bbox|5,46,8,47|limit|20|max_items|30|" in text
    everything = api.items("lakes")
    assert repr(everything) == "<ItemQuery of 'lakes': all items>"
    assert "limit|50 on a page|max_items|all|" in Page(everything._repr_html_()).text


def test_a_mirror_report_shows_counts_examples_and_errors() -> None:
    ids = {"new": ("a", "b", "c", "d", "e")}
    report = MirrorReport(
        Path("out/catalog.json"), new=9, failed=1, ids=ids, errors={"x: k": DownloadError("no")}
    )
    text = Page(report._repr_html_()).text
    assert "catalog|out/catalog.json|items|9 new, 0 changed," in text
    assert "new|9: a, b, c, d, …|x: k|no|" in text


def test_a_publish_report_links_the_project_and_the_item() -> None:
    url = "https://hub.example.org/api/stac/collections/dataset/items/a/b"
    report = PublishReport(("a.csv",), (), (), (), 5, ("1",), "https://gl.example.org/a/b", url)
    page = Page(report._repr_html_())
    assert page.hrefs == ["https://gl.example.org/a/b", url]
    assert "status|5 bytes sent|created|1: a.csv|" in page.text


def test_only_urls_of_servers_become_links() -> None:
    assert "href" not in web_link("javascript:alert(1)")
    assert Page(html_table([[web_link("javascript:alert(1)")]])).text == "javascript:alert(1)|"
