"""Tokens, the origins that may see them, and texts without secrets."""

from __future__ import annotations

import logging
import pickle
import threading
import warnings
from base64 import b64encode
from collections.abc import Callable

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from stac_gitlab import redaction
from stac_gitlab.auth import Credentials, Origin, Token, parse_host
from stac_gitlab.auth.origins import DEFAULT_PORTS, paths_of_servers
from stac_gitlab.errors import ConfigurationError, ImplicitTokenWarning, InsecureTransportWarning

TOKEN = "glpat-canary-0123456789"
HUB = "https://hub.example.org"


def header(token: Token) -> tuple[str, str]:
    return "X-Gitlab-Token", ""


def sent_to(credentials: Credentials, url: str) -> dict[str, str]:
    return credentials.headers_for(url, header)


@given(
    st.one_of(
        st.text("htps:/\\@?#[]. \t\n%2eab:80", max_size=30).map("http://".__add__),
        st.text(max_size=30).map("https://hub.example.org".__add__),
    )
)
def test_an_origin_is_where_requests_would_connect(url: str) -> None:
    origin = Origin.of(url)
    try:
        prepared = requests.Request("GET", url).prepare().url or ""
        reached = parse_url(prepared)
    except (requests.RequestException, ValueError, LocationParseError):
        return
    if origin is not None:
        host = (reached.host or "").strip("[]").lower().removesuffix(".")
        port = reached.port if reached.port is not None else DEFAULT_PORTS[reached.scheme or ""]
        assert origin == (reached.scheme, host, port)
        assert reached.auth is None
        assert Origin.of(prepared) == origin


# -- origins ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://hub.example.org",
        "https://hub.example.org/",
        "HTTPS://HUB.Example.ORG/api/stac",
        "https://hub.example.org:443/api?x=1",
        "https://hub.example.org./api",
        "https://hub.example.org/me@host/a\\b c",
    ],
)
def test_one_origin_has_many_spellings(url: str) -> None:
    assert Origin.of(url) == ("https", "hub.example.org", 443)


@pytest.mark.parametrize(
    "url",
    [
        "http://hub.example.org",
        "https://hub.example.org:8443",
        "https://hub.example.org.evil.example",
        "https://evil-hub.example.org",
        "https://example.org",
        "https://hub.example.org@evil.example",
        "https://evil.example/hub.example.org",
        "https://evil.example?hub.example.org",
        "https://evil.example#@hub.example.org",
        "https://hub.example.org%2eevil.example",
        "https://hub。example。org.evil.example",
        "https://hub.ex\N{CYRILLIC SMALL LETTER A}mple.org",
    ],
)
def test_a_look_alike_is_another_origin(url: str) -> None:
    assert Origin.of(url) != ("https", "hub.example.org", 443)
    credentials = Credentials(TOKEN, base_url=HUB)
    assert sent_to(credentials, url) == {}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "catalog.json",
        "/srv/catalog.json",
        "C:\\stac\\catalog.json",
        "file:///srv/catalog.json",
        "ftp://hub.example.org",
        "s3://bucket/key",
        "//hub.example.org/x",
        "https://",
        "https:///path",
        "https://[::1",
        "https://hub.example.org:port",
        "https://hub.example.org:99999",
        "https://\udcff.example.org",
    ],
)
def test_what_is_no_http_url_has_no_origin(url: str) -> None:
    assert Origin.of(url) is None


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_an_international_name_is_compared_as_requests_asks_for_it(
    host: str, ascii_host: str
) -> None:
    assert Origin.of(f"https://{host}/x") == Origin.of(f"https://{ascii_host}/y")


def test_an_origin_reads_like_a_url() -> None:
    assert str(Origin.of("https://hub.example.org:443/x")) == "https://hub.example.org"
    assert str(Origin.of("http://hub.example.org:8080/x")) == "http://hub.example.org:8080"
    assert str(Origin.of("https://[::1]:8443/x")) == "https://[::1]:8443"


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://gitlab.example.org/group", {"https://gitlab.example.org"}),
        ("http://gitlab.example.org", {"http://gitlab.example.org"}),
        ("gitlab.example.org", {"https://gitlab.example.org"}),
        ("GitLab.Example.org:8443", {"https://gitlab.example.org:8443"}),
        ("localhost:8000", {"https://localhost:8000", "http://localhost:8000"}),
        ("127.0.0.2", {"https://127.0.0.2", "http://127.0.0.2"}),
        ("[::1]:80", {"https://[::1]:80", "http://[::1]"}),
    ],
)
def test_a_bare_host_means_https_and_on_this_machine_http_too(text: str, origins: set[str]) -> None:
    assert {str(origin) for origin in parse_host(text)} == origins


