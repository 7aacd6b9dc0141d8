"""One token, everything that the package can do, and a hub that wants the token to get around.

The hub writes the token that it got into whatever it answers: hrefs, bodies, headers, redirects.
The token may be in the requests to the hub, and nowhere else.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pystac
import pytest
import requests
import requests_mock
from pystac.item_collection import ItemCollection
from stac_documents import a
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

import stac_gitlab
from stac_gitlab import (
    STACAPI,
    ConfigurationError,
    GitLabStacIO,
    NetworkError,
    RetryPolicy,
    STACDownloader,
    STACGitLabError,
    materialize,
)
from stac_gitlab.cli import main
from stac_gitlab.http import transport
from stac_gitlab.reading.listing import list_items
from stac_gitlab.search import GitLabStacApiIO, open_client
from stac_gitlab.testing import Answer, Fault, LoopbackServer, RecordedRequest

CANARY = "glpat-Canary+Bird/0123456789=="
SPELLINGS = (CANARY, quote(CANARY, safe=""), quote(CANARY), json.dumps(CANARY)[1:-1])

IMPATIENT = RetryPolicy(max_attempts=2, backoff_base=0)


def leaks(text: str) -> bool:
    return any(spelling in text for spelling in SPELLINGS)


class Hub(LoopbackServer):
    """A SharingHub that shows its callers' tokens to everyone."""

    def __init__(self, elsewhere: LoopbackServer) -> None:
        super().__init__()
        self.elsewhere = elsewhere

    def answer(self, request: RecordedRequest) -> Answer:
        answer = self._answer(request)
        echo = {"x-your-token": CANARY, "set-cookie": f"session={CANARY}; Path=/"}
        link = f'<{self.elsewhere.url}/next?gitlab_token={CANARY}>; rel="next"'
        return answer.with_headers({**echo, "link": link, "etag": f'"{CANARY}"'})

    def _answer(self, request: RecordedRequest) -> Answer:
        path = request.path
        token = f"gitlab_token={CANARY}"
        if path.startswith("/api/stac/fail/"):
            status = int(path.rpartition("/")[2])
            body = {"detail": f"your token {CANARY} at {self.url}/x?{token}", "token": CANARY}
            return _json(body, status)
        if path == "/api/stac/html":
            page = f"<html><title>Sign in</title>{CANARY}</html>"
            return Answer(200, (("content-type", "text/html"),), page.encode())
        if path == "/api/stac/cut":
            return Answer(200, (), f'{{"a": "{CANARY}'.encode())
        if path == "/api/stac/broken":
            return _json({"type": "Feature", "stac_version": "1.0.0", "id": CANARY, "links": [1]})
        if path.startswith("/api/stac/leave"):
            return Answer(302, (("location", f"{self.elsewhere.url}/caught?{token}"),))
        if path.startswith("/api/stac/stray"):
            host = self.url.removeprefix("http://")
            return Answer(302, (("location", f"http://{CANARY}@{host}/api/stac/item?{token}"),))
        if path == "/api/download/p/repository/data.csv":
            return Answer(200, (), b"id,name\n1,lake\n")
        if path == "/api/download/p/repository/lost.csv":
            return _json({"detail": f"{CANARY} may not"}, 403)
        if path == "/api/download/p/repository/away.csv":
            return Answer(302, (("location", f"{self.elsewhere.url}/data?{token}"),))
        documents = {
            "/api/stac": self.catalog,
            "/api/stac/": self.catalog,
            "/api/stac/collections": lambda: {"collections": [self.collection()], "links": []},
            "/api/stac/collections/all": self.collection,
            "/api/stac/collections/all/items": self.page,
            "/api/stac/item": self.item,
        }
        made = documents.get(path)
        return _json({"detail": f"no {path} for {CANARY}"}, 404) if made is None else _json(made())

    def catalog(self) -> dict[str, Any]:
        token = f"?gitlab_token={CANARY}"
        foreign = self.elsewhere.url
        base = f"{self.url}/api/stac"
        links = [
            {"rel": "self", "href": f"{base}{token}"},
            {"rel": "root", "href": f"{base}{token}"},
            {"rel": "data", "href": f"{base}/collections{token}"},
            {"rel": "child", "href": f"{base}/collections/all{token}"},
            {"rel": "child", "href": f"{foreign}/child{token}"},
            {"rel": "child", "href": f"{foreign.replace('://', f'://{CANARY}@')}/child2"},
            {"rel": "item", "href": f"{foreign}/item{token}"},
        ]
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "hub",
            "description": f"![image]({base}/a.png{token}) {CANARY}",
            "conformsTo": [],
            "links": links,
        }

    def collection(self) -> dict[str, Any]:
        base = f"{self.url}/api/stac/collections/all"
        token = f"?gitlab_token={CANARY}"
        return {
            **self.catalog(),
            "type": "Collection",
            "id": "all",
            "license": "MIT",
            "extent": {
                "spatial": {"bbox": [[0, 0, 1, 1]]},
                "temporal": {"interval": [[None, None]]},
            },
            "links": [
                {"rel": "self", "href": f"{base}{token}"},
                {"rel": "root", "href": f"{self.url}/api/stac"},
                {"rel": "items", "href": f"{base}/items{token}"},
            ],
        }

    def page(self) -> dict[str, Any]:
        following = {
            "rel": "next",
            "href": f"{self.elsewhere.url}/next?gitlab_token={CANARY}&page=2",
            "headers": {"X-Echo": CANARY, "Authorization": f"Bearer {CANARY}"},
            "body": {"token": CANARY},
        }
        broken = {"type": "Feature", "id": CANARY, "links": [], "assets": {"a": CANARY}}
        items = [self.item(), self.item("lakes/other"), broken]
        return {"type": "FeatureCollection", "features": items, "links": [following]}

    def item(self, item_id: str = "lakes") -> dict[str, Any]:
        token = f"gitlab_token={CANARY}"
        files = f"{self.url}/api/download/p/repository"
        foreign = self.elsewhere.url
        port = self.elsewhere.port
        hrefs = {
            "good": f"{files}/data.csv?ref=main&{token}",
            "lost": f"{files}/lost.csv?{token}&ref=main",
            "away": f"{files}/away.csv?ref=main",
            "foreign": f"{foreign}/data?{token}",
            "look-alike": f"http://127.0.0.1.localhost:{port}/data?{token}",
            "user-info": f"http://{self.url[7:]}@127.0.0.1:{port}/data",
            "token as user": f"http://{CANARY}:x@127.0.0.1:{port}/data",
            "backslash": f"http://127.0.0.1:{port}\\@{self.url[7:]}/data",
            "upper case": f"HTTP://LOCALHOST:{port}/data?{token}",
        }
        assets = {
            key: {
                "href": href,
                "roles": ["data"],
                "title": f"{CANARY} {key}",
                "alternate": {"far": {"href": f"{foreign}/far?{token}"}},
            }
            for key, href in hrefs.items()
        }
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": item_id,
            "geometry": None,
            "properties": {"datetime": "2020-01-01T00:00:00Z", "description": CANARY},
            "collection": "all",
            "links": [
                {"rel": "self", "href": f"{self.url}/api/stac/item?{token}"},
                {"rel": "preview", "href": f"{self.url}/preview?{token}"},
                {"rel": "collection", "href": f"{self.url}/api/stac/collections/all?{token}"},
                {"rel": "derived_from", "href": f"{foreign}/origin?{token}"},
            ],
            "assets": assets,
        }


