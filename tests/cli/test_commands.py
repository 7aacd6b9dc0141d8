"""The commands: what they print, where, and with which exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac
import pytest
from stand_in.git_host import TOKEN as GIT_TOKEN
from stand_in.git_host import GitHost

from stac_gitlab.auth import token_store
from stac_gitlab.cli import main
from stac_gitlab.testing import Fault, GitLabServer, Project, SharingHubServer, sample_projects

TOKEN = "glpat-of-the-command-0001"
LAKES = "alpine/lakes/lake-temperature"


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    with SharingHubServer(sample_projects(), token=TOKEN) as running:
        yield running


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, stdin: str = "", token: str | None = TOKEN, **environment: str) -> Done:
    tokens = {} if token is None else {"STAC_GITLAB_TOKEN": token}
    out, error = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        for name, value in {**tokens, **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        patch.setattr(signal, "signal", lambda *_: None)
        code = main(arguments)
    return Done(code, out.getvalue(), error.getvalue())


def command(*arguments: str, **environment: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "stac_gitlab", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def printed(*arguments: str, **options: Any) -> Any:
    done = run(*arguments, "--json", **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def item_url(hub: SharingHubServer) -> str:
    return f"{hub.url}/api/stac/collections/dataset/items/{LAKES}"


# -- ls, show and search --------------------------------------------------------------------------


def test_a_hub_a_collection_and_an_item_are_listed(hub: SharingHubServer) -> None:
    listed = printed("ls", hub.url)
    assert "dataset" in [each["id"] for each in listed]
    assert LAKES in run("ls", hub.url).stdout
    collection = run("ls", f"{hub.url}/api/stac/collections/dataset", "-n", "1").stdout
    assert "… more: see -n" in collection
    item = run("ls", item_url(hub)).stdout
    assert "data/temperature.csv" in item
    assert [each["key"] for each in printed("ls", item_url(hub))].count("data/temperature.csv") == 1


def test_the_hub_of_the_environment_is_the_default(hub: SharingHubServer) -> None:
    assert LAKES in run("ls", STAC_GITLAB_URL=hub.url).stdout
    done = run("ls", STAC_GITLAB_URL="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Give a URL, or set STAC_GITLAB_URL." in done.stderr


def test_what_was_listed_with_a_cache_is_listed_offline(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    cache = ("--cache", str(tmp_path / "cache"))
    listed = run("ls", hub.url, *cache).stdout
    shown = run("show", item_url(hub), *cache).stdout
    hub.clear_requests()
    assert run("ls", hub.url, *cache, "--offline").stdout == listed
    assert run("show", item_url(hub), *cache, "--offline").stdout == shown
    assert hub.requests == []
    done = run("ls", hub.url, "--cache", str(tmp_path / "other"), "--offline")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not requested, because offline=True" in done.stderr


def test_an_object_is_shown(hub: SharingHubServer) -> None:
    assert printed("show", item_url(hub))["id"] == LAKES
    shown = run("show", item_url(hub)).stdout
    assert shown.startswith(f"Item {LAKES}\n")
    assert "Lake surface temperature" in shown


def test_a_search_prints_an_item_collection_that_download_takes(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    found = run("search", hub.url, "-c", "dataset", "--q", "temperature", "-n", "1")
    assert found.returncode == 0, found.stderr
    [feature] = json.loads(found.stdout)["features"]
    assert feature["id"] == LAKES
    assert TOKEN not in found.stdout
    results = printed(
        "download", "-", "-o", str(tmp_path), stdin=found.stdout, STAC_GITLAB_URL=hub.url
    )
    assert {result["status"] for result in results} == {"downloaded"}
    assert (tmp_path / "dataset" / LAKES / "data/temperature.csv").exists()


def test_a_search_is_saved_without_the_token(hub: SharingHubServer, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    done = run("search", hub.url, "-c", "dataset", "--save", str(file))
    assert "items saved to" in done.stdout
    assert TOKEN not in file.read_text()
    assert len(pystac.ItemCollection.from_file(str(file))) > 1


def test_a_reader_that_ends_early_ends_the_command_quietly(hub: SharingHubServer) -> None:
    command = f"{sys.executable} -m stac_gitlab search {hub.url} | head -c 1"
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "STAC_GITLAB_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("{", "")


def test_options_stand_before_the_command_or_the_url_and_are_repeated(
    hub: SharingHubServer,
) -> None:
    listed = run("--json", "ls", "-n", "1", hub.url)
    assert json.loads(listed.stdout)[0]["id"] == "ai-model"
    both = printed("search", "-c", "dataset", "-c", "ai-model", hub.url, "--sortby", "-title")
    assert {each["collection"] for each in both["features"]} == {"dataset", "ai-model"}


def test_a_search_knows_the_options_of_pystac_client(hub: SharingHubServer) -> None:
    found = printed("search", hub.url, "-c", "dataset", "--sortby", "-title")["features"]
    assert [each["id"] for each in found] == [LAKES, "alpine/lakes/ice-cover"]
    point = {"type": "Point", "coordinates": [6.9, 46]}
    feature = json.dumps({"type": "Feature", "geometry": point})
    here = printed("search", hub.url, "-c", "dataset", "--intersects", feature)["features"]
    assert LAKES in {each["id"] for each in here}
    assert printed("search", hub.url, "-c", "dataset", "--matched") == {"matched": 2}
    west = printed("search", hub.url, "-c", "dataset", "--bbox", "-20", "-20", "-10", "-10")
    assert west["features"] == []


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--max-items", "-1", "give a whole number, 0 or greater"),
        ("--limit", "x", "give a whole number, 1 or greater"),
        ("--intersects", "missing.json", "neither a GeoJSON geometry nor a file with one"),
        ("--bogus", "x", "unrecognized arguments: --bogus x"),
        ("--datetime", "soon", "datetime='soon'"),
    ],
)
def test_a_wrong_option_is_one_line(
    hub: SharingHubServer, option: str, value: str, problem: str
) -> None:
    arguments = [hub.url, "-c", "dataset", option, value]
    done = command("search", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_search_and_a_file_of_items_are_listed_and_downloaded(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    url = f"{hub.url}/api/stac/search?collections=dataset"
    assert LAKES in [each["id"] for each in printed("ls", url)]
    results = printed("download", url, "-o", str(tmp_path / "a"), "-i", "*.csv")
    assert {result["item"] for result in results} == {LAKES, "alpine/lakes/ice-cover"}
    file = tmp_path / "found.json"
    run("search", hub.url, "-c", "dataset", "--save", str(file))
    results = printed("download", str(file), "-o", str(tmp_path / "b"), "-n", "1")
    assert {result["status"] for result in results} == {"downloaded"}


def test_the_sizes_of_files_are_asked_for(hub: SharingHubServer) -> None:
    assert "132.5 kB" not in run("ls", item_url(hub)).stdout
    assert "132.5 kB" in run("ls", item_url(hub), "--sizes").stdout
    listed = {each["key"]: each for each in printed("ls", item_url(hub), "--sizes")}
    assert listed["data/temperature.csv"]["file:size"] == 132485


def test_long_and_wide_titles_keep_the_columns(hub: SharingHubServer) -> None:
    ids = ("group/a", "group/b")
    titles = ("日本の湖 🌊", "A title " * 40)
    projects = [Project(i, {"a.csv": b""}, title=t) for i, t in zip(ids, titles, strict=True)]
    with SharingHubServer(projects, token=TOKEN) as wide:
        lines = run("ls", f"{wide.url}/api/stac/collections/dataset").stdout.splitlines()
    assert lines[1] == f"  group/a  日本の湖 🌊{' ' * 37}  data"
    assert lines[2].startswith("  group/b  A title A title")


# -- download and verify --------------------------------------------------------------------------


def test_downloads_are_selected_reported_and_verified(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    arguments = ("download", item_url(hub), "-o", str(tmp_path), "-i", "*.csv", "*.tif")
    results = printed(*arguments, "--template", "{key}", "-j", "2")
    assert {result["key"] for result in results} == {"data/temperature.csv", "data/bathymetry.tif"}
    assert "2 skipped" in run(*arguments, "--template", "{key}").stdout
    assert set(printed("verify", str(tmp_path)).values()) == {"ok", "size ok"}
    (tmp_path / "data/temperature.csv").write_bytes(b"x")
    (tmp_path / "data/bathymetry.tif").unlink()
    done = run("verify", str(tmp_path), "--json")
    assert done.returncode == 1
    assert sorted(json.loads(done.stdout).values()) == ["changed", "missing"]


def test_roles_select_the_files(hub: SharingHubServer, tmp_path: Path) -> None:
    thumbnails = printed("download", item_url(hub), "-o", str(tmp_path), "-r", "thumbnail")
    assert [result["key"] for result in thumbnails] == ["images/preview.png"]
    of_any_role = printed("download", item_url(hub), "-o", str(tmp_path), "-r", "any")
    assert {"images/preview.png", "docs/about.md"} < {result["key"] for result in of_any_role}


def test_a_failed_file_is_named_and_fails_the_command(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    hub.inject(Fault(path=r".*temperature\.csv", status=404, times=None))
    done = run("download", item_url(hub), "-o", str(tmp_path))
    assert done.returncode == 1
    assert "temperature.csv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_writes_nothing(hub: SharingHubServer, tmp_path: Path) -> None:
    results = printed("download", item_url(hub), "-o", str(tmp_path / "new"), "--dry-run")
    assert {result["status"] for result in results} == {"planned"}
    assert not (tmp_path / "new").exists()


def test_a_pipe_needs_no_other_setting(hub: SharingHubServer, tmp_path: Path) -> None:
    program = f"{sys.executable} -m stac_gitlab"
    pipe = f"{program} search {hub.url} -c dataset --q temperature | {program} download - -o ."
    done = subprocess.run(
        ["sh", "-c", pipe],
        env={**os.environ, "STAC_GITLAB_TOKEN": TOKEN},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"The token of the environment is sent to {hub.url}" in done.stderr
    assert f"[3/3] {LAKES}: " in done.stderr
    assert "3 downloaded (200.9 kB)" in done.stdout
    assert (tmp_path / "dataset" / LAKES / "data/temperature.csv").exists()


def test_items_and_token_are_not_both_on_standard_input() -> None:
    done = run("download", "-", "--token-file", "-", stdin=f"{TOKEN}\n{{}}")
    assert done.returncode == 2
    assert "either items or the token" in done.stderr


def test_a_piped_item_does_not_choose_the_server_of_a_named_one(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    with SharingHubServer(sample_projects(), token="glpat-another-000001") as other:
        found = run("search", other.url, "-c", "dataset", token="glpat-another-000001").stdout
        run("download", "-", "-o", str(tmp_path), stdin=found, STAC_GITLAB_URL=hub.url)
        assert other.requests
        assert all(TOKEN not in str(dict(request.headers)) for request in other.requests)


def test_an_asset_that_does_not_exist_is_an_error(hub: SharingHubServer, tmp_path: Path) -> None:
    done = run("download", item_url(hub), "-o", str(tmp_path), "-i", "nope")
    assert done.returncode == 1
    assert "has no asset 'nope'" in done.stderr
    named = printed("download", item_url(hub), "-o", str(tmp_path), "-i", "images/preview.png")
    assert [result["status"] for result in named] == ["downloaded"]


def test_a_job_of_gitlab_folds_the_lines_about_files(hub: SharingHubServer, tmp_path: Path) -> None:
    arguments = ("download", item_url(hub), "-o", str(tmp_path))
    lines = run(*arguments, GITLAB_CI="true").stderr.split("\n")
    assert re.fullmatch(
        r"\x1b\[0Ksection_start:\d+:(\w+)\[collapsed=true\]\r\x1b\[0KDownload to .*", lines[0]
    )
    assert [line[:5] for line in lines[1:4]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert re.fullmatch(r"\x1b\[0Ksection_end:\d+:(\w+)\r\x1b\[0K", lines[4])
    elsewhere = run(*arguments)
    assert "\x1b" not in elsewhere.stdout + elsewhere.stderr


@pytest.mark.parametrize("stdin", ["", "[]", '{"features": [{}]}', '{"type": "Feature"}'])
def test_what_is_no_item_on_standard_input_is_refused(stdin: str) -> None:
    done = run("download", "-", stdin=stdin)
    assert done.returncode == 2
    assert "no Item or ItemCollection on standard input" in done.stderr


# -- exit codes and messages ----------------------------------------------------------------------


def test_a_wrong_token_has_an_exit_code_of_its_own(hub: SharingHubServer) -> None:
    done = run("ls", hub.url, token="glpat-wrong-0000001")
    assert done.returncode == 3
    assert "401" in done.stderr
    assert f"stac-gitlab auth login {hub.url}" in done.stderr
    assert done.stderr.count("\n") == 2


def test_json_is_complete_where_the_locale_has_no_such_characters(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    project = Project("group/lakes", {"a.csv": b""}, title="日本の湖")
    with SharingHubServer([project], token=TOKEN) as hub:
        url = f"{hub.url}/api/stac/collections/dataset"
        done = command("ls", url, "--json", STAC_GITLAB_TOKEN=TOKEN, **ascii_only)
        assert json.loads(done.stdout)[0]["title"] == "日本の湖"
        found = command("search", hub.url, "--q", "日本の湖", STAC_GITLAB_TOKEN=TOKEN, **ascii_only)
        assert found.returncode == 0, found.stderr
        assert hub.requests[-1].query["q"] == "日本の湖"
    missing = command("ls", "日本.json", **ascii_only)
    assert missing.returncode != 0
    assert "Traceback" not in missing.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("redirect", [">&-", "> /dev/full"])
def test_output_that_cannot_be_written_is_an_error(hub: SharingHubServer, redirect: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m stac_gitlab search {hub.url} {redirect}"],
        env={**os.environ, "STAC_GITLAB_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr in (
        "stac-gitlab: Standard output is closed\n",
        "stac-gitlab: No space left on device\n",
    )


def test_errors_do_not_go_to_standard_output(hub: SharingHubServer) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m stac_gitlab ls {hub.url} 2>&-"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")


def test_a_missing_local_file_is_one_line() -> None:
    done = run("show", "missing.json")
    assert done.returncode == 1
    assert done.stderr.startswith("stac-gitlab: ")
    assert "missing.json" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_token_of_the_environment_goes_to_no_server_but_the_one_named_there(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    with SharingHubServer(sample_projects(), token="glpat-another-000001") as other:
        named = {"STAC_GITLAB_URL": hub.url}
        done = run("ls", other.url, **named)
        assert done.returncode == 3
        assert f"The token was not sent to {other.url}" in done.stderr
        assert "--hosts" in done.stderr
        assert printed("auth", "status", hub.url, **named)["answer"] == "accepted"
        status = run("auth", "status", other.url, "--json", **named)
        assert json.loads(status.stdout)["token from"] == "nowhere: requests are anonymous"
        assert all(TOKEN not in str(dict(request.headers)) for request in other.requests)
        file = tmp_path / "token"
        file.write_text("glpat-another-000001")
        assert run("ls", other.url, "--token-file", str(file), **named).returncode == 0
        run("ls", other.url, "--hosts", other.url, **named)
        assert any(TOKEN in str(dict(request.headers)) for request in other.requests)


def test_quiet_says_where_a_token_goes(hub: SharingHubServer, tmp_path: Path) -> None:
    found = run("search", hub.url, "-c", "dataset").stdout
    done = run("download", "-", "-o", str(tmp_path), "-q", stdin=found)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"stac-gitlab: The token of the environment is sent to {hub.url}")


def test_a_token_on_the_command_line_warns(hub: SharingHubServer, tmp_path: Path) -> None:
    done = run("ls", hub.url, "--token", TOKEN, token=None)
    assert done.returncode == 0
    assert "visible to other users" in done.stderr
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    done = run("ls", hub.url, "--token-file", str(file), token=None)
    assert (done.returncode, done.stderr) == (0, "")


def test_quiet_prints_nothing(hub: SharingHubServer, tmp_path: Path) -> None:
    done = run("download", item_url(hub), "-o", str(tmp_path), "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_help_imports_nothing_that_is_slow() -> None:
    program = """
