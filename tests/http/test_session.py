"""The session at real sockets: who sees the token, what is tried again, and when it gives up."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import logging
import os
import pickle
import socket
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from requests_mock import ANY, Adapter, Mocker

import stac_gitlab
from stac_gitlab import GitLabStacIO
from stac_gitlab.auth import Credentials, Origin
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    HTTPStatusError,
    InvalidRequestError,
    InvalidResponseError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    STACGitLabError,
)
from stac_gitlab.http.responses import Document, error_for_status
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import redact
from stac_gitlab.settings import RetryPolicy
from stac_gitlab.testing import Answer, Fault, LoopbackServer, RecordedRequest
from tests.conftest import Clock
from tests.raw_server import RawServer, silence, trickling

TOKEN = "glpat-canary-0123456789"

# Whatever a token may travel under.
TOKEN_HEADERS = ("X-Gitlab-Token", "PRIVATE-TOKEN", "JOB-TOKEN", "Authorization", "x-api-key")


Sessions = Callable[..., GitLabSession]


@pytest.fixture
def policy(clock: Clock) -> RetryPolicy:
    return RetryPolicy(clock=clock.time, sleep=clock.sleep)


@pytest.fixture
def session_for(policy: RetryPolicy) -> Iterator[Sessions]:
    """Makes sessions, and closes them."""
    made: list[GitLabSession] = []

    def make(
        *hosts: str,
        token: Any = TOKEN,
        header: str = "auto",
        headers: dict[str, str] | None = None,
        retry: RetryPolicy = policy,
        **options: Any,
    ) -> GitLabSession:
        credentials = Credentials(token, hosts=hosts, header=header)
        credentials.headers = headers or {}
        made.append(GitLabSession(credentials, retry=retry, **options))
        return made[-1]

    yield make
    for session in made:
        session.close()


def fetch(session: GitLabSession, url: str, **options: Any) -> bytes:
    return session.fetch(url, lambda document: document.body, **{"max_bytes": 10**6, **options})


def tokens(server: LoopbackServer) -> list[dict[str, str]]:
    """What each request brought that could be a token."""
    return [
        {name: request.headers[name] for name in TOKEN_HEADERS if name in request.headers}
        for request in server.requests
    ]


def named(server: LoopbackServer, host: str) -> str:
    """The server's URL by another name of this machine."""
    return server.url.replace("127.0.0.1", host)


def redirect(server: LoopbackServer, path: str, to: str, status: int = 302) -> None:
    server.route(path, b"moved", status=status, headers={"Location": to})


# -- who sees the token -------------------------------------------------------------------------