def _json(document: Any, status: int = 200) -> Answer:
    return Answer(status, (("content-type", "application/json"),), json.dumps(document).encode())


class Listener:
    """Collects everything that a person or a log may get to see."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def hear(self, where: str, thing: object) -> None:
        self.heard.append((where, thing if isinstance(thing, str) else repr(thing)))

    def look_into(self, where: str, thing: Any, *, depth: int = 6) -> None:
        """Hear what an object shows of itself and of what it is made of, as a debugger would."""
        seen: set[int] = set()

        def look(at: Any, name: str, left: int) -> None:
            if name.endswith(".headers") and at and "X-Mine" in at:
                return  # the user's own dictionary, which is theirs to read
            if id(at) in seen or isinstance(at, (type, int, float, bool, type(None))):
                return
            seen.add(id(at))
            with contextlib.suppress(RecursionError):
                self.hear(name, f"{at!r} {at!s}")
            if not left:
                return
            inside = dict(vars(at)) if hasattr(at, "__dict__") else {}
            if isinstance(at, dict):
                inside.update({repr(key): value for key, value in at.items()})
            elif isinstance(at, (list, tuple, set, frozenset)):
                inside.update({str(number): value for number, value in enumerate(at)})
            for key, value in inside.items():
                ours = type(value).__module__.startswith(("stac_gitlab", "pystac", "requests"))
                if ours or isinstance(value, (str, bytes, dict, list, tuple, set, frozenset)):
                    look(value, f"{name}.{key}", left - 1)

        look(thing, where, depth)

    def hear_error(self, where: str, error: BaseException) -> None:
        self.look_into(where, error)
        progress = traceback.TracebackException.from_exception(error, capture_locals=True)
        # The frames of this module hold the token, because they sent it.
        for part in _chain(progress):
            part.stack = traceback.StackSummary.from_list(
                [frame for frame in part.stack if frame.filename != __file__]
            )
            for frame in part.stack:
                for name, redacted in (frame.locals or {}).items():
                    self.hear(f"{where}: local {name} in {frame.filename}:{frame.name}", redacted)
        self.hear(where, "".join(progress.format()))
        response = getattr(error, "response", None)
        if response is not None:
            asked = response.request
            self.hear(where, f"{response.headers} {response.text} {response.url}")
            self.hear(where, f"{asked.headers} {asked.url} {asked.body!r}")
        with contextlib.suppress(TypeError, AttributeError, pickle.PicklingError):
            self.hear(f"{where} pickled", pickle.dumps(error).decode("latin-1"))

    def attempt(self, where: str, action: Callable[[], Any]) -> Any:
        try:
            done = action()
        except (STACGitLabError, pystac.STACError, NotImplementedError) as error:
            self.hear_error(where, error)
            return None
        self.look_into(where, done, depth=4)
        return done

    def assert_nothing_leaked(self) -> None:
        leaked = [(where, text) for where, text in self.heard if leaks(text)]
        redacted = "\n".join(f"{where}: …{_around(text)}…" for where, text in leaked[:20])
        assert not leaked, f"{len(leaked)} of {len(self.heard)}:\n{redacted}"


def _chain(progress: traceback.TracebackException | None) -> Iterator[traceback.TracebackException]:
    while progress is not None:
        yield progress
        progress = progress.__cause__ or progress.__context__


def _around(text: str) -> str:
    at = min(text.find(spelling) for spelling in SPELLINGS if spelling in text)
    return text[max(0, at - 60) : at + 60]


class Handler(logging.Handler):
    def __init__(self, listener: Listener) -> None:
        super().__init__(logging.DEBUG)
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        self._listener.hear(f"log {record.name}", f"{record.getMessage()} {record.args}")
        if record.exc_info and record.exc_info[1] is not None:
            self._listener.hear_error(f"log {record.name}", record.exc_info[1])


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    handler = Handler(made)
    loggers = [logging.getLogger(name) for name in ("", "stac_gitlab", "urllib3", "pystac")]
    before = [one.level for one in loggers]
    loggers[0].addHandler(handler)
    for one in loggers:
        one.setLevel(logging.DEBUG)
    try:
        yield made
    finally:
        loggers[0].removeHandler(handler)
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)


@pytest.fixture
def hub(other_server: LoopbackServer) -> Iterator[Hub]:
    foreign: dict[str, Any] = {"type": "Catalog", "stac_version": "1.0.0", "id": "f"}
    foreign.update(description="", links=[{"rel": "child", "href": "/unauthorized"}])
    for path in ("/child", "/child2", "/caught"):
        other_server.route(path, foreign)
    cookies = {"set-cookie": "tracker=1; Domain=127.0.0.1; Path=/"}
    other_server.route("/data", b"foreign", headers=cookies)
    with Hub(other_server) as running:
        yield running


def read_everything(listener: Listener, hub: Hub, stac_io: GitLabStacIO) -> pystac.Item:
    base = f"{hub.url}/api/stac"
    root = listener.attempt("catalog", lambda: pystac.Catalog.from_file(base))
    with_token = f"{base}?gitlab_token={CANARY}"
    listener.attempt("catalog with a token", lambda: pystac.Catalog.from_file(with_token))
    listener.attempt("children", lambda: list(root.get_children()))
    listener.attempt("walk", lambda: list(root.walk()))
    listener.attempt("a child", lambda: root.get_child("nobody"))
    collection = pystac.Collection.from_file(f"{base}/collections/all")
    listener.look_into("collection", collection)
    listener.attempt("items", lambda: list(collection.get_items()))
    listener.attempt("items by id", lambda: list(collection.get_items("lakes")))
    listener.attempt("a page", lambda: ItemCollection.from_file(f"{base}/collections/all/items"))
    listener.attempt("a text", lambda: stac_io.read_text(f"{base}/item"))
    listener.attempt("a private page", lambda: stac_io.read_json(f"{base}/collections/all/items"))
    for name in ("html", "cut", "broken", "leave", "stray", "nowhere"):
        listener.attempt(name, lambda name=name: pystac.read_file(f"{base}/{name}"))
    for status in (400, 401, 403, 404, 409, 418, 422, 429, 500, 502, 503):
        url = f"{base}/fail/{status}"
        listener.attempt(str(status), lambda url=url: stac_io.read_json(url))
        listener.attempt(f"{status} of a page", lambda url=url: list(list_items(stac_io, url)))
    api = STACAPI(base, stac_io=stac_io)
    listener.look_into("api", api)
    listener.attempt("api items", lambda: list(api.items("all")))
    listener.attempt("api dicts", lambda: list(api.items("all", bbox=[0, 0, 1, 1]).to_dicts()))
    listener.attempt("api item", lambda: api.item("all", "lakes"))
    listener.attempt("api collections", lambda: list(api.collections()))
    listener.attempt("api create", lambda: api.create_item("all", {"type": "Feature", "id": "x"}))
    item = pystac.Item.from_file(f"{base}/item")
    listener.look_into("item", item)
    listener.hear("item as JSON", json.dumps(item.to_dict()))
    for link in item.links:
        listener.attempt(link.rel, lambda link=link: link.resolve_stac_object())
    listener.attempt("write", lambda: stac_io.write_text(f"{base}/x", "x"))
    return item


class Bars:
    """A progress of the user's own, which writes down all that it is told."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *a, **k: self._listener.hear(f"progress {name}", f"{a} {k}")


