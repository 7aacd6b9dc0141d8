"""The advice in the error of a refused request fits the server, and what was sent to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pystac
import pytest

from stac_gitlab import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    DownloadError,
    GitLabStacIO,
    HTTPStatusError,
    InvalidResponseError,
    PermissionDeniedError,
    RetryPolicy,
    STACDownloader,
    STACGitLabError,
)
from stac_gitlab.search import open_client
from stac_gitlab.testing import Answer, LoopbackServer, RecordedRequest
from tests.fault_server import SIGN_IN_PAGE

TOKEN = "glpat-advice-0001"
ONCE = RetryPolicy(max_attempts=1)
SIGNED = "/blob?se=2024-01-01&sig=AbCdEf0123456789"


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A login for the loopback servers."""
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login ada password not-for-you-1\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    return path


def refuse(server: LoopbackServer, path: str, status: int, /, **headers: str) -> None:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    server.route(path, lambda _: Answer(status, named, b"no"))


def message_of(url: str, *, base_url: str | None = None, token: str | None = None) -> str:
    with (
        GitLabStacIO(token, base_url=base_url, retry=ONCE) as reader,
        pytest.raises(HTTPStatusError) as caught,
    ):
        reader.read_json(url)
    return str(caught.value)


# -- storage services and logins of their own ---------------------------------------------------

OWN_LOGINS = {
    "Azure": {"x_ms_request_id": "1", "server": "Windows-Azure-Blob/1.0"},
    "S3": {"server": "AmazonS3", "x_amz_request_id": "1"},
    "Google": {"x_goog_stored_content_length": "1"},
    "Earthdata": {"www_authenticate": 'Basic realm="Please enter your Earthdata Login"'},
}


@pytest.mark.parametrize("token", [TOKEN, None])
@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("kind", OWN_LOGINS)
def test_nobody_is_told_to_send_a_gitlab_token_to_a_storage_service(
    kind: str, status: int, token: str | None, server: LoopbackServer, other_server: LoopbackServer
) -> None:
    refuse(other_server, "/blob", status, **OWN_LOGINS[kind])
    message = message_of(f"{other_server.url}/blob", base_url=server.url, token=token)
    assert "To send it there" not in message
    assert "STAC_GITLAB_TOKEN" not in message
    assert "logins of its own" in message
    assert ".netrc" in message
    assert f"hosts={{'{other_server.url}': ...}}" in message


@pytest.mark.parametrize(
    ("status", "usual"), [(401, "Check the token"), (403, "is valid"), (404, "this token")]
)
def test_a_refusal_without_a_credential_does_not_speak_of_one_that_was_sent(
    status: int, usual: str, server: LoopbackServer, other_server: LoopbackServer
) -> None:
    refuse(other_server, "/x", status)
    assert usual not in message_of(f"{other_server.url}/x", base_url=server.url, token=TOKEN)
    assert usual in message_of(f"{other_server.url}/x", base_url=other_server.url, token=TOKEN)


def test_a_signed_url_is_explained_by_its_signature(
    server: LoopbackServer, other_server: LoopbackServer
) -> None:
    refuse(other_server, "/blob", 403)
    message = message_of(f"{other_server.url}{SIGNED}", base_url=server.url, token=TOKEN)
    assert "signature has expired, read the item again" in message
    assert "token" not in message
    assert "hosts=" not in message


@pytest.mark.parametrize("name", ["sig", "Signature", "X-Amz-Signature", "X-Goog-Signature"])
def test_nothing_is_sent_beside_a_signature(
    name: str, server: LoopbackServer, netrc: Path, other_server: LoopbackServer
) -> None:
    for each in (server, other_server):
        each.route("/blob", b"{}")
        with GitLabStacIO(TOKEN, base_url=server.url) as reader:
            reader.read_json(f"{each.url}/blob?{name}=AbCdEf0123456789")
        (request,) = each.requests
        assert "Authorization" not in request.headers
        assert TOKEN not in str(dict(request.headers))


def test_a_login_of_the_netrc_file_that_is_refused_is_named(
    server: LoopbackServer, netrc: Path
) -> None:
    refuse(server, "/x", 401, www_authenticate="Basic realm=x")
    message = message_of(f"{server.url}/x")
    assert server.requests[0].headers["Authorization"].startswith("Basic ")
    assert f"The login for {server.url} in the .netrc file was sent" in message
    assert "token" not in message


def test_a_token_that_was_withheld_is_not_to_be_checked(server: LoopbackServer) -> None:
    refuse(server, "/x", 401)
    with (
        GitLabStacIO(lambda: None, base_url=server.url, retry=ONCE) as reader,
        pytest.raises(AuthenticationError, match="returned None") as caught,
    ):
        reader.read_json(f"{server.url}/x")
    assert "Check the token" not in str(caught.value)


def test_a_login_by_cookie_is_explained(server: LoopbackServer, tmp_path: Path) -> None:
    def wants_cookie(request: RecordedRequest) -> Answer:
        if "Cookie" in request.headers:
            return Answer(200, (), b"{}")
        headers = (("set-cookie", "session=1; Path=/"), ("location", request.target))
        return Answer(302, headers)

    server.route("/x", wants_cookie)
    message = message_of(f"{server.url}/x", base_url=server.url, token=TOKEN)
    assert "login by cookie" in message
    item = item_with(f"{server.url}/x")
    with (
        STACDownloader(TOKEN, server.url, retry=ONCE) as downloader,
        pytest.raises(DownloadError, match="login by cookie"),
    ):
        downloader.download_assets(item, tmp_path / "out")


