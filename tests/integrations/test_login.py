"""Tokens that a person types."""

from __future__ import annotations

import getpass
import json
import os
import stat
import sys
import traceback
from pathlib import Path

import pytest

from stac_gitlab import AuthenticationError, ConfigurationError, GitLabStacIO, login
from stac_gitlab.auth import token_store
from stac_gitlab.files.partial_file import PartialFile
from stac_gitlab.testing import SharingHubServer, sample_projects

TOKEN = "glpat-typed-0123456789"


class Terminal:
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of the tokens, for a person at a terminal without a keyring."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", Terminal())
    return tmp_path / "stac-gitlab" / "tokens.json"


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that are shown. The token is typed with a space after it."""
    shown: list[str] = []
    monkeypatch.setattr(getpass, "getpass", lambda prompt: shown.append(prompt) or f"{TOKEN} ")
    return shown


def test_a_typed_token_is_checked_and_stored_and_readers_use_it(
    store: Path, prompts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with SharingHubServer(sample_projects(), token=TOKEN) as hub:
        login(hub.url)
        assert prompts == [f"Token for {hub.url}: "]
        assert json.loads(store.read_text()) == {hub.url: TOKEN}
        assert hub.requests[-1].headers["X-Gitlab-Token"] == TOKEN
        printed = capsys.readouterr()
        assert printed.out == f"The token for {hub.url} is stored in {store}.\n"
        assert TOKEN not in printed.out + printed.err
        with GitLabStacIO(base_url=hub.url) as reader:
            assert reader.read_json(hub.item_url("alpine/lakes/ice-cover"))


@pytest.mark.usefixtures("prompts")
def test_a_token_that_the_server_refuses_is_not_stored(store: Path) -> None:
    with (
        SharingHubServer(sample_projects(), token="glpat-another") as hub,
        pytest.raises(AuthenticationError) as caught,
    ):
        login(hub.url)
    assert not store.exists()
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = [f"{f.filename} {f.locals}" for f in frames.stack if "stac_gitlab" in f.filename]
    assert len(shown) > 3
    assert TOKEN not in "".join(shown)


@pytest.mark.usefixtures("prompts")
def test_a_server_that_cannot_be_reached_is_said_and_the_environment_comes_first(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITLAB_TOKEN", "glpat-environment")
    with SharingHubServer() as hub:
        url = hub.url
    monkeypatch.setenv("STAC_GITLAB_URL", url)
    monkeypatch.setattr("stac_gitlab.settings.RetryPolicy.max_attempts", 1)
    login()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("It could not be checked: ")
    assert lines[2] == "GITLAB_TOKEN is set in the environment, and is used instead."
    assert store.exists()


@pytest.mark.usefixtures("store")
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="STAC_GITLAB_URL"):
        login()
    with pytest.raises(ConfigurationError, match=r"'https://\*\*\*@hub.example.org' is not"):
        login("https://user:hidden-password@hub.example.org")
    monkeypatch.setattr(getpass, "getpass", lambda _: " ")
    with pytest.raises(ConfigurationError, match="No token was typed"):
        login("https://hub.example.org")

    def refuse(_: str) -> str:
        raise NotImplementedError

    monkeypatch.setattr(getpass, "getpass", refuse)
    with pytest.raises(ConfigurationError, match="no terminal"):
        login("https://hub.example.org")


@pytest.mark.usefixtures("store", "prompts")
def test_nobody_is_asked_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, prompts: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigurationError, match="no terminal"):
        login("https://hub.example.org")
    assert prompts == []


@pytest.mark.skipif(os.name == "nt", reason="about POSIX files")
def test_what_a_killed_login_left_goes_with_the_next(store: Path) -> None:
    token_store.store_token("https://a.example.org", TOKEN)
    killed = PartialFile(store)
    killed.write(TOKEN.encode())
    # As at the end of a process.
    os.close(killed._handle)
    killed._handle = -1
    token_store.store_token("https://b.example.org", TOKEN)
    assert [path.name for path in store.parent.iterdir()] == ["tokens.json"]
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert set(json.loads(store.read_text())) == {"https://a.example.org", "https://b.example.org"}


@pytest.mark.skipif(os.name == "nt", reason="about POSIX files")
def test_a_token_is_never_in_a_file_that_others_can_read(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    write = PartialFile.write

    def watched(self: PartialFile, content: bytes) -> None:
        modes.append(stat.S_IMODE(os.stat(self.open_path()).st_mode))
        write(self, content)

    monkeypatch.setattr(PartialFile, "write", watched)
    token_store.store_token("https://a.example.org", TOKEN)
    token_store.store_token("https://b.example.org", TOKEN)
    assert modes == [0o600, 0o600]
    assert store.is_file()


@pytest.mark.skipif(os.name == "nt", reason="about POSIX files")
def test_a_pipe_in_place_of_the_store_is_not_waited_for(store: Path) -> None:
    store.parent.mkdir()
    os.mkfifo(store, 0o600)
    assert token_store.stored_servers() == []


@pytest.mark.skipif(os.name == "nt", reason="about POSIX files")
def test_a_link_to_the_store_is_kept(store: Path, tmp_path: Path) -> None:
    store.parent.mkdir()
    store.symlink_to(tmp_path / "elsewhere.json")
    token_store.store_token("https://a.example.org", TOKEN)
    assert store.is_symlink()
    assert token_store.stored_token("https://a.example.org") == TOKEN