@pytest.mark.parametrize(
    "text", ["", "https://", "ftp://hub.example.org", "host:port", "*.example.org", "https://*"]
)
def test_a_host_that_could_never_match_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a host"):
        Credentials(TOKEN, hosts=[text] if text else [""])


def test_a_bad_base_url_is_shown_without_its_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Credentials(TOKEN, base_url="ftp://me:canary-password@hub.example.org")
    assert "canary-password" not in str(caught.value)


# -- which origins get the token ----------------------------------------------------------------


def test_the_token_is_bound_to_the_first_origin_read(caplog: pytest.LogCaptureFixture) -> None:
    credentials = Credentials(TOKEN)
    assert sent_to(credentials, f"{HUB}/api") == {}
    with caplog.at_level(logging.INFO, "stac_gitlab"):
        credentials.bind(f"{HUB}/api/stac")
        credentials.bind("https://second.example.org")
    assert sent_to(credentials, f"{HUB}/other") == {"X-Gitlab-Token": TOKEN}
    assert sent_to(credentials, "https://second.example.org") == {}
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert f"bound to {HUB}" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/item.json",
        "https://stac-extensions.github.io/file/v2.1.0/schema.json",
        "https://raw.githubusercontent.com/radiantearth/stac-spec/master/catalog.json",
        "https://media.githubusercontent.com/media/x/y/main/catalog.json",
        "https://GROUP.gitlab.io/catalog.json",
        "https://json-schema.org./draft-07/schema",
        "file:///srv/catalog.json",
        "/srv/catalog.json",
    ],
)
def test_the_token_is_not_bound_to_a_public_host_or_a_file(url: str) -> None:
    credentials = Credentials(TOKEN)
    credentials.bind(url)
    assert credentials.origins == frozenset()
    credentials.bind(HUB)
    assert credentials.allows(HUB)
    assert not credentials.allows(url)


def test_named_origins_are_never_added_to_by_reading() -> None:
    credentials = Credentials(TOKEN, base_url=HUB, hosts=["gitlab.example.org", "localhost:8000"])
    credentials.bind("https://first.example.org")
    assert {str(origin) for origin in credentials.origins} == {
        HUB,
        "https://gitlab.example.org",
        "https://localhost:8000",
        "http://localhost:8000",
    }


def test_a_single_host_may_be_given_as_text() -> None:
    assert Credentials(TOKEN, hosts="hub.example.org").allows(HUB)


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAC_GITLAB_URL", f"{HUB}/api/stac")
    assert Credentials(TOKEN).allows(HUB)
    assert not Credentials(TOKEN, base_url="https://other.example.org").allows(HUB)


def test_a_token_of_the_environment_is_bound_with_a_warning_that_comes_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITLAB_TOKEN", TOKEN)
    credentials = Credentials()
    with pytest.warns(
        ImplicitTokenWarning, match=r"GITLAB_TOKEN is sent to https://hub.*base_url="
    ):
        credentials.bind(f"{HUB}/api/stac")
    credentials.bind(f"{HUB}/api/stac")  # warnings are errors: there is none
    assert credentials.origins == {Origin.of(HUB)}


def test_a_warning_that_is_an_error_keeps_the_token_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_TOKEN", TOKEN)
    credentials = Credentials()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImplicitTokenWarning):
            credentials.bind(HUB)
    assert credentials.origins == frozenset()


def test_the_token_of_a_ci_job_belongs_to_the_server_of_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI_JOB_TOKEN", "job-token")
    monkeypatch.setenv("CI_SERVER_URL", "https://gitlab.example.org")
    credentials = Credentials()
    credentials.bind(HUB)
    assert credentials.origins == {Origin.of("https://gitlab.example.org")}
    assert Credentials(base_url=HUB).origins == credentials.origins | {Origin.of(HUB)}
    assert Credentials(TOKEN, base_url=HUB).origins == {Origin.of(HUB)}
    monkeypatch.setenv("GITLAB_TOKEN", TOKEN)
    assert credentials.origins == frozenset()