def download_everything(
    listener: Listener, stac_io: GitLabStacIO, item: pystac.Item, folder: Path
) -> None:
    downloader = STACDownloader(stac_io=stac_io, progress=Bars(listener))  # type: ignore[arg-type]
    listener.look_into("downloader", downloader)
    actions: dict[str, Callable[[], Any]] = {
        "dry": lambda: downloader.download_assets(item, folder / "a", dry_run=True),
        "all": lambda: downloader.download_assets(item, folder / "a"),
        "again": lambda: downloader.download_assets(item, folder / "a"),
        "good": lambda: downloader.download_assets(item, folder / "g", include="good"),
        "bars": lambda: downloader.download_assets(
            item, folder / "b", include="good", progress="force"
        ),
        "far": lambda: downloader.download_assets(item, folder / "f", alternates=["far"]),
        "item": lambda: downloader.download_item(item, folder / "i", include="good"),
        "items": lambda: downloader.download_items([item, copy.deepcopy(item)], folder / "m"),
    }
    for name, action in actions.items():
        listener.attempt(f"download {name}", action)
    for key, asset in item.assets.items():

        def read(asset: pystac.Asset = asset) -> bytes:
            with downloader.open(asset, item=item) as file:
                return file.read()

        listener.attempt(f"open {key}", read)