def test_the_token_arrives_at_the_named_origins_only(
    server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    for each in (server, other_server):
        each.route("/x", b"{}")
    session = session_for(server.url)
    fetch(session, f"{server.url}/x")
    fetch(session, f"{named(server, 'localhost')}/x")
    fetch(session, f"{other_server.url}/x")
    assert tokens(server) == [{"X-Gitlab-Token": TOKEN}, {}]
    assert tokens(other_server) == [{}]


def test_the_token_arrives_at_the_first_origin_read_and_at_no_other(
    server: LoopbackServer, other_server: LoopbackServer
) -> None:
    for each in (server, other_server):
        each.route("/x", {"a": 1})
    with GitLabStacIO(TOKEN) as stac_io:
        for url in (server.url, other_server.url, server.url):
            stac_io.read_json(f"{url}/x")
    assert tokens(server) == [{"X-Gitlab-Token": TOKEN}] * 2
    assert tokens(other_server) == [{}]


def test_base_url_and_hosts_both_get_the_token(
    server: LoopbackServer, other_server: LoopbackServer
) -> None:
    for each in (server, other_server):
        each.route("/x", {"a": 1})
    port = other_server.port
    with GitLabStacIO(TOKEN, base_url=server.url, hosts=[f"localhost:{port}"]) as stac_io:
        for url in (server.url, other_server.url, named(other_server, "localhost")):
            stac_io.read_json(f"{url}/x")
    assert tokens(server) == [{"X-Gitlab-Token": TOKEN}]
    assert tokens(other_server) == [{}, {"X-Gitlab-Token": TOKEN}]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_follows_a_redirect_within_its_origin(
    status: int, server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(server, "/old", "/new", status)
    server.route("/new", b"there")
    assert fetch(session_for(server.url), f"{server.url}/old") == b"there"
    assert tokens(server) == [{"X-Gitlab-Token": TOKEN}] * 2


@pytest.mark.parametrize("header", ["auto", "x-api-key", "Authorization: Bearer", "PRIVATE-TOKEN"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_token_does_not_follow_a_redirect_to_another_origin(
    header: str,
    host: str,
    server: LoopbackServer,
    other_server: LoopbackServer,
    session_for: Sessions,
) -> None:
    redirect(server, "/old", f"{named(other_server, host)}/new")
    other_server.route("/new", b"there")
    session = session_for(server.url, header=header, headers={"X-Secret": "extra-canary"})
    assert fetch(session, f"{server.url}/old") == b"there"
    [request] = other_server.requests
    assert not any("canary" in value for value in request.headers.values())
    assert "X-Secret" not in request.headers
    assert any("canary" in value for value in server.requests[0].headers.values())


def test_the_token_returns_after_a_detour_over_another_origin(
    server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(server, "/old", f"{other_server.url}/away")
    redirect(other_server, "/away", f"{server.url}/back")
    server.route("/back", b"home")
    assert fetch(session_for(server.url), f"{server.url}/old") == b"home"
    assert tokens(server) == [{"X-Gitlab-Token": TOKEN}] * 2
    assert tokens(other_server) == [{}]


def test_the_token_arrives_when_another_origin_redirects_to_its_own(
    server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(other_server, "/away", f"{server.url}/x")
    server.route("/x", b"home")
    fetch(session_for(server.url), f"{other_server.url}/away")
    assert (tokens(other_server), tokens(server)) == ([{}], [{"X-Gitlab-Token": TOKEN}])


def test_the_token_does_not_follow_a_redirect_from_https_to_http(
    tls_server: LoopbackServer, server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(tls_server, "/old", f"{server.url}/new")
    server.route("/new", b"there")
    assert fetch(session_for(tls_server.url), f"{tls_server.url}/old") == b"there"
    assert tokens(tls_server) == [{"X-Gitlab-Token": TOKEN}]
    assert tokens(server) == [{}]


@pytest.mark.parametrize("header", ["auto", "Authorization: Bearer"])
def test_an_upgrade_to_https_is_another_origin_too(
    header: str, requests_mock: Mocker, session_for: Sessions
) -> None:
    # On the usual ports requests itself would let Authorization pass.
    requests_mock.get(
        "http://localhost/x", status_code=301, headers={"Location": "https://localhost/x"}
    )
    requests_mock.get("https://localhost/x", content=b"there")
    fetch(session_for("http://localhost", header=header), "http://localhost/x")
    first, second = requests_mock.request_history
    assert any("canary" in value for value in first.headers.values())
    assert not any("canary" in value for value in second.headers.values())


@pytest.mark.parametrize(
    "location",
    [
        "http://{good}@{evil}/new",
        "http://{good}:80@{evil}/new",
        "http://{evil}\\@{good}/new",
        "http://{evil}#@{good}/new",
        "http://{evil}/{good}",
        "//{evil}/new",
        "http:/\\{evil}/new",
        "http://{evil}/?http://{good}",
    ],
)
def test_no_spelling_of_a_redirect_lets_the_token_out(
    location: str, server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    good, evil = f"127.0.0.1:{server.port}", f"localhost:{other_server.port}"
    redirect(server, "/old", location.format(good=good, evil=evil))
    session = session_for(server.url, retry=RetryPolicy(max_attempts=1))
    with suppress(STACGitLabError):
        fetch(session, f"{server.url}/old")
    assert all(found == {} for found in tokens(other_server))
    assert tokens(server)[0] == {"X-Gitlab-Token": TOKEN}


@pytest.mark.parametrize(
    ("named_as", "asked"),
    [
        ("https://hub.example.org", "https://hub.example.org:443/x"),
        ("https://hub.example.org:443", "https://HUB.example.org/x"),
        ("https://hub.example.org", "https://hub.example.org./x"),
        ("https://bücher.example", "https://xn--bcher-kva.example/x"),
        ("https://xn--fa-hia.example", "https://faß.example/x"),
    ],
)
def test_every_spelling_of_an_allowed_origin_gets_the_token(
    named_as: str, asked: str, requests_mock: Mocker, session_for: Sessions
) -> None:
    requests_mock.get(ANY, content=b"there")
    fetch(session_for(named_as), asked)
    sent = requests_mock.last_request.headers
    assert sent["X-Gitlab-Token"] == TOKEN
    assert "Authorization" not in sent, "user info would stand in for the token"


@pytest.mark.parametrize("own", [True, False])
def test_user_info_in_a_url_is_refused_and_not_shown(
    own: bool, server: LoopbackServer, session_for: Sessions
) -> None:
    session = session_for(server.url if own else "hub.example.org")
    with pytest.raises(ConfigurationError, match=r"pass headers=") as caught:
        fetch(session, server.url.replace("//", "//me:pass-word@") + "/x")
    assert "pass-word" not in str(caught.value)
    assert server.requests == []


def test_a_mapping_of_hosts_gives_each_server_its_own_header_or_token(
    server: LoopbackServer, other_server: LoopbackServer
) -> None:
    third = named(other_server, "localhost")
    other_server.route("/x", b"{}")
    server.route("/x", b"{}")
    hosts = {
        server.url: "Authorization: Bearer",
        other_server.url: lambda: "another-token-1",
        third: ("x-api-key", "third-token-1"),
    }
    credentials = Credentials(TOKEN, hosts=hosts)
    credentials.headers = {"X-Extra": "for the first one"}
    with GitLabSession(credentials) as session:
        for url in (server.url, other_server.url, third):
            fetch(session, f"{url}/x")
        again = GitLabSession(Credentials.from_state(credentials.state(with_secrets=False)))
        with again, pytest.raises(ConfigurationError, match="pickled without its token"):
            fetch(again, f"{third}/x")
    assert tokens(server) == [{"Authorization": f"Bearer {TOKEN}"}]
    assert tokens(other_server) == [
        {"X-Gitlab-Token": "another-token-1"},
        {"x-api-key": "third-token-1"},
    ]
    assert not any("X-Extra" in request.headers for request in other_server.requests)


def test_a_host_with_its_own_token_never_gets_the_one_of_the_environment(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.route("/x", b"{}")
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    credentials = Credentials(base_url="https://hub.example.org", hosts={server.url: "own-token-1"})
    worker = Credentials.from_state(credentials.state(with_secrets=False))
    with GitLabSession(worker) as session, pytest.raises(ConfigurationError):
        fetch(session, f"{server.url}/x")
    assert server.requests == []


def test_a_token_in_hosts_is_not_shown(server: LoopbackServer) -> None:
    hosts = {server.url: TOKEN}
    with pytest.raises(ConfigurationError) as caught:
        GitLabStacIO(hosts=hosts, page_size=0)
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    ours = [frame for frame in frames if "tests" not in frame.filename]
    assert ours
    assert not any(TOKEN in text for frame in ours for text in (frame.locals or {}).values())


# -- requests that change something ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_change_carries_the_token_only_to_the_origin_that_the_caller_named(
    method: str, server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"{}")
    session = session_for(server.url)
    own, other = Origin.of(server.url), Origin.of(other_server.url)
    for named_origin in (own, other, None):
        fetch(session, f"{server.url}/x", method=method, json={}, write_origin=named_origin)
    assert [bool(found) for found in tokens(server)] == [True, False, False]


def test_a_refused_change_says_why_the_token_was_not_sent(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"{}", status=401)
    with pytest.raises(AuthenticationError, match="not sent with this POST, because a link"):
        fetch(session_for(server.url), f"{server.url}/x", method="POST", json={})


def test_a_change_by_the_session_itself_carries_the_token(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"{}")
    session_for(server.url).post(f"{server.url}/x", json={})
    assert tokens(server) == [{"X-Gitlab-Token": TOKEN}]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_change_is_redirected_to_another_server(
    method: str,
    status: int,
    server: LoopbackServer,
    other_server: LoopbackServer,
    session_for: Sessions,
) -> None:
    redirect(other_server, "/x", f"{server.url}/api/v4/user/keys", status)
    session = session_for(server.url)
    with pytest.raises(
        InvalidResponseError, match=rf"redirect \({status}\) of a {method} leads to"
    ):
        fetch(session, f"{other_server.url}/x", method=method, json={"key": "ssh-ed25519"})
    assert server.requests == []


@pytest.mark.parametrize("status", [307, 308])
def test_a_change_is_redirected_within_its_server_with_body_and_token(
    status: int, server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(server, "/x", f"{server.url}/x/", status)
    server.route("/x/", b"{}")
    session = session_for(server.url)
    fetch(session, f"{server.url}/x", method="POST", json=[1], write_origin=Origin.of(server.url))
    assert [(r.method, r.json()) for r in server.requests] == [("POST", [1])] * 2
    assert tokens(server) == [{"X-Gitlab-Token": TOKEN}] * 2


def test_a_redirect_that_would_drop_the_body_of_a_put_is_not_followed(
    server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(server, "/x", f"{server.url}/x/", 301)
    with pytest.raises(InvalidResponseError, match="lose its body"):
        fetch(session_for(server.url), f"{server.url}/x", method="PUT", json=[1])
    assert len(server.requests) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_303_is_followed_with_get(
    method: str, server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(other_server, "/x", f"{server.url}/done", 303)
    server.route("/done", b"done")
    session = session_for(server.url)
    assert fetch(session, f"{other_server.url}/x", method=method, json=[1]) == b"done"
    assert [(r.method, r.body) for r in server.requests] == [("GET", b"")]


# -- what would stand in for the token ----------------------------------------------------------


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "netrc"
    file.write_text(
        "machine 127.0.0.1 login me password netrc-word\n"
        "machine localhost login me password netrc-word\n"
    )
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize(
    ("header", "sent"),
    [
        ("auto", {"X-Gitlab-Token": TOKEN}),
        ("Authorization: Bearer", {"Authorization": f"Bearer {TOKEN}"}),
    ],
)
def test_a_netrc_entry_never_replaces_or_joins_the_token(
    header: str,
    sent: dict[str, str],
    server: LoopbackServer,
    other_server: LoopbackServer,
    session_for: Sessions,
) -> None:
    server.route("/x", b"{}")
    redirect(other_server, "/away", f"{server.url}/x")
    session = session_for(server.url, header=header)
    fetch(session, f"{server.url}/x")
    fetch(session, f"{named(other_server, 'localhost')}/away")
    assert tokens(server) == [sent, sent]
    assert set(tokens(other_server)[0]) == {"Authorization"}, "the user's own, for that host"


@pytest.mark.usefixtures("netrc")
def test_a_custom_header_does_not_drop_the_login_that_the_caller_chose(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"{}")
    session = session_for(server.url, token=None, headers={"x-custom": "value-1"})
    fetch(session, f"{server.url}/x")
    fetch(session, f"{server.url}/x", headers={"Authorization": "AWS4 signed"})
    assert [r.headers["x-custom"] for r in server.requests] == ["value-1"] * 2
    assert tokens(server)[0]["Authorization"].startswith("Basic ")
    assert tokens(server)[1] == {"Authorization": "AWS4 signed"}


@pytest.mark.usefixtures("netrc")
def test_a_netrc_entry_is_not_used_on_another_port_of_the_tokens_host(
    server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"{}")
    other_server.route("/x", b"{}")
    redirect(server, "/away", f"{other_server.url}/x")
    session = session_for(server.url)
    fetch(session, f"{other_server.url}/x")
    fetch(session, f"{server.url}/away")
    session.get(f"{other_server.url}/x")
    assert tokens(other_server) == [{}, {}, {}]


def test_a_netrc_login_that_holds_the_token_stays_at_the_tokens_origin(
    server: LoopbackServer,
    other_server: LoopbackServer,
    session_for: Sessions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "netrc").write_text(f"machine localhost login oauth2 password {TOKEN}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.route("/x", b"{}")
    other_server.route("/x", b"{}")
    session = session_for(server.url)
    fetch(session, f"{server.url}/x")
    fetch(session, f"{named(other_server, 'localhost')}/x")
    assert tokens(other_server) == [{}]


@pytest.mark.usefixtures("netrc")
def test_passwords_of_netrc_and_proxies_are_redacted_and_not_in_vars(
    session_for: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:proxy%2Dword@127.0.0.1:1")
    session = session_for("hub.example.org")
    with pytest.raises(NetworkError):
        fetch(session, "http://localhost/x", retry=RetryPolicy(max_attempts=1))
    inside = repr(vars(session))
    assert "word" not in inside
    assert redact("netrc-word, proxy-word") == "***, ***"
    for login in (b"me:netrc-word", b"me:proxy-word"):
        assert redact(base64.b64encode(login).decode()) == "***"


def test_urllib3_logs_no_secret_that_a_redirect_put_into_a_url(
    server: LoopbackServer, session_for: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    server.route("/x", b"", status=302, headers={"Location": f"/{TOKEN}/y"})
    server.route(f"/{TOKEN}/y", b"{}")
    with caplog.at_level("DEBUG"):
        fetch(session_for(server.url), f"{server.url}/x")
    assert "/***/y" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("name", ["n\u00e4me", "\ud800", "", "a\r\nb"])
def test_a_header_that_cannot_be_is_an_error_that_does_not_show_the_others(
    name: str, server: LoopbackServer, session_for: Sessions
) -> None:
    with pytest.raises(InvalidResponseError, match="is not valid") as caught:
        fetch(session_for(server.url), f"{server.url}/x", headers={name: "x"})
    redacted = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert TOKEN not in "".join(redacted.format())


def test_a_body_that_json_cannot_hold_is_named_and_not_sent(
    server: LoopbackServer, session_for: Sessions
) -> None:
    with pytest.raises(ConfigurationError, match=r"body\.a is nan"):
        fetch(session_for(server.url), f"{server.url}/x", method="PUT", json={"a": float("nan")})
    assert not server.requests


def test_a_netrc_that_is_no_text_is_passed_over(
    server: LoopbackServer, session_for: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_bytes(b"machine 127.0.0.1 login me password \xff")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.route("/x", {})
    assert fetch(session_for(server.url), f"{server.url}/x") is not None


@pytest.mark.usefixtures("netrc")
def test_a_netrc_entry_serves_those_who_have_no_token(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"{}")
    fetch(session_for(token=None), f"{server.url}/x")
    assert set(tokens(server)[0]) == {"Authorization"}


@pytest.mark.parametrize("token", [TOKEN, None])
@pytest.mark.parametrize("host", ["127.0.0.1", "hub.example.org"])
def test_cookies_are_not_kept_and_not_sent(
    token: str | None, host: str, server: LoopbackServer, session_for: Sessions
) -> None:
    cookie = {"Set-Cookie": "sharinghub-session=1; path=/"}
    server.route("/x", b"{}", headers=cookie)
    server.route("/old", b"", status=302, headers={**cookie, "Location": "/x"})
    session = session_for(f"http://{host}:{server.port}", token=token)
    for path in ("/x", "/x", "/old"):
        fetch(session, f"{server.url}{path}")
    assert [request.headers.get("Cookie") for request in server.requests] == [None] * 4
    assert not list(session.cookies)


def test_headers_of_the_user_that_hold_no_secret_go_everywhere(
    server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    for each in (server, other_server):
        each.route("/x", b"{}")
    own = {"Accept-Language": "de", "user-agent": "my-script", "X-Secret": "extra-canary"}
    session = session_for(server.url, headers=own)
    for each in (server, other_server):
        fetch(session, f"{each.url}/x")
        sent = each.requests[0].headers
        assert (sent["Accept-Language"], sent["User-Agent"]) == ("de", "my-script")
    assert server.requests[0].headers["X-Secret"] == "extra-canary"
    assert "X-Secret" not in other_server.requests[0].headers


def test_the_users_short_header_values_leave_other_headers_alone(
    other_server: LoopbackServer, session_for: Sessions
) -> None:
    other_server.route("/x", b"{}")
    session = session_for("hub.example.org", headers={"DNT": "1", "X-Empty": ""})
    fetch(session, f"{other_server.url}/x")
    sent = other_server.requests[0].headers
    assert sent["User-Agent"].startswith("stac-gitlab/")
    assert sent["Accept-Encoding"] == "gzip, deflate"


# -- which header -------------------------------------------------------------------------------

OAUTH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "token", "sent"),
    [
        ("/api/stac/", TOKEN, {"X-Gitlab-Token": TOKEN}),
        ("/api/stac/", OAUTH, {"X-Gitlab-Token": OAUTH}),
        ("/api/download/a/b/repository/c", TOKEN, {"X-Gitlab-Token": TOKEN}),
        ("/stac/catalog.json", TOKEN, {"X-Gitlab-Token": TOKEN}),
        ("/api/v4/projects/1", TOKEN, {"PRIVATE-TOKEN": TOKEN}),
        ("/api/v4/projects/1", "unknown-prefix", {"PRIVATE-TOKEN": "unknown-prefix"}),
        ("/api/v4/projects/1", OAUTH, {"Authorization": f"Bearer {OAUTH}"}),
        ("/api/v4/projects/1", "eyJhb.eyJzd.s-g", {"Authorization": "Bearer eyJhb.eyJzd.s-g"}),
        ("/api/v4/projects/1", "glcbt-64_abcdef", {"JOB-TOKEN": "glcbt-64_abcdef"}),
        ("/g/p/-/badges/release.svg", TOKEN, {"PRIVATE-TOKEN": TOKEN}),
    ],
)
def test_the_header_fits_the_path_and_the_token(
    path: str,
    token: str,
    sent: dict[str, str],
    server: LoopbackServer,
    session_for: Sessions,
) -> None:
    server.route(path, b"{}")
    fetch(session_for(server.url, token=token), f"{server.url}{path}")
    assert tokens(server) == [sent]


def test_a_ci_job_token_from_the_environment_travels_as_one(
    server: LoopbackServer, session_for: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_JOB_TOKEN", "no-known-prefix")
    server.route("/api/v4/projects/1", b"{}")
    fetch(session_for(server.url, token=None), f"{server.url}/api/v4/projects/1")
    assert tokens(server) == [{"JOB-TOKEN": "no-known-prefix"}]


def test_a_named_header_is_used_on_every_path(
    server: LoopbackServer, session_for: Sessions
) -> None:
    session = session_for(server.url, header="x-api-key")
    for path in ("/api/stac/", "/api/v4/projects/1", "/x"):
        server.route(path, b"{}")
        fetch(session, f"{server.url}{path}")
    assert tokens(server) == [{"x-api-key": TOKEN}] * 3


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (410, NotFoundError),
        (422, InvalidRequestError),
        (501, ServerError),
        (304, HTTPStatusError),
    ],
)
def test_a_refusal_is_raised_at_once_as_what_it_is(
    status: int,
    error: type[HTTPStatusError],
    server: LoopbackServer,
    session_for: Sessions,
    clock: Clock,
) -> None:
    server.route("/x", {"detail": "because"}, status=status)
    with pytest.raises(requests.HTTPError) as caught:
        fetch(session_for(server.url), f"{server.url}/x")
    assert type(caught.value) is error
    assert caught.value.response.status_code == status
    assert caught.value.url == f"{server.url}/x"
    assert len(server.requests) == 1
    assert clock.slept == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_elsewhere_says_that_the_token_was_not_sent_and_how_to_allow_it(
    status: int, server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    other_server.route("/new", b"", status=status)
    redirect(server, "/old", f"{other_server.url}/new")
    session = session_for(server.url)
    for url in (f"{other_server.url}/new", f"{server.url}/old"):
        with pytest.raises(HTTPStatusError) as caught:
            fetch(session, url)
        message = str(caught.value)
        assert f"not sent to {other_server.url}" in message
        assert f"belongs to {server.url}" in message
        assert "hosts=" in message


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_at_home_does_not_say_so(
    status: int, server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"", status=status)
    with pytest.raises(HTTPStatusError) as caught:
        fetch(session_for(server.url), f"{server.url}/x")
    assert "not sent" not in str(caught.value)


def test_a_refusal_without_any_token_says_how_to_give_one(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"", status=401)
    with pytest.raises(AuthenticationError, match=r"No token was sent.*STAC_GITLAB_TOKEN"):
        fetch(session_for(server.url, token=None), f"{server.url}/x")


def test_a_refusal_says_if_the_token_function_returned_none(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"", status=401)
    for token, is_said in ((lambda: None), True), ((lambda: TOKEN), False):
        with pytest.raises(AuthenticationError) as caught:
            fetch(session_for(server.url, token=token), f"{server.url}/x")
        assert ("the function that was passed as token= returned None" in str(caught.value)) is (
            is_said
        )


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_sign_in_page_is_no_document(
    kind: str, server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    page = b"\n<!DOCTYPE html><html><body><a href='/users/sign_in'>Sign in</a></body></html>"
    for each in (server, other_server):
        each.route("/users/sign_in", page, media_type=kind)
        redirect(each, "/x", "/users/sign_in")
    session = session_for(server.url)
    with pytest.raises(AuthenticationError, match="sign-in page") as caught:
        fetch(session, f"{server.url}/x")
    assert caught.value.status_code == 200
    assert "not sent" not in str(caught.value)
    with pytest.raises(AuthenticationError, match=f"not sent to {other_server.url}"):
        fetch(session, f"{other_server.url}/x")


# -- tokens that are renewed --------------------------------------------------------------------


def accepting(server: LoopbackServer, good: str) -> None:
    """Let the server accept one token only."""

    def answer(request: RecordedRequest) -> Answer:
        if request.headers.get("X-Gitlab-Token") == good:
            return Answer(200, (), b"{}")
        return Answer(401, (), b'{"detail": "expired"}')

    server.route("/x", answer)


def test_a_token_function_is_asked_again_after_a_401(
    server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    given = iter(["token-one", "token-two"])
    accepting(server, "token-two")
    session = session_for(server.url, token=lambda: next(given))
    assert fetch(session, f"{server.url}/x") == b"{}"
    assert fetch(session, f"{server.url}/x") == b"{}"
    assert [sent["X-Gitlab-Token"] for sent in tokens(server)] == [
        "token-one",
        "token-two",
        "token-two",
    ]
    assert clock.slept == []


def test_a_token_function_is_asked_again_only_once_a_request(
    server: LoopbackServer, session_for: Sessions
) -> None:
    given = (f"token-{n}" for n in range(100))
    accepting(server, "none of them")
    with pytest.raises(AuthenticationError):
        fetch(session_for(server.url, token=lambda: next(given)), f"{server.url}/x")
    assert len(server.requests) == 2


def test_a_fixed_token_is_refused_once(server: LoopbackServer, session_for: Sessions) -> None:
    accepting(server, "another")
    for token in ("token-one", lambda: "token-one"):
        server.clear_requests()
        with pytest.raises(AuthenticationError):
            fetch(session_for(server.url, token=token), f"{server.url}/x")
        assert len(server.requests) == 1


def test_a_401_elsewhere_does_not_renew_the_token_or_even_ask_for_it(
    other_server: LoopbackServer, session_for: Sessions
) -> None:
    asked: list[None] = []
    other_server.route("/x", b"", status=401)
    session = session_for("hub.example.org", token=lambda: asked.append(None) or "token-one")
    with pytest.raises(AuthenticationError):
        fetch(session, f"{other_server.url}/x")
    assert asked == []
    assert len(other_server.requests) == 1


def test_what_a_token_function_raises_is_the_cause_of_an_error_that_says_so(
    server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    def locked() -> str:
        raise PermissionError("the vault is locked")

    with pytest.raises(ConfigurationError, match=r"token= failed .*the vault is locked") as caught:
        fetch(session_for(server.url, token=locked), f"{server.url}/x")
    assert isinstance(caught.value.__cause__, PermissionError)
    assert clock.slept == []


# -- what is tried again ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(
    status: int, server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    server.route("/x", b"there")
    server.inject(Fault(status=status, times=2))
    assert fetch(session_for(server.url), f"{server.url}/x") == b"there"
    assert len(server.requests) == 3
    assert len(clock.slept) == 2
    assert all(seconds <= 1.0 for seconds in clock.slept)


def test_after_the_last_attempt_the_error_says_how_many_there_were(
    server: LoopbackServer, session_for: Sessions, policy: RetryPolicy
) -> None:
    server.inject(Fault(status=502, times=None, body="<html>bad gateway</html>"))
    session = session_for(server.url, retry=policy.replace(max_attempts=3))
    with pytest.raises(ServerError, match=r"502 Bad Gateway.*Given up after 3 attempts") as caught:
        fetch(session, f"{server.url}/x")
    assert len(server.requests) == 3
    assert str(caught.value).count("Given up") == 1


def test_one_attempt_is_one_attempt(
    server: LoopbackServer, session_for: Sessions, policy: RetryPolicy
) -> None:
    server.inject(Fault(status=503, times=None))
    session = session_for(server.url, retry=policy.replace(max_attempts=1))
    with pytest.raises(ServerError) as caught:
        fetch(session, f"{server.url}/x")
    assert "Given up" not in str(caught.value)
    assert len(server.requests) == 1


def test_a_policy_for_one_request_replaces_the_sessions(
    server: LoopbackServer, session_for: Sessions, policy: RetryPolicy
) -> None:
    server.inject(Fault(status=503, times=None))
    with pytest.raises(ServerError):
        fetch(session_for(server.url), f"{server.url}/x", retry=policy.replace(max_attempts=2))
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault(reset=True),
        Fault(drop=True),
        Fault(cut_after=3),
        Fault(cut_after=3, chunked=True),
        Fault(cut_after=3, reset=True),
        Fault(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["reset", "hung up", "cut", "cut in a chunk", "reset in the body", "garbled"],
)
def test_a_broken_connection_is_tried_again(
    fault: Fault, server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    server.route("/x", b"there it is")
    server.inject(fault)
    assert fetch(session_for(server.url), f"{server.url}/x") == b"there it is"
    assert len(server.requests) == 2
    assert len(clock.slept) == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_always_cut_is_an_error_that_says_so(
    chunked: bool, server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"there it is")
    server.inject(Fault(cut_after=3, chunked=chunked, times=None))
    with pytest.raises(InvalidResponseError, match="cut short") as caught:
        fetch(session_for(server.url), f"{server.url}/x")
    assert caught.value.truncated
    assert len(server.requests) == 5


def test_a_connection_that_the_server_closed_in_the_meantime_is_replaced(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"there")
    server.inject(Fault(hang_up=True, times=None))
    session = session_for(server.url)
    for _ in range(5):
        assert fetch(session, f"{server.url}/x") == b"there"


def test_a_server_that_is_not_there_is_a_network_error(session_for: Sessions, clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    with pytest.raises(NetworkError, match="no connection") as caught:
        fetch(session_for(url), url)
    assert isinstance(caught.value, requests.ConnectionError)
    assert caught.value.url == url
    assert len(clock.slept) == 4


def test_a_certificate_that_nobody_vouches_for_is_not_tried_again(
    tls_server: LoopbackServer, session_for: Sessions, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(NetworkError, match="REQUESTS_CA_BUNDLE"):
        fetch(session_for(tls_server.url), f"{tls_server.url}/x")
    assert clock.slept == []


def test_a_handshake_that_breaks_off_is_tried_again(session_for: Sessions, clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hang_up = threading.Thread(target=_hang_up_on, args=(listener, 5))
        hang_up.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(NetworkError):
            fetch(session_for(url), url)
        hang_up.join(5)
    assert len(clock.slept) == 4


def _hang_up_on(listener: socket.socket, times: int) -> None:
    for _ in range(times):
        connection, _address = listener.accept()
        connection.recv(65536)
        connection.close()


def test_a_retried_request_is_the_same_request(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/search", b"{}")
    server.inject(Fault(status=503, times=2))
    server.inject(Fault(reset=True, times=1))
    body = {"collections": ["dataset"], "bbox": [1, 2, 3, 4]}
    fetch(
        session_for(server.url),
        f"{server.url}/search?x=%2F",
        method="POST",
        headers={"X-Page": "2"},
        json=body,
        idempotent=True,
        write_origin=Origin.of(server.url),
    )
    assert len(server.requests) == 4
    for request in server.requests:
        assert (request.method, request.target) == ("POST", "/search?x=%2F")
        assert request.json() == body
        assert request.headers["X-Page"] == "2"
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["X-Gitlab-Token"] == TOKEN


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=429), Fault(reset=True)])
def test_a_post_is_sent_once(
    fault: Fault, server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    server.route("/x", b"{}")
    server.inject(fault)
    with pytest.raises(STACGitLabError):
        fetch(session_for(server.url), f"{server.url}/x", method="POST", json={})
    assert len(server.requests) == 1
    assert clock.slept == []


def test_what_the_parser_calls_truncated_is_asked_for_again(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b'{"a": ')

    def parse(document: Document) -> Any:
        raise InvalidResponseError("cut", truncated=len(server.requests) < 3)

    with pytest.raises(InvalidResponseError, match="cut"):
        session_for(server.url).fetch(f"{server.url}/x", parse, max_bytes=100)
    assert len(server.requests) == 3


# -- waiting as the server asks -----------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_the_servers_hint_beats_the_backoff(
    status: int, server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    server.route("/x", b"{}")
    server.inject(Fault(status=status, headers={"Retry-After": "100"}))
    fetch(session_for(server.url), f"{server.url}/x")
    assert clock.slept == [pytest.approx(100)]


@pytest.mark.parametrize("status", [429, 503])
def test_a_hint_of_nothing_is_no_reason_to_hammer(
    status: int, server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    server.inject(Fault(status=status, headers={"Retry-After": "0"}, times=None))
    with pytest.raises(HTTPStatusError):
        fetch(session_for(server.url), f"{server.url}/x")
    assert len(clock.slept) == 4
    assert all(seconds > 0 for seconds in clock.slept)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3600"}, 3600),
        ({"RateLimit-Reset": "9" * 5000}, float("inf")),
        ({"x-amz-retry-after": "3600000"}, 3600),
    ],
)
def test_a_hint_longer_than_max_wait_is_an_error_at_once_for_everyone(
    headers: dict[str, str],
    seconds: float,
    server: LoopbackServer,
    session_for: Sessions,
    clock: Clock,
) -> None:
    server.inject(Fault(status=429, headers=headers, times=None))
    session = session_for(server.url)
    for _ in range(2):
        with pytest.raises(RateLimitError) as caught:
            fetch(session, f"{server.url}/x")
        assert caught.value.retry_after == seconds
        assert "asks to wait" in str(caught.value)
    assert clock.slept == []
    assert len(server.requests) == 2


def test_a_hint_longer_than_the_deadline_is_an_error_at_once(
    server: LoopbackServer, session_for: Sessions, policy: RetryPolicy, clock: Clock
) -> None:
    server.inject(Fault(status=429, headers={"Retry-After": "50"}, times=None))
    session = session_for(server.url, retry=policy.replace(deadline=20))
    with pytest.raises(RateLimitError) as caught:
        fetch(session, f"{server.url}/x")
    assert caught.value.retry_after == 50
    assert clock.slept == []


def test_a_request_that_meets_a_pause_does_not_outstay_its_own_deadline(
    server: LoopbackServer, session_for: Sessions, policy: RetryPolicy, clock: Clock
) -> None:
    server.inject(Fault(status=429, headers={"Retry-After": "50"}, times=None))
    session = session_for(server.url)
    with pytest.raises(RateLimitError):
        fetch(session, f"{server.url}/x", retry=policy.replace(max_attempts=1))
    began = clock.now
    with pytest.raises(RequestTimeoutError):
        fetch(session, f"{server.url}/x", retry=policy.replace(deadline=20))
    assert clock.now - began <= 20
    assert len(server.requests) == 1


def test_attempts_and_waits_are_logged(
    server: LoopbackServer, session_for: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    server.route("/x", b"{}")
    server.inject(Fault(status=503, headers={"Retry-After": "7"}))
    with caplog.at_level(logging.INFO, "stac_gitlab"):
        fetch(session_for(server.url), f"{server.url}/x")
    assert "Attempt 1 of 5 failed, waiting 7.0 s: GET" in caplog.text
    assert "503 Service Unavailable" in caplog.text


# -- deadlines, by the real clock ---------------------------------------------------------------


def endless_redirect_body(server: RawServer, connection: socket.socket) -> None:
    server.send(
        connection,
        [b"HTTP/1.1 302 Found\r\nLocation: /\r\nTransfer-Encoding: chunked\r\n\r\n"],
    )
    block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    server.send(connection, (block for _ in range(100_000)))


def slow_redirects(server: RawServer, connection: socket.socket) -> None:
    server.send(connection, [b""], 0.1)
    server.send(connection, [b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"])


TRICKLING = {
    "body": trickling(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
    "headers": trickling(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "error": trickling(b"HTTP/1.1 503 Oh\r\nContent-Length: 10000\r\n\r\n"),
    "body of a redirect": trickling(
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 9999\r\n\r\n"
    ),
}


@pytest.mark.parametrize(
    "answer",
    [*TRICKLING.values(), slow_redirects, silence],
    ids=[*TRICKLING, "slow redirects", "silence"],
)
def test_the_deadline_holds_whatever_the_server_does(
    answer: Callable[[RawServer, socket.socket], None], session_for: Sessions
) -> None:
    with RawServer(answer) as server:
        session = session_for(server.url, retry=RetryPolicy(deadline=0.4, backoff_base=0.01))
        began = time.monotonic()
        with pytest.raises((RequestTimeoutError, ServerError)):
            fetch(session, server.url)
        assert 0.3 < time.monotonic() - began < 10


@pytest.mark.parametrize("answer", [TRICKLING["body"], slow_redirects, silence])
def test_the_deadline_holds_over_the_transport_of_another(
    answer: Callable[[RawServer, socket.socket], None], session_for: Sessions
) -> None:
    with RawServer(answer) as server, requests.Session() as transport:
        policy = RetryPolicy(deadline=0.4, backoff_base=0.01)
        session = session_for(server.url, retry=policy, transport=transport)
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError):
            fetch(session, server.url)
        assert 0.3 < time.monotonic() - began < 10


def test_the_endless_body_of_a_redirect_is_not_read(session_for: Sessions) -> None:
    with RawServer(endless_redirect_body) as server:
        session = session_for(server.url, retry=RetryPolicy(deadline=1.0))
        began = time.monotonic()
        with pytest.raises(InvalidResponseError, match="too many redirects"):
            fetch(session, server.url)
        assert time.monotonic() - began < 10
        assert len(server.requests) == 11


def test_the_deadline_counts_all_attempts_together(session_for: Sessions) -> None:
    with RawServer(silence) as server:
        policy = RetryPolicy(deadline=0.5, backoff_base=0.01, max_attempts=100)
        session = session_for(server.url, retry=policy, timeout=0.1)
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError, match="Given up"):
            fetch(session, server.url)
        assert 0.4 < time.monotonic() - began < 10
        assert 2 <= len(server.requests) <= 6


def test_a_silent_server_is_given_up_after_the_timeout(
    session_for: Sessions, policy: RetryPolicy
) -> None:
    with RawServer(silence) as server:
        session = session_for(server.url, timeout=0.1, retry=policy.replace(max_attempts=2))
        with pytest.raises(RequestTimeoutError, match="timeout="):
            fetch(session, server.url)
        assert len(server.requests) == 2


@pytest.mark.parametrize("timeout", [None, 0, -1, (1,), (1, None), "5", float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout="):
        GitLabSession(Credentials(), timeout=timeout)


# -- redirects that lead nowhere ----------------------------------------------------------------


def test_redirects_in_circles_are_an_error_after_ten(
    server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    redirect(server, "/x", "/x")
    with pytest.raises(InvalidResponseError, match="too many redirects"):
        fetch(session_for(server.url), f"{server.url}/x")
    assert len(server.requests) == 11
    assert clock.slept == []


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://127.0.0.1/x",
        "http://",
        "http://[::1",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:99999/",
        "http://\xff\xfe/",
        "\xe9",
        "javascript:alert(1)",
        "http://.example/",
        "http://" + "a" * 300 + "/",
        "http://me:word@127.0.0.1/",
        "http://127.0.0.1\\@hub.example.org/",
        "http://127.0.0.1\x1b/",
    ],
)
def test_a_redirect_to_nowhere_is_an_error_of_ours(
    location: str, server: LoopbackServer, session_for: Sessions, policy: RetryPolicy
) -> None:
    redirect(server, "/x", location)
    redirect(server, "/y", "/x")
    session = session_for(server.url, retry=policy.replace(max_attempts=1))
    # Without a host, a URL is relative, and this one means the page itself.
    match = "too many redirects" if location == "http://" else "redirect target, is not valid"
    for path in ("/x", "/y"):
        with pytest.raises(InvalidResponseError, match=match):
            fetch(session, f"{server.url}{path}")


@pytest.mark.parametrize(("status", "is_error"), [(200, False), (299, False), (300, True)])
def test_a_status_from_300_on_is_an_error(
    status: int, is_error: bool, server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"there", status=status)
    session = session_for(server.url)
    if is_error:
        with pytest.raises(HTTPStatusError):
            fetch(session, f"{server.url}/x")
    else:
        assert fetch(session, f"{server.url}/x") == b"there"


def test_the_redirects_before_a_response_have_no_body(
    server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(server, "/old", "/new")
    server.route("/new", b"new")
    with session_for(server.url).open(f"{server.url}/old") as response:
        assert [step.content for step in response.history] == [b""]
        assert response.content == b"new"


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "http://[::1/api/stac", "http://host:port", "ftp://x/y", "x"]
)
def test_a_url_that_cannot_be_asked_for_is_the_callers_mistake(
    url: str, session_for: Sessions
) -> None:
    with pytest.raises(ConfigurationError, match="not a URL"):
        fetch(session_for("hub.example.org"), url)


def test_a_token_that_a_redirect_carries_is_not_sent_on(
    server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(server, "/old", f"{other_server.url}/new?gitlab_token={TOKEN}&a=1")
    other_server.route("/new", b"there")
    fetch(session_for(server.url), f"{server.url}/old?gitlab_token={TOKEN}")
    assert [request.target for request in server.requests] == ["/old"]
    assert [request.target for request in other_server.requests] == ["/new?a=1"]


# -- threads in a storm -------------------------------------------------------------------------


class Limited:
    """A route that serves so many requests in a window of time, and refuses the others."""

    def __init__(self, served: int, window: float, *, hint: bool, announces: bool = False) -> None:
        self.refused = 0
        self.asked = 0
        self._served, self._window, self._hint = served, window, hint
        self._announces = announces
        self._began, self._count = 0.0, 0
        self._lock = threading.Lock()

    def __call__(self, request: RecordedRequest) -> Answer:
        with self._lock:
            now = time.monotonic()
            self.asked += 1
            if now - self._began >= self._window:
                self._began, self._count = now, 0
            self._count += 1
            left = self._began + self._window - now
            if self._count <= self._served:
                quota = f'"api";r={self._served - self._count};t={int(left + 1)}'
                headers = (("RateLimit", quota),) if self._announces else ()
                return Answer(200, headers, b"{}")
            self.refused += 1
        headers = (("x-amz-retry-after", str(int(left * 1000) + 1)),) if self._hint else ()
        return Answer(429, headers, b"Retry later")


def test_a_storm_that_the_server_announces_wastes_hardly_any_requests(
    server: LoopbackServer, session_for: Sessions
) -> None:
    route = Limited(20, 1.0, hint=True, announces=True)
    server.route("/x", route)
    session = session_for(server.url, retry=RetryPolicy(max_attempts=20))
    run_together([lambda: [fetch(session, f"{server.url}/x") for _ in range(3)]] * 16)
    assert route.asked - route.refused == 48
    assert route.refused <= 0.05 * route.asked


@pytest.mark.parametrize(("hint", "allowed"), [(True, 0.10), (False, 0.25)])
def test_a_storm_of_threads_wastes_few_requests(
    hint: bool, allowed: float, server: LoopbackServer, session_for: Sessions
) -> None:
    route = Limited(100, 0.3, hint=hint)
    server.route("/x", route)
    policy = RetryPolicy(max_attempts=20, backoff_base=0.1, backoff_cap=0.6)
    session = session_for(server.url, retry=policy)
    work = iter(range(600))
    lock = threading.Lock()
    failures: list[STACGitLabError] = []

    def ask() -> None:
        try:
            while True:
                with lock:
                    if next(work, None) is None:
                        return
                fetch(session, f"{server.url}/x")
        except STACGitLabError as error:
            failures.append(error)

    run_together([ask] * 16)
    assert failures == []
    assert route.asked - route.refused == 600
    assert 0 < route.refused <= allowed * route.asked


def test_a_429_that_one_thread_sees_pauses_the_others(
    server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    server.route("/x", b"{}")
    server.route("/y", b"{}")
    session = session_for(server.url)
    server.inject(Fault(path="/x", status=429, headers={"Retry-After": "30"}, times=None))
    with pytest.raises(RateLimitError):
        fetch(session, f"{server.url}/x", retry=session.retry.replace(max_attempts=1))
    run_together([lambda: fetch(session, f"{server.url}/y")])
    assert clock.slept == [pytest.approx(30)]


def test_a_429_of_one_origin_does_not_pause_another(
    server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions, clock: Clock
) -> None:
    other_server.route("/y", b"{}")
    session = session_for(server.url)
    server.inject(Fault(status=429, headers={"Retry-After": "30"}, times=None))
    with pytest.raises(RateLimitError):
        fetch(session, f"{server.url}/x", retry=session.retry.replace(max_attempts=1))
    fetch(session, f"{other_server.url}/y")
    assert clock.slept == []


def test_many_threads_share_a_session(
    server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    for each in (server, other_server):
        each.route("/x", lambda request: request.query["n"])
    session = session_for(server.url)
    wrong: list[Any] = []

    def ask(thread: int) -> None:
        for n in range(20):
            for each in (server, other_server):
                found = fetch(session, f"{each.url}/x?n={thread}-{n}")
                if found != f"{thread}-{n}".encode():
                    wrong.append(found)

    run_together([lambda thread=thread: ask(thread) for thread in range(12)])
    assert wrong == []
    assert tokens(server) == [{"X-Gitlab-Token": TOKEN}] * 240
    assert tokens(other_server) == [{}] * 240


def run_together(works: list[Callable[[], Any]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


# -- sizes --------------------------------------------------------------------------------------


def gzip_bomb(size: int) -> bytes:
    return gzip.compress(b"\0" * size)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
def test_decompression_stops_at_the_limit(
    encoding: str, server: LoopbackServer, session_for: Sessions
) -> None:
    bomb = zlib.compress(b"\0" * 10**8) if encoding == "deflate" else gzip_bomb(10**8)
    if encoding == "gzip, gzip":
        bomb = gzip.compress(bomb)
    server.route("/x", bomb, headers={"Content-Encoding": encoding})
    began = time.monotonic()
    with pytest.raises(InvalidResponseError, match="larger than 1000000 bytes"):
        fetch(session_for(server.url), f"{server.url}/x")
    assert time.monotonic() - began < 10
    assert len(server.requests) == 1


def test_a_document_that_announces_too_much_is_not_read(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"x" * 101)
    session = session_for(server.url)
    with pytest.raises(InvalidResponseError, match="max_document_bytes"):
        fetch(session, f"{server.url}/x", max_bytes=100)
    assert len(fetch(session, f"{server.url}/x", max_bytes=101)) == 101


def test_a_document_without_end_is_cut_off(session_for: Sessions) -> None:
    def endless(server: RawServer, connection: socket.socket) -> None:
        server.send(connection, [b"HTTP/1.1 200 OK\r\n\r\n"])
        server.send(connection, (b" " * 65536 for _ in range(100_000)))

    with RawServer(endless) as server, pytest.raises(InvalidResponseError, match="larger than"):
        fetch(session_for(server.url), server.url)


@pytest.mark.parametrize("length", ["\xb2", "-1", "abc", "9" * 30, "5, 5", "+5", ""])
def test_a_length_that_is_no_number_does_no_harm(
    length: str, session_for: Sessions, policy: RetryPolicy
) -> None:
    def answer(server: RawServer, connection: socket.socket) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nthere"
        server.send(connection, [head.encode("latin-1")])

    with RawServer(answer) as server:
        session = session_for(server.url, retry=policy.replace(max_attempts=1))
        try:
            assert fetch(session, server.url) == b"there"
        except STACGitLabError:
            assert length == "9" * 30


def test_the_length_of_a_redirect_that_is_no_number_does_no_harm(session_for: Sessions) -> None:
    def answer(server: RawServer, connection: socket.socket) -> None:
        first = len(server.requests) == 1
        head = "302 Found\r\nLocation: /x\r\nContent-Length: \xb2" if first else "200 OK"
        server.send(connection, [f"HTTP/1.1 {head}\r\n\r\nthere".encode("latin-1")])

    with RawServer(answer) as server:
        assert fetch(session_for(server.url), server.url) == b"there"


@pytest.mark.parametrize("compressed", [True, False])
def test_a_compressed_document_comes_decompressed(
    compressed: bool, server: LoopbackServer, session_for: Sessions
) -> None:
    body = json.dumps({"a": list(range(10_000))}).encode()
    server.route("/x", body)
    if compressed:
        server.inject(Fault(gzip=True))
    assert fetch(session_for(server.url), f"{server.url}/x") == body
    assert server.requests[0].headers["Accept-Encoding"] == "gzip, deflate"


def test_a_download_asks_for_the_bytes_as_they_are(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"bytes", ranges=True)
    session = session_for(server.url)
    with session.open(f"{server.url}/x", headers={"Range": "bytes=1-2"}) as response:
        assert response.status_code == 206
        assert response.raw.read() == b"yt"
    assert server.requests[0].headers["Accept-Encoding"] == "identity"
    with session.open(
        f"{server.url}/x", headers={"Range": "bytes=9-"}, statuses=frozenset({416})
    ) as response:
        assert response.status_code == 416
    with pytest.raises(HTTPStatusError):
        session.open(f"{server.url}/x", headers={"Range": "bytes=9-"})


# -- other people's transports ------------------------------------------------------------------


def test_requests_mock_intercepts_everything(policy: RetryPolicy) -> None:
    with Mocker() as mocker, GitLabStacIO(TOKEN, retry=policy) as stac_io:
        mocker.get("https://hub.example.org/old", status_code=302, headers={"Location": "/x"})
        mocker.get("https://hub.example.org/x", [{"status_code": 503}, {"json": {"a": 1}}])
        assert stac_io.read_json("https://hub.example.org/old") == {"a": 1}
        assert [r.headers["X-Gitlab-Token"] for r in mocker.request_history] == [TOKEN] * 4


def test_an_adapter_mounted_on_our_session_is_used(policy: RetryPolicy) -> None:
    adapter = Adapter()
    adapter.register_uri("GET", "mock://hub/x", content=b"there")
    adapter.register_uri("GET", "https://hub.example.org/x", json={"a": 1})
    with GitLabStacIO(TOKEN, retry=policy) as stac_io:
        stac_io.session.mount("https://hub.example.org", adapter)
        assert stac_io.read_json("https://hub.example.org/x") == {"a": 1}


def test_a_session_of_the_callers_own_is_used(policy: RetryPolicy) -> None:
    own = requests.Session()
    own.headers["User-Agent"] = "my-script"
    with GitLabStacIO(TOKEN, session=own, retry=policy) as stac_io:
        adapter = Adapter()
        own.mount("https://", adapter)  # later than the reader was made
        adapter.register_uri("GET", "https://hub.example.org/x", json={"a": 1})
        assert stac_io.read_json("https://hub.example.org/x") == {"a": 1}
    sent = adapter.last_request.headers
    assert sent["X-Gitlab-Token"] == TOKEN
    assert sent["User-Agent"] == "my-script"
    assert "X-Gitlab-Token" not in own.headers


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("auth", ("user", "canary"), "auth"),
        ("params", {"key": "canary"}, "params"),
        ("cookies", {"session": "canary"}, "cookies"),
        ("headers", {"Authorization": "Basic canary", "User-Agent": "x"}, "the header Authoriz"),
        ("headers", {"x-custom": "canary"}, "the header x-custom"),
    ],
)
def test_secrets_of_a_session_of_the_callers_own_are_refused_and_not_dropped(
    name: str, value: Any, named: str
) -> None:
    own = requests.Session()
    if isinstance(value, dict):
        getattr(own, name).update(value)
    else:
        setattr(own, name, value)
    with pytest.raises(ConfigurationError, match=f"session= has {named}.*headers=") as caught:
        GitLabStacIO(session=own)
    assert "canary" not in str(caught.value)


@pytest.mark.usefixtures("netrc", "proxy")
@pytest.mark.parametrize("trusts", [True, False])
def test_certificates_and_trust_in_the_environment_are_those_of_the_callers_session(
    trusts: bool, policy: RetryPolicy
) -> None:
    own = requests.Session()
    own.cert, own.verify, own.trust_env = ("client.pem", "key.pem"), "authority.pem", trusts
    used: list[dict[str, Any]] = []

    class Noting(Adapter):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            used.append({"login": "Authorization" in request.headers, **kwargs})
            return super().send(request, **kwargs)

    adapter = Noting()
    adapter.register_uri("GET", "http://localhost/x", json={"a": 1})
    own.mount("http://", adapter)
    with GitLabStacIO(session=own, retry=policy) as stac_io:
        stac_io.read_json("http://localhost/x")
    assert (used[0]["cert"], used[0]["verify"]) == (own.cert, own.verify)
    assert used[0]["login"] is trusts
    assert bool(used[0]["proxies"]) is trusts


@pytest.mark.parametrize(
    ("deadline", "expected"), [(100.0, (10, 60)), (30.0, (10, 30)), (5, (5, 5))]
)
def test_an_adapter_of_the_caller_gets_timeouts_within_the_deadline(
    deadline: float, expected: tuple[float, float], policy: RetryPolicy
) -> None:
    timeouts: list[Any] = []

    class Noting(Adapter):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            timeouts.append(kwargs["timeout"])
            return super().send(request, **kwargs)

    adapter, own = Noting(), requests.Session()
    adapter.register_uri("GET", "https://hub.example.org/x", json={"a": 1})
    own.mount("https://", adapter)
    with GitLabStacIO(session=own, retry=policy.replace(deadline=deadline)) as stac_io:
        stac_io.read_json("https://hub.example.org/x")
    assert timeouts == [expected]


def test_a_plain_session_of_the_callers_own_keeps_our_name(server: LoopbackServer) -> None:
    server.route("/x", {"a": 1})
    with requests.Session() as own, GitLabStacIO(TOKEN, session=own) as stac_io:
        stac_io.read_json(f"{server.url}/x")
    assert server.requests[0].headers["User-Agent"].startswith("stac-gitlab/")
    assert tokens(server) == [{"X-Gitlab-Token": TOKEN}]


@pytest.fixture
def proxy(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> LoopbackServer:
    """A server that takes whole URLs, as a proxy does, named in the environment."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "direct.invalid")
    return server


def test_the_proxy_of_the_environment_is_used(proxy: LoopbackServer, session_for: Sessions) -> None:
    proxy.route("http://hub.localhost/x", b"there")
    assert fetch(session_for("hub.localhost"), "http://hub.localhost/x") == b"there"
    [request] = proxy.requests
    assert request.target == "http://hub.localhost/x"
    assert tokens(proxy) == [{"X-Gitlab-Token": TOKEN}]


def test_a_proxy_that_is_not_there_is_named_in_the_error(
    session_for: Sessions, monkeypatch: pytest.MonkeyPatch, policy: RetryPolicy
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:canary-word@127.0.0.1:1")
    session = session_for("hub.localhost", retry=policy.replace(max_attempts=1))
    with pytest.raises(NetworkError, match="HTTP_PROXY") as caught:
        fetch(session, "http://hub.localhost/x")
    assert "canary" not in everything_said(caught.value)


def test_the_session_is_a_requests_session_that_authorizes_every_request(
    server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    for each in (server, other_server):
        each.route("/x", {"a": 1})
    session = session_for(server.url)
    assert session.get(f"{server.url}/x").json() == {"a": 1}
    assert session.get(f"{other_server.url}/x").json() == {"a": 1}
    assert (tokens(server), tokens(other_server)) == ([{"X-Gitlab-Token": TOKEN}], [{}])
    assert "canary" not in repr(session.headers)


# -- the canary ---------------------------------------------------------------------------------


PACKAGE = os.path.join(os.path.dirname(stac_gitlab.__file__), "")


def everything_said(error: BaseException) -> str:
    """Everything that an error shows to whoever prints, logs, pickles or debugs it."""
    said: list[str] = []
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        todo += [link.__cause__, link.__context__]
        said += [str(link), repr(link), repr(link.args), repr(getattr(link, "__notes__", ""))]
        said += [repr(value) for value in vars(link).values()]
        for frame, _ in traceback.walk_tb(link.__traceback__):
            # A checkout may be called as the package is: the frames of a test are not ours.
            if frame.f_code.co_filename.startswith(PACKAGE):
                said.append(f"{frame.f_code.co_name}: {frame.f_locals!r}")
        for name in ("response", "request"):
            said += _said_by(getattr(link, name, None))
    said += traceback.TracebackException.from_exception(error, capture_locals=False).format()
    said.append(pickle.dumps(error).decode("latin-1"))
    return "\n".join(said)


def _said_by(message: Any) -> list[str]:
    """What a response or a request says, with the request behind it."""
    if message is None:
        return []
    said = [repr(vars(message)), str(getattr(message, "headers", "")), str(message.url)]
    said += [str(getattr(message, "body", "")), str(getattr(message, "text", ""))]
    for older in getattr(message, "history", ()):
        said += _said_by(older)
    return said + _said_by(getattr(message, "request", None))


def echo(status: int) -> Callable[[RecordedRequest], Answer]:
    """Answer with everything that was asked, in the body, the headers and the reason."""

    def answer(request: RecordedRequest) -> Answer:
        said = {"detail": f"asked: {dict(request.headers)}", "url": request.target}
        headers = (("X-Echo", TOKEN), ("Set-Cookie", f"session={TOKEN}"), ("Location", ""))
        return Answer(status, headers[:2], json.dumps(said).encode())

    return answer


def refusing_parser(document: Document) -> Any:
    text = document.body.decode()
    try:
        int(text)
    except ValueError:
        raise InvalidResponseError("not what was expected", url=document.url) from None


@pytest.mark.parametrize("header", ["auto", "Authorization: Bearer", "x-api-key"])
@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(answer=echo(status)) for status in (200, 304, 400, 401, 403, 404, 429, 500, 503)),
        Fault(status=302, headers={"Location": f"/next?private_token={TOKEN}"}),
        Fault(status=302, headers={"Location": f"file:///{TOKEN}"}),
        Fault(status=302, headers={"Location": f"http://me:{TOKEN}@127.0.0.1:1/"}),
        Fault(status=302, headers={"Location": f"http://[{TOKEN}"}),
        Fault(reset=True),
        Fault(drop=True),
        Fault(body=TOKEN, cut_after=3),
        Fault(body=TOKEN, headers={"Content-Encoding": "gzip"}),
        Fault(body=f"<!DOCTYPE html><html>Sign in, {TOKEN}</html>"),
        Fault(body=f"<!DOCTYPE html><html>Hello, {TOKEN}</html>"),
        Fault(body=TOKEN * 100_000),
    ],
)
def test_no_error_shows_the_token(
    fault: Fault,
    header: str,
    server: LoopbackServer,
    session_for: Sessions,
    policy: RetryPolicy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.route("/x", b"{}")
    server.inject(Fault(**{**vars(fault), "times": None}))
    session = session_for(server.url, header=header, retry=policy.replace(max_attempts=2))
    with caplog.at_level(logging.DEBUG), pytest.raises(STACGitLabError) as caught:
        session.fetch(f"{server.url}/x", refusing_parser, max_bytes=10**6)
    assert any("canary" in value for value in server.requests[0].headers.values())
    assert "canary" not in everything_said(caught.value)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("stac_gitlab")]
    assert "canary" not in "\n".join(ours)


def test_no_error_of_a_reader_shows_the_token_that_an_answer_holds(
    server: LoopbackServer, policy: RetryPolicy
) -> None:
    # SharingHub writes the token into what it answers; the document itself is broken.
    href = f"{server.url}/api/download/a?gitlab_token={TOKEN}"
    server.route("/list", [href])
    server.route("/cut", f'{{"href": "{href}", '.encode())
    server.route("/text", href.encode())
    server.route(
        "/item",
        {"type": "Feature", "stac_version": "1.0.0", "id": "x", "links": [], "href": href},
    )
    with GitLabStacIO(TOKEN, retry=policy) as stac_io:
        for path in ("/list", "/cut", "/text", "/item"):
            with pytest.raises(STACGitLabError) as caught:
                stac_io.read_json(f"{server.url}{path}")
            assert "canary" not in everything_said(caught.value), path


def test_a_secret_in_the_url_is_not_shown_either(
    session_for: Sessions, policy: RetryPolicy, server: LoopbackServer
) -> None:
    session = session_for("hub.example.org", retry=policy.replace(max_attempts=1))
    server.inject(Fault(status=404, times=None))
    for base in (server.url, "http://127.0.0.1:1", "http://127.0.0.1:port"):
        secret = base.replace("//", "//me:canary-word@") + "/x?private_token=canary-query&a=1"
        with pytest.raises(STACGitLabError) as caught:
            fetch(session, secret)
        error = caught.value
        error.__traceback__ = None  # the caller's own frames hold the URL that the caller wrote
        assert "canary" not in everything_said(error)


@pytest.mark.parametrize("outcome", [{"status": 200}, {"status": 401}, {"reset": True}])
def test_no_log_of_any_level_shows_the_token(
    outcome: dict[str, Any],
    server: LoopbackServer,
    session_for: Sessions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.route("/x", b"{}")
    redirect(server, "/old", f"/x?gitlab_token={TOKEN}")
    server.inject(Fault(path="/x", times=None, **outcome))
    session = session_for(server.url, headers={"X-Secret": "extra-canary"})
    with caplog.at_level(logging.DEBUG), suppress(STACGitLabError):
        fetch(session, f"{server.url}/old?gitlab_token={TOKEN}")
    assert any(record.name.startswith("urllib3") for record in caplog.records)
    for record in caplog.records:
        assert "canary" not in f"{record.getMessage()} {record.args} {record.exc_info}"


def test_the_scrubbed_response_is_still_of_use(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", {"detail": "wrong category", "code": 7}, status=400)
    with pytest.raises(requests.HTTPError) as caught:
        fetch(session_for(server.url), f"{server.url}/x?a=1", method="POST", json={"b": 2})
    response = caught.value.response
    assert response.json() == {"detail": "wrong category", "code": 7}
    assert response.headers["content-type"] == "application/json"
    assert response.request.method == "POST"
    assert response.request.url == response.url == f"{server.url}/x?a=1"
    assert http.client.responses[response.status_code] == response.reason


def test_a_header_of_the_user_is_redacted_in_errors_however_short_it_is(
    server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"", status=403)
    session = session_for(server.url, headers={"X-Pin": "1234", "Accept-Language": "en"})
    with pytest.raises(PermissionDeniedError) as caught:
        fetch(session, f"{server.url}/x")
    assert server.requests[0].headers["X-Pin"] == "1234"
    headers = caught.value.response.request.headers
    assert (headers["X-Pin"], headers["Accept-Language"]) == ("***", "en")


def test_a_token_in_the_path_of_a_redirect_is_not_in_the_url_of_the_document(
    server: LoopbackServer, session_for: Sessions
) -> None:
    redirect(server, "/x", f"{server.url}/{TOKEN}/y")
    server.route(f"/{TOKEN}/y", b"{}")
    url = session_for(server.url).fetch(f"{server.url}/x", lambda d: d.url, max_bytes=100)
    assert url == f"{server.url}/***/y"


@pytest.mark.parametrize("spelled", [TOKEN, f"%{ord(TOKEN[0]):x}{TOKEN[1:]}"])
def test_a_redirect_that_would_carry_our_token_away_is_not_followed(
    spelled: str, server: LoopbackServer, other_server: LoopbackServer, session_for: Sessions
) -> None:
    away = f"{other_server.url}/x?private_token={spelled}"
    server.route("/x", b"", status=302, headers={"Location": away})
    with pytest.raises(InvalidResponseError, match="contains one of your secrets") as e:
        fetch(session_for(server.url), f"{server.url}/x")
    assert other_server.requests == []
    assert TOKEN not in str(e.value)


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-1"}])
def test_a_304_without_a_condition_is_an_error(
    headers: dict[str, str], server: LoopbackServer, session_for: Sessions
) -> None:
    server.route("/x", b"", status=304)
    session = session_for(server.url)
    with pytest.raises(HTTPStatusError, match=r"304 Not Modified.*no condition"):
        session.open(f"{server.url}/x", headers=headers, statuses=frozenset({304}))
    headers = {**headers, "If-None-Match": '"a"'}
    with session.open(f"{server.url}/x", headers=headers, statuses=frozenset({304})) as response:
        assert response.status_code == 304


def test_the_reason_of_a_status_reaches_no_terminal_as_an_escape(
    server: LoopbackServer, session_for: Sessions
) -> None:
    response = requests.Response()
    response.status_code, response.reason, response.url = 403, "\x1b[31mNo", f"{server.url}/x"
    response._content = b""
    assert "\x1b" not in str(error_for_status(response))