def test_a_token_function_that_returns_no_text_says_so() -> None:
    with pytest.raises(ConfigurationError, match="passed as token= returned an empty text"):
        Credentials(lambda: " ", base_url=HUB).token()
    withheld = Credentials(lambda: None, base_url=HUB)
    assert withheld.token() is None
    assert withheld.is_withheld
    assert not Credentials(TOKEN).is_withheld


def test_without_any_secret_nothing_is_bound() -> None:
    credentials = Credentials()
    credentials.bind(HUB)
    assert credentials.origins == frozenset()
    assert not credentials.available


# -- which token --------------------------------------------------------------------------------


def test_the_environment_is_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = Credentials(base_url=HUB)
    assert sent_to(credentials, HUB) == {}
    for name in ("CI_JOB_TOKEN", "GITLAB_TOKEN", "STAC_GITLAB_TOKEN"):
        monkeypatch.setenv(name, f"from-{name}")
        assert sent_to(credentials, HUB) == {"X-Gitlab-Token": f"from-{name}"}
    monkeypatch.setenv("STAC_GITLAB_TOKEN", "  ")
    assert sent_to(credentials, HUB) == {"X-Gitlab-Token": "from-GITLAB_TOKEN"}


def test_only_the_token_of_a_ci_job_is_a_job_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_JOB_TOKEN", "job")
    token = Credentials().token()
    assert token is not None
    assert token.is_job_token
    monkeypatch.setenv("GITLAB_TOKEN", "mine")
    token = Credentials().token()
    assert token is not None
    assert not token.is_job_token


def test_an_explicit_token_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAC_GITLAB_TOKEN", "environment")
    assert sent_to(Credentials(TOKEN, base_url=HUB), HUB) == {"X-Gitlab-Token": TOKEN}


