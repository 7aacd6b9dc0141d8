"""Folders and items are published to a GitLab over real git repositories."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
import yaml
from stand_in.git_host import TOKEN, GitHost, git

from stac_gitlab import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    DownloadError,
    GitLabStacIO,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    PublishReport,
    RetryPolicy,
    ServerError,
    describe_assets,
    publish,
)
from stac_gitlab.catalogs.changes import Changes
from stac_gitlab.catalogs.git_attributes import GitAttributes
from stac_gitlab.testing import Fault
from stac_gitlab.testing.exchange import response_of

PROJECT = "alpine/lakes"
LARGE = bytes(range(256)) * 400


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GitHost]:
    with GitHost(tmp_path / "host") as server:
        server.add(PROJECT)
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    write(made, {"lakes.csv": b"id\n1\n", "sub/table é.csv": b"id\n2\n", "big.tif": LARGE})
    return made


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def published(host: GitHost, source: Any, **options: Any) -> PublishReport:
    retry = RetryPolicy(max_attempts=3, backoff_base=0)
    options.setdefault("lfs_above", 50_000)
    with GitLabStacIO(TOKEN, base_url=host.url, retry=retry) as reader:
        return publish(source, f"{host.url}/{PROJECT}", stac_io=reader, **options)


def front_matter(host: GitHost) -> dict[str, Any]:
    _, front, _ = host.files(PROJECT)["README.md"].decode().split("---\n", 2)
    fields: dict[str, Any] = yaml.safe_load(front)
    return fields


def sent(host: GitHost, method: str) -> list[str]:
    return [request.path for request in host.requests if request.method == method]


def test_a_folder_becomes_a_project_that_git_clones(
    host: GitHost, folder: Path, tmp_path: Path
) -> None:
    report = published(host, folder, hub="https://hub.example.org")
    names = ["big.tif", "lakes.csv", "sub/table é.csv"]
    assert sorted(report.created) == [".gitattributes", "README.md", *names]
    assert report.uploaded_bytes > len(LARGE)
    assert len(report.commits) == 1
    url = "https://hub.example.org/api/stac/collections/dataset/items/alpine/lakes"
    assert report.item_url == url
    assert host.projects[PROJECT]["topics"] == ["sharinghub:dataset"]
    assert front_matter(host)["assets"] == [{"key": name, "href": name} for name in names]
    clone = tmp_path / "clone"
    git("clone", "-q", host.repository(PROJECT), clone, cwd=tmp_path)
    assert (clone / "sub/table é.csv").read_bytes() == b"id\n2\n"
    assert (clone / "big.tif").read_bytes().startswith(b"version https://git-lfs.github.com")
    assert git("check-attr", "filter", "big.tif", cwd=clone) == b"big.tif: filter: lfs\n"
    assert list(host.objects.values()) == [LARGE]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="needs git-lfs")
def test_git_lfs_pulls_what_was_published_to_giftless(
    host: GitHost, giftless: str, folder: Path, tmp_path: Path
) -> None:
    host.lfs_server = giftless
    published(host, folder)
    host.clear_requests()
    assert published(host, folder).commits == ()
    assert sent(host, "POST") == []
    clone = tmp_path / "clone"
    git("clone", "-q", host.repository(PROJECT), clone, cwd=tmp_path)
    git("lfs", "install", "--local", cwd=clone)
    login = f"http://oauth2:{TOKEN}@127.0.0.1:{host.port}"
    git("config", "lfs.url", f"{login}/{PROJECT}.git/info/lfs", cwd=clone)
    git("lfs", "pull", cwd=clone)
    assert (clone / "big.tif").read_bytes() == LARGE


def test_a_second_publish_sends_nothing(host: GitHost, folder: Path) -> None:
    published(host, folder)
    host.clear_requests()
    report = published(host, folder)
    assert (report.created, report.updated, report.commits) == ((), (), ())
    assert len(report.unchanged) == 5
    assert sent(host, "POST") == sent(host, "PUT") == []
    assert sum("tree" in path for path in sent(host, "GET")) == 1


def test_only_what_differs_is_sent(host: GitHost, folder: Path) -> None:
    published(host, folder)
    write(folder, {"lakes.csv": b"id\n3\n", "big.tif": LARGE[::-1]})
    report = published(host, folder)
    assert set(report.updated) == {"big.tif", "lakes.csv"}
    assert report.created == ()
    assert host.files(PROJECT)["lakes.csv"] == b"id\n3\n"
    assert set(host.objects.values()) == {LARGE, LARGE[::-1]}


def test_other_files_stay_unless_they_are_to_be_deleted(host: GitHost, folder: Path) -> None:
    host.write(PROJECT, {"notes.txt": b"kept", "README.md": b"# Lakes\n"})
    published(host, folder)
    assert host.files(PROJECT)["notes.txt"] == b"kept"
    report = published(host, folder, delete=True, metadata={"assets": ["*.csv"]})
    assert report.deleted == ("notes.txt",)
    assert "notes.txt" not in host.files(PROJECT)
    assert "lakes.csv" in host.files(PROJECT)


def test_a_dry_run_sends_nothing(host: GitHost, folder: Path) -> None:
    report = published(host, folder, dry_run=True)
    assert report.dry_run
    assert len(report.created) == 5
    assert "planned: 5 created" in repr(report)
    assert sent(host, "POST") == sent(host, "PUT") == []


def test_a_concurrent_change_is_a_conflict_and_stays(host: GitHost, folder: Path) -> None:
    published(host, folder)
    write(folder, {"lakes.csv": b"mine", "new.csv": b"new"})
    host.before_commit = lambda: host.write(PROJECT, {"lakes.csv": b"theirs"}) and None
    with pytest.raises(ConflictError, match=r"changed since.*Publish again"):
        published(host, folder)
    assert host.files(PROJECT)["lakes.csv"] == b"theirs"
    assert "new.csv" not in host.files(PROJECT)


def test_the_readme_is_merged_without_losing_a_byte(host: GitHost, folder: Path) -> None:
    readme = (
        "---\n# who to ask: Ada\ntitle:   'Alpine lakes' # short\nlicense: MIT\n"
        "extent:\n  # winter only\n  temporal: ['2020-01-01', '2020-12-31']\n\n"
        "custom: [1,   2]\n---\n\n# Lakes\r\n\ttext é\n"
    )
    write(folder, {"README.md": readme.encode()})
    published(host, folder, metadata={"license": "CC-BY-4.0", "assets": ["*.csv"]})
    text = host.files(PROJECT)["README.md"].decode()
    expected = readme.replace("license: MIT", "license: CC-BY-4.0")
    assert text == expected.replace("2]\n---", "2]\nassets:\n- '*.csv'\n---")


def test_an_item_becomes_front_matter(host: GitHost, folder: Path) -> None:
    schema = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
    item = pystac.Item(
        "lakes",
        None,
        [5.0, 44.0, 10.0, 48.0],
        datetime(2024, 1, 5, tzinfo=UTC),
        {"title": "Alpine lakes", "description": "From the air.", "mlm:name": "unet"},
        start_datetime=datetime(2024, 1, 1, tzinfo=UTC),
        end_datetime=datetime(2024, 2, 1, tzinfo=UTC),
        stac_extensions=[schema],
    )
    item.add_asset("table", pystac.Asset(str(folder / "lakes.csv"), roles=["data"]))
    item.add_asset("far", pystac.Asset("https://files.example.org/a.tif", media_type="image/tiff"))
    report = published(host, item)
    assert sorted(report.created) == ["README.md", "lakes.csv"]
    assert front_matter(host) == {
        "title": "Alpine lakes",
        "datetime": "2024-01-05T00:00:00Z",
        "extent": {
            "temporal": ["2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"],
            "spatial": [5.0, 44.0, 10.0, 48.0],
        },
        "extensions": {"mlm": schema},
        "mlm": {"name": "unet"},
        "assets": [
            {"key": "table", "href": "lakes.csv", "roles": ["data"]},
            {"key": "far", "href": "https://files.example.org/a.tif", "type": "image/tiff"},
        ],
    }
    assert host.files(PROJECT)["README.md"].decode().endswith("# Alpine lakes\n\nFrom the air.\n")


@pytest.mark.parametrize(("key", "href"), [("a", 5), ("a", None), ("a", b"a.csv"), (5, "a.csv")])
def test_an_asset_of_wrong_types_is_named(host: GitHost, folder: Path, key: Any, href: Any) -> None:
    item = pystac.Item("lakes", None, None, datetime(2024, 1, 5, tzinfo=UTC), {})
    item.assets[key] = pystac.Asset("a.csv")
    item.assets[key].href = href
    with pytest.raises(DownloadError, match="is not text"):
        published(host, item)
    with pytest.raises(DownloadError, match="is not text"):
        describe_assets(item)


def test_what_is_no_url_is_published_as_it_is(host: GitHost, folder: Path) -> None:
    item = pystac.Item("lakes", None, None, datetime(2024, 1, 5, tzinfo=UTC), {"a:b": 1})
    item.stac_extensions = [5]  # type: ignore[list-item]  # what code can do
    item.add_asset("far", pystac.Asset("https://[h/a.tif"))
    item.add_link(pystac.Link("about", "https://[h/about"))
    published(host, item)
    assert front_matter(host)["assets"] == [{"key": "far", "href": "https://[h/a.tif"}]
    assert front_matter(host)["links"] == [{"rel": "about", "href": "https://[h/about"}]


def test_a_saved_catalog_is_published_whole(host: GitHost, tmp_path: Path) -> None:
    catalog = pystac.Catalog("lakes", "All lakes.", title="Lakes")
    catalog.add_item(pystac.Item("one", None, None, datetime(2024, 1, 1, tzinfo=UTC), {}))
    with pytest.raises(ConfigurationError, match="is not in a folder"):
        published(host, catalog)
    catalog.normalize_and_save(str(tmp_path / "saved"), pystac.CatalogType.SELF_CONTAINED)
    published(host, catalog)
    assert {"catalog.json", "one/one.json", "README.md"} <= set(host.files(PROJECT))
    assert front_matter(host)["title"] == "Lakes"


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"extent": {"spatial": [1, 2]}}, r"extent.spatial is '\[1, 2\]'"),
        ({"extent": {"temporal": ["soon", None]}}, "extent.temporal"),
        ({"extent": "Alps"}, "extent is"),
        ({"providers": [{"roles": ["host"]}]}, "a provider with a name"),
        ({"links": [{"rel": "about"}]}, "a link with an href"),
        ({"extensions": {"mlm": "https://x"}, "mlm": ["unet"]}, "the fields of an extension"),
        ({"assets": [{"key": "a"}]}, "an asset with a path"),
        ({"assets": [{"key": "a", "href": "missing.csv"}]}, "the path of a file of the project"),
        ({"title": 7}, "title is '7'"),
    ],
)
def test_what_sharinghub_would_refuse_is_refused_before_anything_is_sent(
    host: GitHost, folder: Path, metadata: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        published(host, folder, metadata=metadata)
    assert sent(host, "POST") == sent(host, "PUT") == []


def test_front_matter_that_is_no_yaml_is_refused(host: GitHost, folder: Path) -> None:
    write(folder, {"README.md": b"---\ntitle: [\n---\n"})
    with pytest.raises(ConfigurationError, match="not valid YAML"):
        published(host, folder)
    assert sent(host, "POST") == []


def test_a_missing_project_is_created_on_request(host: GitHost, folder: Path) -> None:
    url = f"{host.url}/alpine/new"
    with GitLabStacIO(TOKEN, base_url=host.url) as reader:
        with pytest.raises(NotFoundError, match="create_project=True"):
            publish(folder, url, stac_io=reader)
        publish(folder, url, stac_io=reader, create_project=True)
    assert "lakes.csv" in host.files("alpine/new")
    assert host.projects["alpine/new"]["topics"] == ["sharinghub:dataset"]


def test_an_upload_goes_elsewhere_without_our_token(
    host: GitHost, folder: Path, tmp_path: Path
) -> None:
    with GitHost(tmp_path / "store") as store:
        host.lfs_url = store.url
        published(host, folder)
        assert list(store.objects.values()) == [LARGE]
        puts = [request for request in store.requests if request.method == "PUT"]
        assert [r.headers["Authorization"][:6] for r in puts] == ["Basic "]
        for request in store.requests:
            assert TOKEN not in str(dict(request.headers))
            assert "PRIVATE-TOKEN" not in request.headers


def test_an_upload_is_retried_and_sent_once(host: GitHost, folder: Path) -> None:
    write(folder, {"copy.tif": LARGE})
    fault = host.inject(Fault(path=r"/lfs/.*", method="PUT", status=503, times=1))
    published(host, folder)
    assert fault.hits == 1
    assert len([p for p in sent(host, "PUT") if p.startswith("/lfs/")]) == 2
    assert {"big.tif", "copy.tif"} <= set(host.files(PROJECT))


def test_nothing_is_committed_if_an_upload_fails(host: GitHost, folder: Path) -> None:
    host.inject(Fault(path=r"/lfs/.*", method="PUT", status=507))
    with pytest.raises(ServerError, match=r"507.*larger quota"):
        published(host, folder)
    assert not any(path.endswith("/commits") for path in sent(host, "POST"))
    host.clear_faults()
    assert len(published(host, folder).created) == 5


@pytest.mark.parametrize(
    ("status", "said", "error", "advice"),
    [
        (403, "insufficient_scope", PermissionDeniedError, "the scope api"),
        (403, "You are not allowed to push into this branch", PermissionDeniedError, "protected"),
        (400, "The branch is protected", InvalidRequestError, "protected"),
        (400, "Your changes exceed the size limit", InvalidRequestError, "storage"),
    ],
)
def test_a_refused_commit_says_what_to_do(
    host: GitHost,
    folder: Path,
    status: int,
    said: str,
    error: type[Exception],
    advice: str,
) -> None:
    host.refusals = [response_of({"message": said}, status)]
    with pytest.raises(error, match=advice):
        published(host, folder)


def test_a_proxy_that_takes_less_gets_smaller_commits(host: GitHost, folder: Path) -> None:
    host.refusals = [response_of("too large", 413), response_of("too large", 413)]
    report = published(host, folder)
    assert len(report.commits) > 1
    log = git("log", "--format=%H", "main", cwd=host.repository(PROJECT)).decode().split()
    assert log[::-1] == list(report.commits)
    changed = git("show", "--name-only", "--format=", log[0], cwd=host.repository(PROJECT))
    assert b"README.md" in changed


def test_existing_rules_of_gitattributes_decide(host: GitHost, folder: Path) -> None:
    write(folder, {".gitattributes": b"*.csv filter=lfs diff=lfs merge=lfs -text\n*.tif -filter\n"})
    published(host, folder)
    files = host.files(PROJECT)
    assert files["big.tif"] == LARGE
    assert files["lakes.csv"].startswith(b"version https://git-lfs")
    assert files[".gitattributes"].count(b"\n") == 2


def test_the_rules_in_the_project_are_read_once(host: GitHost, folder: Path) -> None:
    host.write(PROJECT, {".gitattributes": b"*.csv filter=lfs diff=lfs merge=lfs -text\n"})
    published(host, folder)
    assert host.files(PROJECT)["lakes.csv"].startswith(b"version https://git-lfs")
    reads = [path for path in sent(host, "GET") if path.endswith(".gitattributes/raw")]
    assert len(reads) == 1


def test_a_wrong_token_and_a_wrong_branch_are_told(host: GitHost, folder: Path) -> None:
    with (
        GitLabStacIO("glpat-wrong-0000000000", base_url=host.url) as reader,
        pytest.raises(AuthenticationError),
    ):
        publish(folder, f"{host.url}/{PROJECT}", stac_io=reader)
    published(host, folder)
    with pytest.raises(ConfigurationError, match="Its default branch is 'main'"):
        published(host, folder, branch="develop")


@pytest.mark.parametrize(
    "project",
    [
        "lakes",
        "https://gitlab.example.org",
        "https://h/a/-/raw/b",
        "https://[h/a/b",
        "https://\u2100/a/b",
    ],
)
def test_a_project_is_named_by_its_url(folder: Path, project: str) -> None:
    with pytest.raises(ConfigurationError, match="give the URL of a GitLab project"):
        publish(folder, project, stac_io=GitLabStacIO(TOKEN))


def test_the_source_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        publish(tmp_path / "missing", "https://gitlab.example.org/a/b", stac_io=GitLabStacIO(TOKEN))
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="a link to a folder"):
        publish(tmp_path, "https://gitlab.example.org/a/b", stac_io=GitLabStacIO(TOKEN))


# -- odd sources ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are files on POSIX systems only")
def test_what_is_no_file_is_named_before_anything_is_sent(host: GitHost, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(ConfigurationError, match=r"'.*pipe' is no file"):
        published(host, folder)
    (folder / "pipe").unlink()
    (folder / "gone.csv").symlink_to(folder / "nowhere")
    with pytest.raises(ConfigurationError, match=r"'.*gone\.csv' is no file"):
        published(host, folder)
    assert host.requests == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_refused(host: GitHost, folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.csv")).write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="the name is not UTF-8"):
        published(host, folder)


def test_a_file_that_vanishes_is_named(
    host: GitHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.before_commit = pytest.fail
    add_readme = Changes.add_readme

    def vanish(changes: Changes, text: str, fields: Any) -> None:
        (folder / "lakes.csv").unlink()
        add_readme(changes, text, fields)

    monkeypatch.setattr(Changes, "add_readme", vanish)
    with pytest.raises(ConfigurationError, match=r"'.*lakes\.csv' cannot be read: No such file"):
        published(host, folder)


def test_what_git_keeps_for_itself_is_left_out(host: GitHost, folder: Path) -> None:
    write(folder, {"sub/.git": b"gitdir: elsewhere", ".git/config": b"secret"})
    published(host, folder)
    assert not any(".git" in path.split("/") for path in host.files(PROJECT))


def test_names_that_git_and_yaml_quote_arrive(host: GitHost, folder: Path, tmp_path: Path) -> None:
    odd = {
        'c"d\\e.csv': b"1",
        " first.csv": b"2",
        "- a: b.csv": b"3",
        "#hash.tif": LARGE[1:],
        "!not.tif": LARGE[2:],
        "with space.raw": LARGE[3:],
    }
    write(folder, odd)
    published(host, folder)
    clone = tmp_path / "clone"
    git("clone", "-q", host.repository(PROJECT), clone, cwd=tmp_path)
    assert {name for name in odd if (clone / name).is_file()} == odd.keys()
    for name in list(odd)[3:]:
        assert git("check-attr", "filter", name, cwd=clone).endswith(b"filter: lfs\n")
    assert {entry["key"] for entry in front_matter(host)["assets"]} >= odd.keys()


# -- secrets --------------------------------------------------------------------------------------


def test_tokens_in_hrefs_are_not_published(host: GitHost, folder: Path) -> None:
    item = pystac.Item("lakes", None, None, datetime(2020, 1, 1, tzinfo=UTC), {})
    item.add_asset("csv", pystac.Asset(str(folder / "lakes.csv")))
    hub = "https://hub.example.org/api/download/a"
    item.add_asset("far", pystac.Asset(f"{hub}?gitlab_token=canary-0001&ref=main"))
    item.add_asset("other", pystac.Asset(f"{hub}?private_token=canary-0002"))
    item.add_link(pystac.Link("via", f"{hub}?private_token=canary-0003"))
    published(host, item, metadata={"note": f"see {hub}?gitlab_token=canary-0004"})
    assert b"canary" not in host.files(PROJECT)["README.md"]
    assert front_matter(host)["assets"][1]["href"] == f"{hub}?ref=main"


@pytest.mark.parametrize("name", ["sub/item.json", "README.md"])
def test_a_file_with_the_token_is_refused_before_anything_is_sent(
    host: GitHost, folder: Path, name: str
) -> None:
    write(folder, {name: f"see https://x/y?gitlab_token={TOKEN}".encode()})
    with pytest.raises(ConfigurationError, match=f"'{name}' contains your token") as failure:
        published(host, folder)
    assert TOKEN not in str(failure.value)
    assert {request.method for request in host.requests} == {"GET"}


# -- metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [object(), Path("a"), {1, 2}])
def test_metadata_that_yaml_cannot_hold_is_refused(
    host: GitHost, folder: Path, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=r"(?i)texts?, .*numbers?, .*dates?"):
        published(host, folder, metadata={"x": value})


def test_a_number_that_json_cannot_hold_is_refused(host: GitHost, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gsd is 'nan'.*finite number"):
        published(host, folder, metadata={"gsd": [{"x": float("nan")}]})


def test_front_matter_behind_a_byte_order_mark_is_found(host: GitHost, folder: Path) -> None:
    write(folder, {"README.md": b"\xef\xbb\xbf---\ntitle: Mine\n---\ntext\n"})
    published(host, folder)
    assert host.files(PROJECT)["README.md"].startswith(b"---\ntitle: Mine\n")
    assert host.files(PROJECT)["README.md"].endswith(b"---\ntext\n")


def test_the_list_of_all_files_in_the_readme_follows_the_files(host: GitHost, folder: Path) -> None:
    published(host, folder)
    write(folder, {"new.csv": b"new"})
    (folder / "lakes.csv").unlink()
    report = published(host, folder, delete=True)
    assert (report.created, report.updated) == (("new.csv",), ("README.md",))
    assert report.deleted == ("lakes.csv",)
    keys = [entry["key"] for entry in front_matter(host)["assets"]]
    assert keys == ["big.tif", "new.csv", "sub/table é.csv"]


def test_a_list_of_assets_of_ones_own_only_loses_what_is_deleted(
    host: GitHost, folder: Path
) -> None:
    readme = b"---\nassets:\n- lakes.csv\n- path: big.tif\n  title: Big\n- '*.nc'\n---\n"
    write(folder, {"README.md": readme})
    published(host, folder)
    write(folder, {"new.csv": b"new"})
    published(host, folder)
    assert host.files(PROJECT)["README.md"].startswith(readme[:-4])
    (folder / "lakes.csv").unlink()
    (folder / "README.md").unlink()
    published(host, folder, delete=True)
    assert front_matter(host)["assets"] == [{"path": "big.tif", "title": "Big"}, "*.nc"]


# -- rules and refusals ---------------------------------------------------------------------------


def test_a_macro_of_gitattributes_counts(host: GitHost, folder: Path) -> None:
    rules = b"[attr]large filter=lfs diff=lfs merge=lfs -text\r\n*.dat large\r\n*.tif -filter\r\n"
    write(folder, {".gitattributes": rules, "a.dat": b"small"})
    published(host, folder)
    assert host.files(PROJECT)["a.dat"].startswith(b"version https://git-lfs")
    assert host.files(PROJECT)["big.tif"] == LARGE
    assert host.files(PROJECT)[".gitattributes"] == rules


def test_a_commit_that_was_refused_for_too_many_requests_is_sent_again(
    host: GitHost, folder: Path
) -> None:
    host.refusals.append(response_of({"message": "slow down"}, 429, {"retry-after": "0"}))
    assert len(published(host, folder).commits) == 1


def test_a_project_without_git_lfs_and_an_upload_that_is_not_confirmed_are_explained(
    host: GitHost, folder: Path
) -> None:
    fault = host.inject(Fault(path="/objects/batch", status=404, body={}, times=None))
    with pytest.raises(NotFoundError, match="Maybe Git LFS is not enabled"):
        published(host, folder)
    fault.disarm()
    host.inject(Fault(path="/lfs/verify", status=422, body={}, times=None))
    with pytest.raises(InvalidRequestError, match=r"upload of 'big\.tif' is not confirmed"):
        published(host, folder)
    assert sent(host, "POST").count("/api/v4/projects/alpine/lakes/repository/commits") == 0


def test_a_conflict_in_the_second_commit_keeps_both_and_the_next_run_continues(
    host: GitHost, tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    write(folder, {f"part{n}.bin": bytes([n]) * 5_000_000 for n in range(4)})
    commits = []

    def change() -> None:
        commits.append(1)
        if len(commits) == 2:
            host.write(PROJECT, {"part3.bin": b"theirs"})

    host.before_commit = change
    with pytest.raises(ConflictError, match="Someone else has changed the project"):
        published(host, folder, lfs_above=10**9)
    assert host.files(PROJECT)["part3.bin"] == b"theirs"
    assert "README.md" not in host.files(PROJECT)
    host.before_commit = lambda: None
    report = published(host, folder, lfs_above=10**9)
    assert len(report.unchanged) >= 2
    assert report.updated == ("part3.bin",)
    assert front_matter(host)["title"] == "lakes"


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*a" * 40 + "*b", "a" * 200, False),
        ("**/a" + "*a/**/a" * 40 + "/b", "a/" * 200 + "c", False),
        ("**/" * 40 + "*.tif", "a/" * 200 + "b.tif", True),
        ("[" * 4000, "a", False),
        ("[z-a]", "z", False),
        ("a**/b", "a/x/b", False),
        ("a*b*c", "abbcbc", True),
        ("**/b/**/a?c", "x/b/b/y/abc", True),
        ("a/**", "a/b/c", True),
        ("[a&&b]", "&", True),
    ],
)
def test_every_pattern_of_gitattributes_is_compared_in_little_time(
    pattern: str, path: str, fits: bool
) -> None:
    rules = GitAttributes({".gitattributes": f"{pattern} filter=lfs\n".encode()})
    assert rules.uses_lfs(path) is (True if fits else None)


@pytest.mark.parametrize(
    "front",
    [
        "a: &a [*a]",
        "assets: [&a {b: *a}]",
        "a: " + "[" * 20_000 + "]" * 20_000,
        "- " * 20_000 + "a",
        "a: &x0 [[], []]\n"
        + "".join(f"a{n}: &x{n} [*x{n - 1}, *x{n - 1}]\n" for n in range(1, 60)),
    ],
)
def test_front_matter_that_grows_when_it_is_read_is_refused(
    host: GitHost, folder: Path, front: str
) -> None:
    host.write(PROJECT, {"README.md": f"---\n{front}\n---\n".encode()})
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        published(host, folder)
    assert not any(path.endswith("/commits") for path in sent(host, "POST"))


@pytest.mark.parametrize(
    "described",
    [
        {"error": {"code": ["\x1b[2J"], "message": "no"}},
        {"error": {"code": f"\x1b[2J\n{TOKEN}", "message": {}}},
        {"error": "no"},
        {"actions": "upload"},
        {"actions": [1]},
        {"actions": {"upload": "here"}},
        {"actions": {"upload": {"href": 7, "header": 8}}},
    ],
)
def test_a_batch_response_of_wrong_types_is_an_error(
    host: GitHost, folder: Path, described: dict[str, Any]
) -> None:
    found = {"objects": [{"oid": hashlib.sha256(LARGE).hexdigest(), **described}]}
    host.inject(Fault(path="/objects/batch", status=200, body=found, times=None))
    with pytest.raises(InvalidResponseError) as caught:
        published(host, folder)
    assert str(caught.value).isprintable()
    assert TOKEN not in str(caught.value)


def test_a_token_that_gitlab_repeats_is_not_shown(host: GitHost, folder: Path) -> None:
    made = {"id": f"c0ffee-{TOKEN}"}
    host.inject(Fault(path="/repository/commits", method="POST", status=200, body=made))
    assert published(host, folder).commits == ("c0ffee-***",)
    host.write(PROJECT, {"a.csv": b"a"})
    host.projects[PROJECT]["default_branch"] = f"\x1b[2J{TOKEN}"
    with pytest.raises(ConfigurationError, match=r"default branch is '\\x1b\[2J\*\*\*'"):
        published(host, folder, branch="other")


def test_a_listing_whose_pages_lead_in_a_circle_is_an_error(host: GitHost, folder: Path) -> None:
    host.write(PROJECT, {"a.csv": b"a"})
    headers = {"X-Next-Page": "2"}
    host.inject(Fault(path="/repository/tree", status=200, body=[], headers=headers, times=None))
    with pytest.raises(InvalidResponseError, match="page 2 again"):
        published(host, folder)
    assert len([path for path in sent(host, "GET") if path.endswith("/tree")]) == 2


def test_the_address_of_a_project_may_have_a_query(host: GitHost, folder: Path) -> None:
    with GitLabStacIO(TOKEN, base_url=host.url) as reader:
        report = publish(folder, f"{host.url}/{PROJECT}/?tab=readme#top", stac_io=reader)
    assert report.project_url == f"{host.url}/{PROJECT}"