def test_the_token_is_in_the_requests_to_its_own_hub_and_nowhere_else(
    listener: Listener,
    hub: Hub,
    other_server: LoopbackServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password of-my-own\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    folder = tmp_path / "work"
    folder.mkdir()
    stac_io = GitLabStacIO(
        CANARY, base_url=f"{hub.url}/some/path", headers={"X-Mine": CANARY}, retry=IMPATIENT
    )
    with stac_io, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        pystac.StacIO.set_default(stac_io)
        listener.attempt("an unlucky pickle", lambda: pickle.loads(pickle.dumps(stac_io)))
        item = read_everything(listener, hub, stac_io)
        download_everything(listener, stac_io, item, folder)
        collection = pystac.Collection.from_file(f"{hub.url}/api/stac/collections/all")
        with contextlib.suppress(STACGitLabError):
            materialize(collection, max_items=2).normalize_and_save(
                str(folder / "saved"), pystac.CatalogType.SELF_CONTAINED
            )
        for name, thing in (("reader", stac_io), ("item", item), ("collection", collection)):
            listener.hear(f"pickled {name}", pickle.dumps(thing).decode("latin-1"))
        listener.hear("credentials", f"{stac_io.credentials!r} {stac_io!r} {stac_io.session!r}")
        private = {n: v for n, v in vars(stac_io.credentials).items() if n != "headers"}
        listener.hear("vars", f"{vars(stac_io.session)} {private}")
    for warning in warned:
        listener.hear("warning", f"{warning.message} {warning.source}")
    listener.hear("output", "".join(capfd.readouterr()))
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        listener.hear(f"file {path}", path.read_bytes().decode("latin-1"))
        listener.hear("file name", str(path))
    for request in other_server.requests:
        listener.hear(f"request for {request.path}", f"{request.target} {request.headers!r}")
        listener.hear(f"request for {request.path}", request.body.decode("latin-1"))
        assert "cookie" not in request.headers
    # The other half of the promise, without which all of this would prove nothing.
    assert any(leaks(str(dict(request.headers))) for request in hub.requests)
    assert not any(leaks(request.target) for request in hub.requests)
    assert not any("cookie" in request.headers for request in hub.requests)
    assert len(other_server.requests) > 5
    assert any(path.name == "good" for path in files)
    listener.assert_nothing_leaked()


@pytest.mark.parametrize(
    "path",
    ["", "/api/stac/fail/401", "/api/stac/html", "/api/stac/cut", "/api/stac/leave"],
)
def test_the_command_line_does_not_show_the_token(
    path: str,
    listener: Listener,
    hub: Hub,
    other_server: LoopbackServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STAC_GITLAB_TOKEN", CANARY)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    arguments = ["demo", "--url", f"{hub.url}{path}", "--output", str(tmp_path / "out"), "-v"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = main(arguments)
    assert code == 1
    listener.hear("output", "".join(capfd.readouterr()))
    listener.hear("requests", f"{[(r.target, dict(r.headers)) for r in other_server.requests]}")
    listener.assert_nothing_leaked()
    assert any(leaks(str(dict(request.headers))) for request in hub.requests)
    assert [name for name, value in os.environ.items() if leaks(value)] == ["STAC_GITLAB_TOKEN"]


LOOK_ALIKES = (
    "https://hub.example.org.evil.test/x",
    "https://hub.example.org@evil.test/x",
    "https://hub.example.org:443@evil.test/x",
    "https://evil.test/https://hub.example.org/x",
    "https://evil.test#@hub.example.org/x",
    "https://evil.test?@hub.example.org/x",
    "https://evil.test\\@hub.example.org/x",
    "https://hub.example.org:8443/x",
    "https://hub.example.org%2eevil.test/x",
    "https://hub.example.org%00.evil.test/x",
    "http://hub.example.org/x",
    "http://hub.example.org:443/x",
    "https://xn--hub-example-org.test/x",
    "https://hub\N{FULLWIDTH FULL STOP}example.org.evil.test/x",
    "https://h\N{CYRILLIC SMALL LETTER U}b.example.org/x",
    "https://sub.hub.example.org/x",
    "https://example.org/x",
    "https://hub\N{IDEOGRAPHIC FULL STOP}example.org/x",
    "//evil.test/x",
    "https:evil.test/x",
    "https:/evil.test/x",
    "https:///evil.test/x",
    "https://someone@hub.example.org/x",
    "https://hub.example.org\\@evil.test/x",
    "https://hub.example.org\\.evil.test/x",
    "https://evil.test\t@hub.example.org/x",
    "https://hub.example.org\r\n.evil.test/x",
    "https://hub.example.org/\\@evil.test/x",
    "https:\\\\evil.test/x",
    "https://hub.example.org\x00/x",
)

OWN_SPELLINGS = (
    "https://hub.example.org/x",
    "https://HUB.EXAMPLE.ORG/x",
    "https://hub.example.org:443/x",
    "https://hub.example.org./x",
    "HTTPS://hub.example.org/x",
)


def host_reached(request: requests.PreparedRequest) -> tuple[str, str, int | None]:
    """Where urllib3 would connect to, which is what counts."""
    try:
        asked = parse_url(request.url or "")
    except LocationParseError:
        return "nowhere", "", None
    return asked.scheme or "", (asked.host or "").rstrip(".").lower(), asked.port


@pytest.mark.parametrize("how", ["read", "redirect", "next", "asset"])
@pytest.mark.parametrize("url", [*LOOK_ALIKES, *OWN_SPELLINGS])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_wherever_a_look_alike_is_met_only_the_hub_itself_gets_the_token(
    url: str, how: str, tmp_path: Path
) -> None:
    base = "https://hub.example.org"
    page = {"type": "FeatureCollection", "features": [], "links": []}
    following = {**page, "links": [{"rel": "next", "href": url}]}
    item = a("item", assets={"a": {"href": url, "roles": ["data"]}})
    with (
        requests_mock.Mocker() as net,
        GitLabStacIO(CANARY, base_url=f"{base}/gitlab/path", retry=IMPATIENT) as stac_io,
    ):
        net.get(requests_mock.ANY, json=page)
        net.get(f"{base}/start", status_code=302, headers={"Location": url.encode().decode("l1")})
        net.get(f"{base}/items", json=following)
        net.get(f"{base}/item", json=item)
        with contextlib.suppress(STACGitLabError, FileNotFoundError):
            if how == "read":
                stac_io.read_json(url)
            elif how == "redirect":
                stac_io.read_json(f"{base}/start")
            elif how == "next":
                list(list_items(stac_io, f"{base}/items"))
            else:
                found = pystac.Item.from_file(f"{base}/item", stac_io=stac_io)
                STACDownloader(stac_io=stac_io).download_assets(found, tmp_path)
        for request in net.request_history:
            own = host_reached(request) in (
                ("https", "hub.example.org", None),
                ("https", "hub.example.org", 443),
            )
            assert leaks(" ".join(request.headers.values())) == own, request.url
            assert not leaks(request.url)
        if url in OWN_SPELLINGS:
            assert net.request_history


def test_a_proxy_gets_the_request_but_an_error_of_it_does_not_show_its_password(
    listener: Listener, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = server.url.replace("://", f"://user:{quote(CANARY, safe='')}@")
    monkeypatch.setenv("http_proxy", proxy)
    server.inject(Fault(status=407, times=None, body=f"not with {CANARY}".encode()))
    with (
        GitLabStacIO("glpat-quite-another", base_url="http://127.0.0.2", retry=IMPATIENT) as reader,
        pytest.raises(STACGitLabError) as caught,
    ):
        reader.read_json("http://127.0.0.2/api/stac")
    assert "proxy-authorization" in server.requests[0].headers
    listener.hear_error("proxy", caught.value)
    heard = "".join(text for _, text in listener.heard)
    assert "glpat-quite-another" not in heard
    assert quote(CANARY, safe="") not in heard


@pytest.mark.parametrize("raised", [KeyboardInterrupt, MemoryError, SystemExit, ZeroDivisionError])
@pytest.mark.parametrize("where", ["connect", "readinto"])
def test_what_interrupts_a_request_does_not_show_the_token_in_its_frames(
    raised: type[BaseException],
    where: str,
    listener: Listener,
    server: LoopbackServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise raised

    server.route("/x", a("item"))
    item = pystac.Item.from_dict(a("item"))
    item.add_asset("a", pystac.Asset(f"{server.url}/x", roles=["data"]))
    owner = transport.DeadlineConnection if where == "connect" else transport._DeadlineReader
    with GitLabStacIO(CANARY, base_url=server.url, retry=IMPATIENT) as stac_io:
        actions: list[Callable[[], Any]] = [
            lambda: stac_io.read_json(f"{server.url}/x"),
            lambda: STACDownloader(stac_io=stac_io).download_assets(item, tmp_path),
            lambda: STACDownloader(stac_io=stac_io).open(item.assets["a"], item=item),
        ]
        for action in actions:
            with monkeypatch.context() as patched:
                patched.setattr(owner, where, interrupt)
                try:
                    action()
                except BaseException as error:  # noqa: BLE001  # any of them
                    listener.hear_error(where, error)
            stac_io.close()
    assert listener.heard
    listener.assert_nothing_leaked()


REFUSED: dict[str, dict[str, Any]] = {
    "a page of nothing": {"page_size": 0},
    "no host": {"base_url": "*"},
    "no hosts": {"hosts": 5},
    "no header": {"header": ":"},
    "no policy": {"retry": "often"},
    "no timeout": {"timeout": 0},
    "a token with a line break": {"token": f"{CANARY}\nand more"},
    "a token in a list": {"token": [CANARY]},
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED.keys())
def test_an_error_about_an_argument_does_not_show_the_token_in_its_frames(
    arguments: dict[str, Any], listener: Listener
) -> None:
    wished = {"token": CANARY, **arguments}
    makers: list[Callable[[], Any]] = [
        lambda: GitLabStacIO(**wished),
        lambda: open_client("https://hub.example.org", **wished),
        lambda: GitLabStacApiIO(
            wished["token"], **{name: value for name, value in wished.items() if name != "token"}
        ),
    ]
    if set(arguments) <= {"base_url", "token", "retry"}:
        downloads = {"auth_token" if n == "token" else n: v for n, v in wished.items()}
        makers.append(lambda: STACDownloader(**downloads))
    for maker in makers:
        with pytest.raises(ConfigurationError) as caught:
            maker()
        listener.hear_error("constructor", caught.value)
    assert listener.heard
    listener.assert_nothing_leaked()


@pytest.mark.parametrize(
    "headers", [{"X-Gitlab-Token": f"{CANARY}\nx"}, {"Authorization": f"Bearer {CANARY}\x7f"}]
)
def test_an_error_about_a_header_does_not_show_it_in_its_frames(
    headers: dict[str, str], listener: Listener, server: LoopbackServer
) -> None:
    with GitLabStacIO(headers=headers, base_url=server.url) as stac_io:
        repr(stac_io)
        with pytest.raises(ConfigurationError) as caught:
            stac_io.read_json(f"{server.url}/x")
        listener.hear_error("header", caught.value)
    listener.assert_nothing_leaked()


@pytest.mark.parametrize("what", ["the vault is closed", f"https://vault/?token={CANARY}"])
def test_a_token_function_that_fails_is_an_error_of_ours_without_the_token(
    what: str, listener: Listener, server: LoopbackServer
) -> None:
    def fetched() -> str:
        raise LookupError(what)

    with GitLabStacIO(fetched, base_url=server.url) as stac_io:
        with pytest.raises(ConfigurationError, match=r"token= failed \(LookupError: ") as caught:
            stac_io.read_json(f"{server.url}/x")
        listener.hear_error("function", caught.value)
    assert (caught.value.__cause__ is None) == (CANARY in what)
    assert server.requests == []
    listener.assert_nothing_leaked()


def test_an_error_of_ours_in_a_token_function_stays_what_it_is(server: LoopbackServer) -> None:
    def fetched() -> str:
        raise NetworkError("the vault is out of reach")

    with (
        GitLabStacIO(fetched, base_url=server.url, retry=IMPATIENT) as stac_io,
        pytest.raises(NetworkError, match="vault"),
    ):
        stac_io.read_json(f"{server.url}/x")


def test_nothing_public_shows_the_token_when_it_is_printed_or_formatted(listener: Listener) -> None:
    with GitLabStacIO(CANARY, headers={"Authorization": f"Bearer {CANARY}x"}) as stac_io:
        stac_io.credentials.headers_for("https://hub.example.org", lambda _: ("h", ""))
        for thing in (stac_io, stac_io.session, stac_io.credentials, STACDownloader(CANARY)):
            listener.hear(type(thing).__name__, f"{thing!r} {thing!s} {thing}")
            output = io.StringIO()
            print(thing, [thing], {"a": thing}, file=output)
            listener.hear("printed", output.getvalue())
        private = {n: v for n, v in vars(stac_io.credentials).items() if n != "headers"}
        listener.look_into("credentials", private)
    listener.assert_nothing_leaked()


def test_the_version_of_the_package_is_all_that_strangers_learn(
    server: LoopbackServer, other_server: LoopbackServer
) -> None:
    other_server.route("/x", {})
    with GitLabStacIO(CANARY, base_url=server.url) as stac_io:
        stac_io.read_json(f"{other_server.url}/x")
    sent = {name.lower() for name in other_server.requests[0].headers}
    assert sent <= {"host", "user-agent", "accept-encoding", "accept", "connection"}
    agent = other_server.requests[0].headers["User-Agent"]
    assert agent == f"stac-gitlab/{stac_gitlab.__version__}"
    assert sys.version.split()[0] not in agent