def test_redirects_in_a_circle_without_a_cookie_are_just_that(server: LoopbackServer) -> None:
    refuse(server, "/x", 302, location="/x")
    with (
        GitLabStacIO(TOKEN, base_url=server.url) as reader,
        pytest.raises(InvalidResponseError, match=r"in a circle.*Limits\(redirects=\)"),
    ):
        reader.read_json(f"{server.url}/x")


def test_a_sign_in_page_in_place_of_a_file_says_why_no_token_was_sent(
    server: LoopbackServer, other_server: LoopbackServer, tmp_path: Path
) -> None:
    other_server.route("/x", SIGN_IN_PAGE, media_type="text/html")
    with (
        STACDownloader(TOKEN, server.url, retry=ONCE) as downloader,
        pytest.raises(DownloadError, match=f"not sent to {other_server.url}"),
    ):
        downloader.download_assets(item_with(f"{other_server.url}/x"), tmp_path)


# -- methods ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [409, 412])
def test_a_conflict_of_a_request_that_changes_nothing_is_not_one_of_a_change(
    status: int, server: LoopbackServer
) -> None:
    refuse(server, "/x", status)
    with (
        GitLabStacIO(TOKEN, base_url=server.url, retry=ONCE) as reader,
        pytest.raises(ConflictError, match="Try again later") as caught,
    ):
        reader.read_json(f"{server.url}/x")
    assert "exists already" not in str(caught.value)
    assert "repeat the change" not in str(caught.value)


LANDING: dict[str, Any] = {
    "type": "Catalog",
    "stac_version": "1.0.0",
    "id": "api",
    "description": "An API",
    "conformsTo": [
        "https://api.stacspec.org/v1.0.0/core",
        "https://api.stacspec.org/v1.0.0/item-search",
    ],
}


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_refused_post_search_names_the_other_method(
    token: str | None, server: LoopbackServer, other_server: LoopbackServer
) -> None:
    search = {"rel": "search", "href": f"{server.url}/search", "type": "application/geo+json"}
    server.route("/", {**LANDING, "links": [{**search, "method": "POST"}]})
    refuse(server, "/search", 401)
    with GitLabStacIO(token, base_url=other_server.url, retry=ONCE) as reader:
        client = open_client(f"{server.url}/", stac_io=reader)
        with pytest.raises(AuthenticationError) as caught:
            list(client.search(max_items=1).items())
    assert ("method='GET'" in str(caught.value)) is (token is None)


# -- local files, and lengths -------------------------------------------------------------------


def item_with(href: str) -> pystac.Item:
    return pystac.Item.from_dict(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "one",
            "geometry": None,
            "properties": {"datetime": "2024-01-01T00:00:00Z"},
            "assets": {"a": {"href": href, "roles": ["data"]}},
            "links": [],
        }
    )


def test_a_file_of_another_machine_is_not_looked_for_on_this_one(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    href = f"file://fileserver{tmp_path}/x.json"
    wanted = r"another machine \('fileserver'\)"
    with GitLabStacIO() as reader:
        assert reader.read_json(f"file://localhost{tmp_path}/x.json") == {}
        assert reader.read_json(f"file://{tmp_path}/x.json") == {}
        for call in (reader.read_json, reader.read_text):
            with pytest.raises(ConfigurationError, match=wanted):
                call(href)
        with pytest.raises(ConfigurationError, match=wanted):
            reader.write_text(href, "{}")
        item = item_with(href)
        item.set_self_href(str(tmp_path / "item.json"))
        with pytest.raises(DownloadError, match=wanted) as caught:
            STACDownloader(stac_io=reader).download_assets(item, tmp_path / "out")
    assert "is not a URL" not in str(caught.value)


@pytest.mark.parametrize("part", ["A", "ab c"])
@pytest.mark.parametrize("href", ["data:image/png;base64,{}", "s3://bucket/{}", "{}", "x{}://y"])
def test_a_message_has_little_of_a_long_href(
    href: str, part: str, server: LoopbackServer, tmp_path: Path
) -> None:
    item = item_with(href.format(part * 20_000))
    item.set_self_href(f"{server.url}/item.json")
    with STACDownloader(TOKEN, server.url, retry=ONCE) as downloader:
        with pytest.raises(DownloadError) as caught:
            downloader.download_assets(item, tmp_path)
        with pytest.raises(STACGitLabError) as opened:
            downloader.open(item.assets["a"], item=item)
    assert len(str(caught.value)) < 2000
    assert len(str(opened.value)) < 2000


def test_the_url_of_an_error_is_whole_although_the_message_is_short(server: LoopbackServer) -> None:
    url = f"{server.url}/{'a' * 5000}"
    with (
        GitLabStacIO(TOKEN, base_url=server.url, retry=ONCE) as reader,
        pytest.raises(HTTPStatusError) as caught,
    ):
        reader.read_json(url)
    assert caught.value.url == url
    assert len(str(caught.value)) < 1000
    assert str(caught.value).endswith("access to it. Check the URL.")


def test_a_refused_token_is_no_matter_of_hosts(
    server: LoopbackServer,
) -> None:
    refuse(server, "/x", 403, **OWN_LOGINS["Earthdata"])
    with (
        GitLabStacIO(TOKEN, base_url=server.url, retry=ONCE) as reader,
        pytest.raises(PermissionDeniedError) as caught,
    ):
        reader.read_json(f"{server.url}/x")
    assert "hosts=" not in str(caught.value)
