"""Fixtures for all tests: servers on the loopback interface, and an environment without tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pystac
import pytest

from stac_gitlab import RetryPolicy, STACDownloader, redaction
from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE
from stac_gitlab.auth.credentials import JOB_SERVER_VARIABLE
from stac_gitlab.reading import paging
from stac_gitlab.testing import LoopbackServer

# Tests import the modules in this folder by their names.
sys.path.insert(0, str(Path(__file__).parent))

from fault_server import Certificate, TLSServer, make_certificate
from home import Home
from real_servers import gate, giftless, pgstac, rustac  # noqa: F401  # fixtures

# pytest has loaded the first already if the package is installed.
pytest_plugins = ["stac_gitlab.testing.fixtures", "pytester"]

# The time for one example depends on the load of the machine.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


class Clock:
    """A clock that only `sleep` moves.

    Attributes:
        now: The time, in seconds.
        slept: All sleeps so far, in seconds.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    """A clock for ``RetryPolicy(clock=clock.time, sleep=clock.sleep)``."""
    return Clock()


@pytest.fixture
def always_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefetch pages although the servers of the tests respond at once."""
    monkeypatch.setattr(paging, "LONG_WAIT", -1)


@pytest.fixture(autouse=True)
def stock_default_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo ``StacIO.set_default`` after each test."""
    monkeypatch.setattr(pystac.StacIO, "_default_io", None)


@pytest.fixture(autouse=True)
def no_known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of one test is not redacted in the texts of the next."""
    monkeypatch.setattr(redaction, "_known", redaction.KnownSecrets())


@pytest.fixture(autouse=True)
def no_token_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Remove the tokens and proxies of the developer from the environment."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-config"))
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    for name in (
        *TOKEN_VARIABLES,
        URL_VARIABLE,
        JOB_SERVER_VARIABLE,
        *proxies,
        *map(str.lower, proxies),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A server without routes."""
    with LoopbackServer() as running:
        yield running


@pytest.fixture
def other_server() -> Iterator[LoopbackServer]:
    """A second server, which is another origin because of its port."""
    with LoopbackServer() as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_server(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopbackServer]:
    """A server over TLS, with a certificate that the environment trusts."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.file))
    with TLSServer(certificate) as running:
        yield running


@pytest.fixture
def home(server: LoopbackServer, tmp_path: Path) -> Iterator[Home]:
    """Downloads of one file."""
    with ExitStack() as closing:
        yield Home(server, tmp_path, closing)


@pytest.fixture
def downloader(server: LoopbackServer) -> Iterator[STACDownloader]:
    """A downloader with a token for the server that retries without waiting."""
    policy = RetryPolicy(max_attempts=3, backoff_base=0)
    with STACDownloader("glpat-do-not-show-this", server.url, retry=policy) as made:
        yield made