import sys
from stac_gitlab.cli.parser import make_parser
make_parser().format_help()
assert not {"pystac", "requests", "urllib3", "tenacity"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("scheme", ["http://", "//", ""])
def test_the_environment_is_described_without_secrets(scheme: str) -> None:
    found = printed("env", HTTPS_PROXY=f"{scheme}user:hidden-password@proxy.example.org:1")
    assert "proxy.example.org" in found["HTTPS_PROXY"]
    assert found["STAC_GITLAB_TOKEN"] == "set"
    assert "hidden-password" not in str(found)
    assert TOKEN not in str(found)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str) -> None:
    script = run("completion", shell).stdout
    assert "download" in script
    assert "segments" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=10)


# -- mirror and publish ----------------------------------------------------------------------------


def test_a_hub_is_mirrored(hub: SharingHubServer, tmp_path: Path) -> None:
    arguments = ("mirror", hub.url, str(tmp_path / "copy"), "--no-assets")
    assert printed(*arguments)["new"] > 1
    catalog = pystac.Catalog.from_file(str(tmp_path / "copy" / "catalog.json"))
    assert LAKES in {item.id for item in catalog.get_items(recursive=True)}
    assert "unchanged" in run(*arguments).stdout


def test_a_folder_is_published(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "lakes.csv").write_text("id\n")
    with GitHost(tmp_path / "host") as host:
        host.add("alpine/lakes")
        url = f"{host.url}/alpine/lakes"
        done = run("publish", str(folder), url, "--hub", "https://h.example", token=GIT_TOKEN)
        assert done.returncode == 0, done.stderr
        assert "created  lakes.csv" in done.stdout
        assert "https://h.example/api/stac/collections/dataset/items/alpine/lakes" in done.stdout
        assert printed("publish", str(folder), url, token=GIT_TOKEN)["commits"] == []


