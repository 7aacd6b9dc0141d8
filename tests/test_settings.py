"""Whatever is passed to the public surface, it works or is an error that names the argument."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest

from stac_gitlab import (
    STACAPI,
    ConfigurationError,
    GitLabStacIO,
    Limits,
    RetryPolicy,
    STACDownloader,
    STACGitLabError,
    asset_roles,
    assets_with_role,
    data_assets,
    filter_assets,
    group_by_role,
    has_any_role,
    materialize,
)
from stac_gitlab.cli import main
from stac_gitlab.search import GitLabStacApiIO, open_client
from stac_gitlab.testing import SharingHubServer, sample_projects

ONCE = RetryPolicy(max_attempts=1, deadline=20)

ODD = (
    *(None, 5, -1, 2.5, float("nan"), float("inf"), True, "", "x", "\0", b"x", object, object()),
    *([], [None], [5], {}, {"a": 1}, {5: 1}, (), ("a", 5), iter(()), open),
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def hub() -> Iterator[SharingHubServer]:
    with SharingHubServer(sample_projects()) as running:
        yield running


@pytest.fixture
def stac_io(hub: SharingHubServer) -> Iterator[GitLabStacIO]:
    with GitLabStacIO(hub.token, base_url=hub.url, retry=ONCE) as reader:
        yield reader


@pytest.fixture
def item(hub: SharingHubServer, stac_io: GitLabStacIO) -> pystac.Item:
    datasets = pystac.Collection.from_file(f"{hub.stac_url}/collections/dataset", stac_io)
    return next(iter(datasets.get_items()))


def sweep(call: Callable[..., Any], names: str, **usual: Any) -> None:
    """Call it with every odd value in the place of each argument in turn."""
    for name, odd in itertools.product(names.split(), ODD):
        try:
            call(**{**usual, name: odd})
        except (STACGitLabError, pystac.STACError, OSError):
            # The last: a path may well be one, and lead nowhere.
            continue
        except BaseException as error:  # noqa: BLE001  # told with the argument
            pytest.fail(f"{name}={odd!r}: {type(error).__name__}: {error}")


def test_values_of_a_policy_and_limits_are_checked() -> None:
    sweep(
        RetryPolicy,
        "max_attempts deadline backoff_base backoff_cap max_wait statuses min_rate stall_window "
        "sleep clock",
    )
    sweep(Limits, "redirects nesting members empty_pages file_bytes")


def test_what_makes_a_reader_is_checked(hub: SharingHubServer) -> None:
    def make(**arguments: Any) -> None:
        with GitLabStacIO(**arguments) as stac_io:
            repr(stac_io)
            stac_io.read_json(hub.stac_url)

    sweep(
        make,
        "token base_url hosts only_hosts header headers timeout retry limits session page_size "
        "on_bad_item max_document_bytes allow_pickle_token",
        token=hub.token,
        base_url=hub.url,
        retry=ONCE,
    )


def test_what_is_read_and_written_is_checked(
    hub: SharingHubServer,
    stac_io: GitLabStacIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for read in (stac_io.read_text, stac_io.read_json, stac_io.read_stac_object):
        sweep(read, "source")
    sweep(stac_io.write_text, "dest txt", dest="text", txt="text")
    sweep(lambda headers: setattr(stac_io, "headers", headers), "headers")
    catalog = pystac.Catalog.from_file(hub.stac_url, stac_io)
    sweep(materialize, "catalog max_items", catalog=catalog)


def test_what_is_downloaded_is_checked(
    hub: SharingHubServer,
    stac_io: GitLabStacIO,
    item: pystac.Item,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    downloader = STACDownloader(stac_io=stac_io, base_url=hub.url)
    options = (
        "output_dir roles exclude_roles include exclude media_types alternates overwrite verify "
        "fail_fast dry_run portable_names progress executor"
    )
    where: dict[str, Any] = {"output_dir": tmp_path / "out"}
    sweep(STACDownloader, "auth_token base_url max_workers retry stac_io")
    made = {"collection": "dataset", "namespace": "alpine/lakes", "project": "ice-cover"}
    sweep(downloader.load_item, "collection namespace project", **made)
    sweep(downloader.download_assets, f"item {options}", item=item, **where)
    sweep(downloader.download_item, f"item {options}", item=item, **where)
    sweep(downloader.download_items, f"items template {options}", items=[item], **where)
    collection = item.get_collection()
    sweep(downloader.download_collection, "collection template", collection=collection, **where)
    asset = next(iter(item.assets.values()))
    sweep(lambda **given: downloader.open(**given).close(), "asset item", asset=asset, item=item)


def test_what_assets_are_chosen_from_is_checked(item: pystac.Item) -> None:
    for function in (asset_roles, data_assets, group_by_role):
        sweep(function, "obj")
    sweep(assets_with_role, "obj role", obj=item, role="data")
    sweep(has_any_role, "obj roles", obj=item, roles="data")
    sweep(filter_assets, "obj roles exclude_roles media_types include exclude match", obj=item)


def test_what_is_asked_of_an_api_is_checked(
    hub: SharingHubServer,
    stac_io: GitLabStacIO,
    item: pystac.Item,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    url = hub.stac_url
    sweep(lambda **given: STACAPI(**given).root, "url stac_io", url=url, stac_io=stac_io)
    api = STACAPI(url, stac_io=stac_io)
    sweep(
        lambda **given: list(api.items(**given)),
        "collection bbox datetime limit max_items ids sortby fields filter filter_lang query q own",
        collection="dataset",
    )
    sweep(api.collection, "collection_id")
    for call in (api.create_item, api.update_item, api.upsert):
        sweep(call, "collection item", collection="dataset", item=item)
    sweep(api.item, "collection item_id", collection="dataset", item_id="x")
    sweep(
        api.create_items,
        "collection items on_conflict max_workers",
        collection="dataset",
        items=[item],
    )
    sweep(open_client, "url token stac_io", url=url, stac_io=stac_io)

    def open_api(**given: Any) -> None:
        with GitLabStacIO(hub.token, base_url=hub.url, retry=ONCE) as one:
            GitLabStacApiIO(one, **given)

    sweep(open_api, "parameters timeout")
    with pytest.raises(ConfigurationError, match="request_modifier has to be a function"):
        open_api(request_modifier="x")


@pytest.mark.parametrize(
    ("call", "progress"),
    [
        (lambda d, i: d.load_item(None, "a", "b"), "collection has to be the id of a collection"),
        (lambda d, i: d.load_item("a", "b", 5), "project has to be the name .*, not int"),
        (lambda d, i: d.download_assets(i, "x", executor=5), "executor has to be .*Executor"),
        (lambda d, i: d.download_assets(i, "x", progress=5), "progress=5: pass True"),
        (lambda d, i: d.download_assets(i, None), "output_dir has to be the path of a folder"),
        (lambda d, i: d.download_assets("x", "y"), "item or collection is needed, .*not str"),
        (lambda d, i: GitLabStacIO(retry=5), "retry has to be a RetryPolicy, not int"),
        (lambda d, i: GitLabStacIO(limits={}), "limits has to be Limits"),
        (lambda d, i: GitLabStacIO(hosts=5), "hosts has to be a list of URLs or host names"),
        (lambda d, i: GitLabStacIO(headers="x"), "headers has to be a dictionary"),
        (lambda d, i: GitLabStacIO().read_json(None), "source has to be a URL or a path, not None"),
    ],
)
def test_an_error_says_what_was_asked_and_what_to_pass(
    call: Callable[..., Any],
    progress: str,
    stac_io: GitLabStacIO,
    item: pystac.Item,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    downloader = STACDownloader(stac_io=stac_io, base_url="https://hub.example.org")
    with pytest.raises(ConfigurationError, match=progress):
        call(downloader, item)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", ""],
        ["--url", "x y"],
        ["--url", "file:///etc"],
        ["--url", "http://["],
        ["--output", "/dev/null/x"],
        ["--item", ".."],
    ],
)
def test_the_command_line_ends_with_a_message_and_no_traceback(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["demo", *arguments]) == 1
    assert capsys.readouterr().err.strip()