@pytest.mark.parametrize("token", ["", "  \n", "two words", "li\nne", "schlüssel", "nul\0"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Credentials(token)
    assert not token.strip() or token not in str(caught.value)


@pytest.mark.parametrize("token", [b"bytes", 7, ["list"]])
def test_a_token_of_another_type_is_refused(token: object) -> None:
    with pytest.raises(ConfigurationError, match="has to be a string"):
        Credentials(token)  # type: ignore[arg-type]


def test_the_line_break_of_a_token_file_does_no_harm() -> None:
    credentials = Credentials(f"{TOKEN}\n", base_url=HUB)
    assert sent_to(credentials, HUB) == {"X-Gitlab-Token": TOKEN}


def test_a_token_function_is_asked_once_and_again_after_a_refusal() -> None:
    given = iter(["first", "second", "second"])
    credentials = Credentials(lambda: next(given), base_url=HUB)
    first = credentials.token()
    assert credentials.token() == first == Token("first")
    assert credentials.renew(first)
    assert credentials.token() == Token("second")
    assert not credentials.renew(Token("second")), "the same token again is no help"


def test_a_token_function_may_stay_anonymous() -> None:
    credentials = Credentials(lambda: None, base_url=HUB)
    assert sent_to(credentials, HUB) == {}
    assert not credentials.renew(None)


def test_many_threads_that_are_refused_renew_the_token_once() -> None:
    asked: list[str] = []

    def give() -> str:
        asked.append(f"token-{len(asked)}")
        return asked[-1]

    credentials = Credentials(give, base_url=HUB)
    refused = credentials.token()
    start = threading.Barrier(8)
    renewed: list[bool] = []

    def renew() -> None:
        start.wait(5)
        renewed.append(credentials.renew(refused))

    threads = [threading.Thread(target=renew) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert renewed == [True] * 8
    assert asked == ["token-0", "token-1"]


# -- under which header -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "sent"),
    [
        ("auto", {"X-Gitlab-Token": TOKEN}),
        ("x-api-key", {"x-api-key": TOKEN}),
        ("Authorization: Bearer", {"Authorization": f"Bearer {TOKEN}"}),
        ("Authorization:Bearer", {"Authorization": f"Bearer {TOKEN}"}),
    ],
)
def test_the_header_can_be_named(named: str, sent: dict[str, str]) -> None:
    assert sent_to(Credentials(TOKEN, base_url=HUB, header=named), HUB) == sent


@pytest.mark.parametrize("named", ["", "two words", "x-api-key\r\nHost", "A: B C", ": Bearer", "ü"])
def test_a_header_that_makes_no_sense_is_refused(named: str) -> None:
    with pytest.raises(ConfigurationError, match="header="):
        Credentials(TOKEN, header=named)


def test_the_users_own_headers_go_where_the_token_goes() -> None:
    credentials = Credentials(base_url=HUB)
    credentials.headers = {"X-Secret": TOKEN, "Accept-Language": "de"}
    assert sent_to(credentials, HUB) == {"X-Secret": TOKEN}
    assert sent_to(credentials, "https://other.example.org") == {}
    assert credentials.harmless_headers() == {"Accept-Language": "de"}


def test_the_guides_header_counts_as_a_token() -> None:
    credentials = Credentials(base_url=HUB)
    credentials.headers = {"x-gitlab-token": f" {TOKEN}\n"}
    assert credentials.token() == Token(TOKEN)
    assert credentials.headers_for(HUB, lambda _: ("PRIVATE-TOKEN", "")) == {"PRIVATE-TOKEN": TOKEN}


def test_the_users_own_header_beats_the_token_of_that_name() -> None:
    credentials = Credentials("other-token", base_url=HUB)
    credentials.headers = {"x-gitlab-token": TOKEN}
    assert sent_to(credentials, HUB) == {"x-gitlab-token": TOKEN}


def test_the_users_own_headers_keep_the_environment_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAC_GITLAB_TOKEN", "environment")
    credentials = Credentials(base_url=HUB)
    credentials.headers = {"Authorization": f"Bearer {TOKEN}"}
    assert sent_to(credentials, HUB) == {"Authorization": f"Bearer {TOKEN}"}


def test_a_header_of_the_user_that_cannot_be_sent_is_refused_without_showing_it() -> None:
    credentials = Credentials(base_url=HUB)
    credentials.headers = {"X-Secret": f"{TOKEN}\nHost: evil.example"}
    with pytest.raises(ConfigurationError, match="'X-Secret'") as caught:
        sent_to(credentials, HUB)
    assert TOKEN not in str(caught.value)


# -- plain http ---------------------------------------------------------------------------------


def test_plain_http_warns_once_for_each_origin() -> None:
    credentials = Credentials(TOKEN, hosts=["http://hub.example.org", "http://b.example.org"])
    with pytest.warns(InsecureTransportWarning, match=r"http://hub\.example\.org") as warned:
        sent_to(credentials, "http://hub.example.org/a")
    assert TOKEN not in str(warned[0].message)
    sent_to(credentials, "http://hub.example.org/b")  # warnings are errors: there is none
    with pytest.warns(InsecureTransportWarning, match=r"http://b\.example\.org"):
        sent_to(credentials, "http://b.example.org")


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000", "http://hub.localhost", "http://127.0.0.9", "http://[::1]", HUB],
)
def test_loopback_and_https_do_not_warn(url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sent_to(Credentials(TOKEN, hosts=[url]), url)


def test_plain_http_does_not_warn_where_nothing_secret_is_sent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sent_to(Credentials(TOKEN, base_url=HUB), "http://hub.example.org") == {}


def test_secrets_are_remembered_after_they_were_replaced() -> None:
    given = iter(["token-one", "token-two"])
    credentials = Credentials(lambda: next(given), base_url=HUB)
    credentials.headers = {"X-Extra": "Bearer extra-secret"}
    sent_to(credentials, HUB)
    credentials.renew(Token("token-one"))
    credentials.headers = {}
    assert redaction.redact("token-one, token-two, extra-secret") == "***, ***, ***"
    assert credentials.holds("a token-one")


@pytest.mark.parametrize(
    "text_of", [repr, str, lambda c: repr(c.token()), lambda c: f"{c.token()!s} {c.token()!r}"]
)
def test_no_representation_shows_a_token(text_of: Callable[[Credentials], str]) -> None:
    credentials = Credentials(TOKEN, base_url=HUB)
    credentials.headers = {"X-Secret": "another-canary"}
    assert "canary" not in text_of(credentials)


# -- pickles ------------------------------------------------------------------------------------


def copied(credentials: Credentials, *, with_secrets: bool = False) -> Credentials:
    state = pickle.dumps(credentials.state(with_secrets=with_secrets))
    if not with_secrets:
        assert b"canary" not in state
    return Credentials.from_state(pickle.loads(state))


def test_an_explicit_token_stays_behind_and_the_worker_is_told() -> None:
    for base_url in (HUB, None):
        worker = copied(Credentials(TOKEN, base_url=base_url))
        worker.bind(HUB)
        with pytest.raises(ConfigurationError, match="pickled without its token"):
            sent_to(worker, HUB)
        assert sent_to(worker, "https://other.example.org") == {}
        assert "canary" not in repr(worker)


def test_a_worker_takes_the_token_from_its_own_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = copied(copied(Credentials(TOKEN, base_url=HUB)))
    monkeypatch.setenv("GITLAB_TOKEN", "workers-own")
    assert sent_to(worker, HUB) == {"X-Gitlab-Token": "workers-own"}


def test_a_token_travels_when_the_caller_allows_it() -> None:
    worker = copied(Credentials(TOKEN, base_url=HUB, header="x-api-key"), with_secrets=True)
    assert sent_to(worker, HUB) == {"x-api-key": TOKEN}


def test_secret_headers_stay_behind_and_harmless_ones_travel() -> None:
    credentials = Credentials(base_url=HUB)
    credentials.headers = {"X-Secret": TOKEN, "Accept-Language": "de"}
    worker = copied(credentials)
    assert worker.headers == {"Accept-Language": "de"}
    with pytest.raises(ConfigurationError, match="pickled without its token"):
        sent_to(worker, HUB)


def test_the_bound_origin_travels_and_what_was_anonymous_stays_so() -> None:
    credentials = Credentials(TOKEN)
    credentials.bind(HUB)
    assert copied(credentials, with_secrets=True).allows(HUB)
    assert sent_to(copied(Credentials(base_url=HUB)), HUB) == {}


def _token_of_a_worker() -> str:
    return "asked-for"


def test_a_token_function_travels() -> None:
    worker = copied(Credentials(_token_of_a_worker, base_url=HUB))
    assert sent_to(worker, HUB) == {"X-Gitlab-Token": "asked-for"}


def test_a_header_that_is_no_credential_does_not_silence_the_token_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    credentials = Credentials(base_url=HUB)
    credentials.headers = {"X-Team": "lakes"}
    assert sent_to(credentials, HUB) == {"X-Team": "lakes", "X-Gitlab-Token": TOKEN}


def test_secrets_in_the_locals_of_a_frame_are_not_shown() -> None:
    credentials = Credentials("glpat-secret", base_url="https://hub.example.org")
    credentials.token()
    assert credentials.holds("a glpat-secret")
    assert "glpat" not in repr(vars(credentials))


def test_user_and_password_of_a_basic_credential_are_secrets() -> None:
    credentials = Credentials(base_url=HUB)
    credentials.headers = {"Authorization": "Basic " + b64encode(b"someone:pass-word").decode()}
    sent_to(credentials, HUB)
    assert redaction.redact("someone:pass-word or pass-word") == "*** or ***"


def test_whatever_is_sent_to_bound_origins_only_is_a_secret() -> None:
    credentials = Credentials(base_url=HUB)
    credentials.headers = {"X-Team": "blue-lagoon"}
    credentials.bind(HUB)
    assert redaction.redact("the blue-lagoon") == "the ***"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://hub.example/gitlab", "/gitlab"),
        ("https://hub.example/gitlab/api/v4/?next=https://other.example/x", "/gitlab"),
        ("https://hub.example/?next=/gitlab", None),
        ("https://hub.example/#/gitlab", None),
        ("hub.example/gitlab/api", "/gitlab"),
    ],
)
def test_the_path_of_a_server_ends_before_its_api_and_its_query(url: str, path: str | None) -> None:
    hub = Origin.of("https://hub.example")
    assert paths_of_servers([url]) == ({} if path is None else {hub: path})