# -- auth -----------------------------------------------------------------------------------------


def test_a_stored_token_is_used_for_its_server_until_it_is_forgotten(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert run("ls", hub.url, token=None, **home).returncode == 3
    done = run(
        "auth", "login", hub.url, "--token-file", "-", stdin=f"{TOKEN}\n", token=None, **home
    )
    assert done.returncode == 0, done.stderr
    file = tmp_path / "stac-gitlab" / "tokens.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("ls", hub.url, token=None, **home).returncode == 0
    status = printed("auth", "status", hub.url, token=None, **home)
    assert (status["token from"], status["answer"]) == ("auth login", "accepted")
    assert status["header"] == "X-Gitlab-Token"
    assert run("auth", "logout", hub.url, token=None, **home).returncode == 0
    assert run("ls", hub.url, token=None, **home).returncode == 3
    assert TOKEN not in file.read_text()


def test_a_stored_token_goes_to_no_other_server(hub: SharingHubServer, tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    run("auth", "login", hub.url, "--token-file", "-", stdin=TOKEN, token=None, **home)
    with SharingHubServer(sample_projects(), token="glpat-another-000001") as other:
        assert run("ls", other.url, token=None, **home).returncode == 3
        assert all(TOKEN not in str(dict(request.headers)) for request in other.requests)


def test_the_token_of_the_environment_comes_before_a_stored_one(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    run("auth", "login", hub.url, "--token-file", "-", stdin=TOKEN, token=None, **home)
    assert run("ls", hub.url, token="glpat-wrong-0000001", **home).returncode == 3
    status = printed("auth", "status", hub.url, **home)
    assert status["token from"] == "STAC_GITLAB_TOKEN"


def test_the_name_of_a_host_is_enough() -> None:
    done = run("auth", "status", "127.0.0.1:9", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["answer"].startswith("GET https://127.0.0.1:9/api/")


def test_all_stored_tokens_are_shown_without_a_url(hub: SharingHubServer, tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    run("auth", "login", hub.url, "--token-file", "-", stdin=TOKEN, token=None, **home)
    shown = run("auth", "status", token=None, **home).stdout
    assert hub.url in shown
    assert "accepted" in shown
    assert TOKEN not in shown


def test_an_empty_token_is_not_stored(hub: SharingHubServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("\n")
    done = run("auth", "login", hub.url, "--token-file", str(file), XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "holds no token" in done.stderr
    assert list(tmp_path.iterdir()) == [file]


class Keyring(types.ModuleType):
    """The package keyring, with passwords in a dictionary."""

    def __init__(self, priority: float) -> None:
        super().__init__("keyring")
        self.priority = priority
        self.kept: dict[tuple[str, str], str] = {}
        self.errors = types.ModuleType("keyring.errors")
        self.errors.PasswordDeleteError = KeyError  # type: ignore[attr-defined]

    def get_keyring(self) -> Keyring:
        return self

    def set_password(self, service: str, name: str, password: str) -> None:
        self.kept[service, name] = password

    def get_password(self, service: str, name: str) -> str | None:
        return self.kept.get((service, name))

    def delete_password(self, service: str, name: str) -> None:
        del self.kept[service, name]


@pytest.mark.parametrize("priority", [5, 0])
def test_a_token_is_in_the_keyring_if_there_is_a_safe_one(
    hub: SharingHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, priority: float
) -> None:
    keyring = Keyring(priority)
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setitem(sys.modules, "keyring.errors", keyring.errors)
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    done = run("auth", "login", hub.url, "--token-file", "-", stdin=TOKEN, token=None, **home)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "stac-gitlab" / "tokens.json"
    assert (TOKEN in file.read_text()) == (priority < 1)
    assert keyring.kept == ({("stac-gitlab", hub.url): TOKEN} if priority >= 1 else {})
    assert run("ls", hub.url, token=None, **home).returncode == 0
    assert run("auth", "logout", hub.url, token=None, **home).returncode == 0
    assert keyring.kept == {}
    assert run("ls", hub.url, token=None, **home).returncode == 3


def test_a_wrong_token_is_not_stored(hub: SharingHubServer, tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    arguments = ("auth", "login", hub.url, "--token-file", "-")
    done = run(*arguments, stdin="glpat-wrong-0000001", token=None, **home)
    assert done.returncode == 3
    assert not (tmp_path / "stac-gitlab" / "tokens.json").exists()


def test_the_scopes_of_a_gitlab_token_are_shown() -> None:
    with GitLabServer([Project("a/b")], token=TOKEN) as gitlab:
        described = {"name": "laptop", "scopes": ["read_api"], "expires_at": "2027-01-01"}
        gitlab.inject(
            Fault(path="/personal_access_tokens/self", status=200, body=json.dumps(described))
        )
        gitlab.inject(Fault(path="/api/v4/user", body='{"username": "ada"}', status=200))
        status = printed("auth", "status", gitlab.url)
    assert (status["scopes"], status["expires"]) == ("read_api", "2027-01-01")


@pytest.mark.parametrize("command", ["ls", "show", "search"])
def test_what_is_no_url_is_an_error_of_usage(command: str) -> None:
    done = run(command, "https://[h/x")
    assert done.returncode == 2
    assert "'https://[h/x'" in done.stderr


def test_json_repeats_no_token_and_no_invisible_character() -> None:
    name = f"lap\u202etop\x1b[2J\x9b\x7f\U000e0001é {TOKEN}"
    with GitLabServer([Project("a/b")], token=TOKEN) as gitlab:
        gitlab.inject(
            Fault(path="/personal_access_tokens/self", status=200, body=json.dumps({"name": name}))
        )
        gitlab.inject(Fault(path="/api/v4/user", body="{}", status=200))
        done = run("auth", "status", gitlab.url, "--json")
    assert json.loads(done.stdout)["name"] == name.replace(TOKEN, "***")
    assert all(each.isprintable() for each in done.stdout.splitlines())
    assert "é" in done.stdout


def test_a_store_that_others_can_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    token_store.store_token("https://hub.example.org", TOKEN)
    os.chmod(token_store.store_path(), 0o644)
    done = run("ls", "https://hub.example.org", token=None)
    assert done.returncode == 2
    assert "chmod 600" in done.stderr
