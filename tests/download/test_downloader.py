"""Downloading the assets of one item: selection, paths, tokens and reports."""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fault_server as faulty
import pystac
import pytest
import requests
from fault_server import FAULTS_TO_FAIL_OF, FAULTS_TO_SURVIVE, Gate
from sample_items import BODY, SHA256, TOKEN, Conditional, files_in, item_of, served

from stac_gitlab import DownloadHTTPError, DownloadOptions, GitLabStacIO, STACDownloader
from stac_gitlab.errors import (
    AssetNotFoundError,
    AuthenticationError,
    ChecksumMismatchError,
    ConfigurationError,
    DownloadError,
    NotFoundError,
    NothingToDownloadWarning,
    UnsafePathError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.files.paths import FileNaming
from stac_gitlab.settings import RetryPolicy
from stac_gitlab.testing import (
    Answer,
    Fault,
    GitLabServer,
    LoopbackServer,
    Project,
    RecordedRequest,
    SharingHubServer,
)

RECORDED = Path(__file__).parents[1] / "recorded"

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and links are POSIX's")


# -- selection -------------------------------------------------------------------------------------


def test_assets_are_saved_under_their_keys(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "data/train.csv", "data/deep/er.csv", "README.md")
    report = downloader.download_assets(item, tmp_path / "new" / "folder")
    assert files_in(tmp_path / "new" / "folder") == {
        key: f"content of {key}".encode() for key in item.assets
    }
    assert list(report) == list(item.assets)
    assert report.ok


def test_only_data_is_downloaded_by_default_and_roles_select_the_rest(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv", "README.md", "thumb.png", "model.onnx")
    item.assets["README.md"].roles = ["metadata"]
    item.assets["thumb.png"].roles = ["thumbnail"]
    item.assets["model.onnx"].roles = None
    assert list(downloader.download_assets(item, tmp_path)) == ["a.csv"]
    both = downloader.download_assets(item, tmp_path, ["metadata", "thumbnail"])
    assert list(both) == ["README.md", "thumb.png"]
    assert list(downloader.download_assets(item, tmp_path, roles=None)) == list(item.assets)
    assert list(downloader.download_assets(item, tmp_path, None, exclude="*.png")) == [
        "a.csv",
        "README.md",
        "model.onnx",
    ]


def test_an_empty_selection_is_a_warning_that_names_the_assets(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv")
    with pytest.warns(NothingToDownloadWarning, match=r"Its assets: 'a\.csv'"):
        report = downloader.download_assets(item, tmp_path, roles="weights")
    assert (len(report), report.ok) == (0, True)


def test_a_missing_asset_that_include_names_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv")
    with pytest.raises(AssetNotFoundError, match=r"no asset 'b\.csv'\. Its assets: 'a\.csv'"):
        downloader.download_assets(item, tmp_path, include=["a.csv", "b.csv"])
    assert server.requests == []


def test_a_collection_has_assets_too(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    server.route("/files/style.json", b"{}")
    extent = {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [[None, None]]}}
    extent["temporal"]["interval"] = [["2020-01-01T00:00:00Z", None]]
    collection = pystac.Collection("lakes", "Lakes", pystac.Extent.from_dict(extent))
    collection.set_self_href(f"{server.url}/collection.json")
    collection.add_asset("style", pystac.Asset("files/style.json", roles=["data"]))
    downloader.download_assets(collection, tmp_path)
    assert files_in(tmp_path) == {"style": b"{}"}


def test_help_explains_every_option() -> None:
    explained = inspect.getdoc(STACDownloader.download_assets) or ""
    for name in DownloadOptions.__annotations__:
        assert f"- `{name}`:" in explained


def test_an_empty_selection_points_to_assets_without_roles(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv")
    item.assets["a.csv"].roles = None
    with pytest.warns(NothingToDownloadWarning, match="roles=None"):
        downloader.download_assets(item, tmp_path)
    assert downloader.download_assets(item, tmp_path, roles=None).ok


def test_control_characters_of_an_id_are_in_no_message(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv", item_id="\x1b[2Jevil")
    stranger = pystac.Asset(f"{server.url}/x?gitlab_token={TOKEN}")
    with pytest.raises(AssetNotFoundError) as missing:
        downloader.download_assets(item, tmp_path, include="b.csv")
    with pytest.raises(AssetNotFoundError) as foreign:
        downloader.open(stranger, item=item)
    with pytest.warns(NothingToDownloadWarning) as warned:
        downloader.download_assets(item, tmp_path, roles="weights")
    for text in (missing.value, foreign.value, warned[0].message):
        assert str(text).isprintable()
        assert TOKEN not in str(text)


def test_the_warning_for_an_item_without_assets_mentions_token_and_role(
    downloader: STACDownloader, tmp_path: Path
) -> None:
    with pytest.warns(NothingToDownloadWarning, match=r"none that this token can see\. A guest"):
        downloader.download_assets(item_of({}), tmp_path)


def odd_asset(**attributes: Any) -> pystac.Asset:
    asset = pystac.Asset("https://hub.example.org/a", roles=["data"])
    for name, value in attributes.items():
        setattr(asset, name, value)
    return asset


ODD_ASSETS: dict[str, Any] = {
    "no asset": None,
    "a dictionary": {"href": "https://hub.example.org/a"},
    "an href that is a number": odd_asset(href=5),
    "no href": odd_asset(href=None),
    "fields that are a list": odd_asset(extra_fields=["x"]),
    "no fields": odd_asset(extra_fields=None),
}


@pytest.mark.parametrize("links", [None, 5, "self", [None], {"self": "x"}])
def test_an_item_whose_links_are_no_links_is_an_error_that_names_it(
    links: Any, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = pystac.Item("lakes", None, None, datetime(2024, 1, 1, tzinfo=UTC), {})
    item.add_asset("a", pystac.Asset("https://hub.example.org/a.csv", roles=["data"]))
    item.links = links
    with pytest.raises(ConfigurationError, match="links of 'lakes' are no list"):
        downloader.download_assets(item, tmp_path)


@pytest.mark.parametrize("odd", ODD_ASSETS.values(), ids=ODD_ASSETS)
def test_an_asset_of_the_wrong_type_fails_alone(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, odd: Any
) -> None:
    item = served(server, "good.csv")
    item.assets["odd"] = odd
    with pytest.raises(DownloadError, match="this asset cannot be downloaded") as caught:
        downloader.download_assets(item, tmp_path, roles=None)
    assert list(caught.value.errors) == ["odd"]
    assert files_in(tmp_path) == {"good.csv": b"content of good.csv"}


@pytest.mark.parametrize("key", [None, 5, b"x", ("a", "b")])
def test_a_key_that_is_not_text_fails_its_asset_alone(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, key: Any
) -> None:
    item = served(server, "good.csv")
    item.assets[key] = pystac.Asset(f"{server.url}/files/good.csv", roles=["data"])
    with pytest.raises(DownloadError, match=r"1 of 2 .*\n.*its key is not text"):
        downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {"good.csv": b"content of good.csv"}


@pytest.mark.parametrize("media_type", [5, True, b"x", [], object()])
def test_a_media_type_that_is_not_text_is_ignored(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, media_type: Any
) -> None:
    item = served(server, "a.csv")
    item.assets["a.csv"].media_type = media_type
    downloader.download_assets(item, tmp_path)
    with downloader.open(item.assets["a.csv"]) as file:
        assert file.read() == (tmp_path / "a.csv").read_bytes()


# -- reports ---------------------------------------------------------------------------------------


def test_the_report_maps_keys_to_results(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv", big=BODY)
    item.assets["big"].extra_fields["file:checksum"] = SHA256
    report = downloader.download_assets(item, tmp_path)
    assert len(report) == 2
    assert "a.csv" in report
    result = report["big"]
    assert result.key == "big"
    assert result.href == f"{server.url}/files/big"
    assert result.path == tmp_path / "big"
    assert (result.size, result.checksum, result.status) == (40_000, SHA256, "downloaded")
    assert result.verified
    assert result.error is None
    assert result.seconds > 0
    assert report.paths == {"a.csv": tmp_path / "a.csv", "big": tmp_path / "big"}
    assert [r.key for r in report.downloaded] == ["a.csv", "big"]
    assert (report.skipped, report.failed, report.ok) == ([], [], True)
    assert report.bytes == 40_000 + len("content of a.csv")
    text = str(report)
    assert "big" in text
    assert "40.0 kB" in text
    assert "2 downloaded (40.0 kB)" in text.splitlines()[-1]


def test_a_resumed_download_is_reported_as_such(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, big=BODY)
    server.inject(faulty.cut(20_000))
    report = downloader.download_assets(item, tmp_path)
    assert report["big"].status == "resumed"
    assert report.downloaded == [report["big"]]
    assert files_in(tmp_path) == {"big": BODY}


def test_the_report_of_a_failure_contains_the_other_assets(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv", "gone.csv", "b.csv")
    server.inject(Fault(path="gone", status=404, times=None))
    with pytest.raises(DownloadError, match=r"1 of 3 assets failed:\n  'gone\.csv'") as caught:
        downloader.download_assets(item, tmp_path)
    error = caught.value
    assert list(error.errors) == ["gone.csv"]
    assert isinstance(error.errors["gone.csv"], NotFoundError)
    report = error.report
    assert report is not None
    assert [result.status for result in report.values()] == ["downloaded", "failed", "downloaded"]
    assert set(report.paths) == {"a.csv", "b.csv"}  # type: ignore[attr-defined]
    assert not report.ok  # type: ignore[attr-defined]
    assert [r.key for r in report.failed] == ["gone.csv"]  # type: ignore[attr-defined]
    assert "1 failed" in str(report)
    assert set(files_in(tmp_path)) == {"a.csv", "b.csv"}


def test_a_failure_pickles_with_errors_and_report(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    server.inject(Fault(status=404, times=None))
    with pytest.raises(DownloadError) as caught:
        downloader.download_assets(served(server, "a.csv"), tmp_path)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert isinstance(copy.errors["a.csv"], NotFoundError)
    assert copy.report["a.csv"].status == "failed"


def test_a_failure_of_responses_only_is_an_error_of_requests_too(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv", "forbidden", "gone")
    server.inject(Fault(path="forbidden", status=403, times=None))
    server.inject(Fault(path="gone", status=404, times=None))
    with pytest.raises(requests.HTTPError) as caught:
        downloader.download_assets(item, tmp_path)
    error = caught.value
    assert isinstance(error, DownloadHTTPError)
    assert error.response.status_code == 403
    assert list(error.errors) == ["forbidden", "gone"]
    assert TOKEN not in f"{error.request.headers} {error.response.headers}"
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.response.status_code, list(copy.errors)) == (403, ["forbidden", "gone"])


def test_a_failure_with_another_cause_is_no_error_of_requests(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "gone", "../evil")
    server.inject(Fault(path="gone", status=404, times=None))
    with pytest.raises(DownloadError) as caught:
        downloader.download_assets(item, tmp_path)
    assert not isinstance(caught.value, requests.HTTPError)


def test_many_failures_with_one_cause_are_one_line(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, *(f"data/{n}.csv" for n in range(200)), "other")
    server.inject(Fault(path="data/", status=404, times=None))
    server.inject(Fault(path="other", status=403, times=None))
    with pytest.raises(DownloadError) as caught:
        downloader.download_assets(item, tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0] == "201 of 201 assets failed:"
    assert lines[1].startswith("  200 assets ('data/0.csv', 'data/1.csv', 'data/2.csv', …): GET ")
    assert lines[2].startswith("  'other': GET ")
    assert len(caught.value.errors) == 201
    assert len(str(caught.value.report).splitlines()) == 3


def test_control_characters_of_a_key_reach_neither_message_nor_report(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = item_of({"\x1b[2Jevil\u202e": f"{server.url}/x"}, at=f"{server.url}/i")
    with pytest.raises(DownloadError) as caught:
        downloader.download_assets(item, tmp_path)
    for text in (str(caught.value), str(caught.value.report)):
        assert text.replace("\n", "").isprintable()
        assert r"\x1b[2Jevil\u202e" in text


def test_secrets_of_an_href_reach_neither_message_nor_report(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    href = f"{server.url}/a?ref=main&gitlab_token={TOKEN}"
    item = item_of({"a": href, "../b": href}, at=f"{server.url}/i")
    with pytest.raises(DownloadError) as caught:
        downloader.download_assets(item, tmp_path)
    report = caught.value.report
    assert TOKEN not in f"{caught.value} {caught.value!r} {report} {report!r}"
    assert all(TOKEN not in request.target for request in server.requests)


def test_a_token_of_any_format_is_redacted_in_an_href(
    server: LoopbackServer, tmp_path: Path
) -> None:
    secret = "opensesame4711"
    server.route("/a", b"x")
    href = f"{server.url}/a?k={secret}"
    item = item_of({"a": href, "../b": href, "c": f"s3://{secret}/c"}, at=f"{server.url}/i")
    with STACDownloader(secret, server.url) as downloader:
        downloader.stac_io.session.get(f"{server.url}/a").close()
        with pytest.raises(DownloadError) as caught:
            downloader.download_assets(item, tmp_path)
    report = caught.value.report
    assert secret not in f"{caught.value} {caught.value!r} {report} {report!r}"
    assert set(files_in(tmp_path)) == {"a"}


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS_TO_SURVIVE.values(), ids=FAULTS_TO_SURVIVE)
def test_a_fault_that_occurs_once_is_survived(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, fault: Fault
) -> None:
    item = served(server, "good.csv", big=BODY)
    item.assets["big"].extra_fields["file:checksum"] = SHA256
    server.inject(Fault(**{**vars(fault), "path": "/big"}))
    report = downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {"big": BODY, "good.csv": b"content of good.csv"}
    assert all(result.verified for result in report.values())


@pytest.mark.parametrize("fault", FAULTS_TO_FAIL_OF.values(), ids=FAULTS_TO_FAIL_OF)
def test_a_lasting_fault_fails_its_own_asset_only(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    fault: tuple[Fault, type[Exception]],
) -> None:
    item = served(server, "before.csv", old=BODY, new=BODY)
    for key in ("old", "new"):
        item.assets[key].extra_fields.update({"file:size": 40_000, "file:checksum": SHA256})
    (tmp_path / "old").write_bytes(b"good and old")
    server.inject(Fault(**{**vars(fault[0]), "path": "/(old|new)$", "times": None}))
    with pytest.raises(DownloadError, match="2 of 3 assets failed") as caught:
        downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {
        "before.csv": b"content of before.csv",
        "old": b"good and old",
    }
    for key in ("old", "new"):
        assert isinstance(caught.value.errors[key], fault[1])
        assert repr(key) in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_body_without_length_is_kept_with_a_warning(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, big=BODY)
    server.inject(Fault(close=True))
    with pytest.warns(UnverifiedDownloadWarning, match="'big'"):
        report = downloader.download_assets(item, tmp_path)
    assert not report["big"].verified
    assert files_in(tmp_path) == {"big": BODY}


@pytest.mark.parametrize(
    ("checksum", "why"),
    [
        (hashlib.md5(BODY).hexdigest(), "bare digest"),
        ("1e20" + "00" * 32, "does not have the hash function 0x1e"),
        ({"sha256": "00"}, "not a hexadecimal multihash"),
    ],
)
def test_a_checksum_that_cannot_be_verified_is_a_warning(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, checksum: Any, why: str
) -> None:
    item = served(server, big=BODY)
    item.assets["big"].extra_fields["file:checksum"] = checksum
    with pytest.warns(
        UnverifiedDownloadWarning, match=f"'big': file:checksum is not verified: .*{why}"
    ):
        report = downloader.download_assets(item, tmp_path)
    assert report["big"].checksum is None
    assert files_in(tmp_path) == {"big": BODY}


def test_a_wrong_size_in_the_metadata_is_overruled_without_verification(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, big=BODY)
    item.assets["big"].extra_fields["file:size"] = 7
    with pytest.raises(DownloadError, match=r"file:size is 7.* verify=False skips this check"):
        downloader.download_assets(item, tmp_path)
    assert downloader.download_assets(item, tmp_path, verify=False).ok
    assert files_in(tmp_path) == {"big": BODY}


def test_size_and_checksum_of_the_metadata_are_overruled_one_by_one(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, big=BODY)
    fields = item.assets["big"].extra_fields
    fields |= {"file:size": 7, "file:checksum": SHA256}
    with pytest.raises(DownloadError, match=r"file:size is 7.* verify='checksum' only this one"):
        downloader.download_assets(item, tmp_path)
    with pytest.raises(DownloadError, match="file:size is 7"):
        downloader.download_assets(item, tmp_path, verify="length")
    report = downloader.download_assets(item, tmp_path, verify="checksum")
    assert (report["big"].status, report["big"].checksum) == ("downloaded", SHA256)
    with downloader.open(item.assets["big"], verify="checksum") as file:
        assert file.read() == BODY
    fields |= {"file:size": len(BODY), "file:checksum": f"1220{'00' * 32}"}
    with pytest.raises(DownloadError, match="verify='length' only this one"):
        downloader.download_assets(item, tmp_path)
    with pytest.raises(DownloadError, match="expected one is 0000"):
        downloader.download_assets(item, tmp_path, verify="checksum")
    report = downloader.download_assets(item, tmp_path, verify="length", overwrite="always")
    assert (report["big"].status, report["big"].checksum) == ("downloaded", None)


@pytest.mark.parametrize("verify", ["size", 1, None, ["length"]])
def test_what_to_verify_is_one_of_a_few_words(
    verify: Any, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = item_of({"a": "https://h.example.org/a"})
    with pytest.raises(ConfigurationError, match="'length' and 'checksum'"):
        downloader.download_assets(item, tmp_path, verify=verify)
    with pytest.raises(ConfigurationError, match="'length' and 'checksum'"):
        downloader.open(item.assets["a"], verify=verify)


def test_the_advice_after_a_timeout_names_an_argument_of_the_downloader(
    server: LoopbackServer, tmp_path: Path
) -> None:
    item = served(server, big=BODY)
    once = RetryPolicy(max_attempts=1)
    server.inject(Fault(delay=faulty.FOR_EVER, times=None))
    with (
        STACDownloader(base_url=server.url, timeout=0.2, retry=once) as downloader,
        pytest.raises(DownloadError, match=r"raise timeout= of the GitLabStacIO or STACDownloader"),
    ):
        downloader.download_assets(item, tmp_path)
    with pytest.raises(ConfigurationError, match="timeout=0"):
        STACDownloader(base_url=server.url, timeout=0)


@pytest.mark.parametrize("size", ["40000", True, None, -1, 4e4, [], 2**63, 10**400])
def test_an_invalid_size_is_ignored(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, size: Any
) -> None:
    item = served(server, big=BODY)
    item.assets["big"].extra_fields["file:size"] = size
    assert downloader.download_assets(item, tmp_path, dry_run=True)["big"].size is None
    assert downloader.download_assets(item, tmp_path).ok


@pytest.mark.parametrize("first", [1, 5_000])
def test_the_token_in_a_page_is_in_no_frame_of_the_traceback(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, first: int
) -> None:
    spelled = "".join(f"%{ord(char):02x}" for char in TOKEN)
    page = f"<html><title>Sign in</title>{TOKEN} {spelled}</html>".encode()
    server.route("/x", lambda _: Answer(200, (("content-type", "text/html"),), page))
    server.inject(Fault(trickle=(first, 0.02), times=None))
    with pytest.raises(DownloadError) as caught:
        downloader.download_assets(item_of({"a.csv": f"{server.url}/x"}), tmp_path)
    error = caught.value.errors["a.csv"]
    progress = traceback.TracebackException.from_exception(error, capture_locals=True)
    here = [frame for frame in progress.stack if frame.filename == __file__]
    assert not here
    redacted = "".join(progress.format())
    assert TOKEN not in redacted
    assert spelled not in redacted


def test_folders_of_failed_files_are_removed(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "good/a")
    for key in ("bad/b", "bad/deep/c", "good/deep/d", "empty/e"):
        item.add_asset(key, pystac.Asset(f"{server.url}/missing", roles=["data"]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DownloadError, match="4 of 5"):
        downloader.download_assets(item, tmp_path)
    folders = {path.name for path in tmp_path.rglob("*") if path.is_dir()}
    assert folders == {"good", "empty"}, "one that was there before stays"


def test_a_path_that_the_system_refuses_is_an_error_of_its_asset(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv")
    item.assets["/".join(["folder" * 30] * 20)] = pystac.Asset(
        f"{server.url}/files/a.csv", roles=["data"], extra_fields={"file:size": 5}
    )
    folder = tmp_path / "/".join(["f" * 200] * 5)
    folder.mkdir(parents=True)
    for dry_run in (True, False):
        with pytest.raises(DownloadError, match=r"1 of 2 .*failed") as caught:
            downloader.download_assets(item, folder, dry_run=dry_run)
        (error,) = caught.value.errors.values()
        assert "name too long" in str(error)
    assert files_in(folder) == {"a.csv": b"content of a.csv"}


@pytest.mark.parametrize("name", ["pipe", "folder", "a\0b", "a\ud800"])
def test_only_regular_local_files_are_opened(
    downloader: STACDownloader, tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / "pipe")  # to open it would be to wait for ever
    (tmp_path / "folder").mkdir()
    item = item_of({"a": name}, at=str(tmp_path / "item.json"))
    item.assets["a"].href = name
    with pytest.raises(DownloadError, match=r"not a regular file|not a URL"):
        downloader.open(item.assets["a"])
    with pytest.raises(DownloadError, match=r"not a regular file|not a URL"):
        downloader.download_assets(item, tmp_path / "out")


def test_verify_false_ignores_a_wrong_checksum(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, big=BODY)
    item.assets["big"].extra_fields["file:checksum"] = "1220" + "00" * 32
    assert downloader.download_assets(item, tmp_path, verify=False).ok


# -- tokens ----------------------------------------------------------------------------------------


def secrets_seen(server: LoopbackServer) -> set[str]:
    """The names of the headers that contained the token."""
    return {
        name
        for request in server.requests
        for name, value in request.headers.items()
        if TOKEN in value
    }


def test_the_token_goes_to_its_own_server_only(
    server: LoopbackServer,
    other_server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
) -> None:
    server.route("/own", b"own")
    server.route("/moved", Answer(302, (("location", f"{other_server.url}/object"),)))
    other_server.route("/foreign", b"foreign")
    other_server.route("/object", b"object")
    other_server.route("/back", Answer(307, (("location", f"{server.url}/own"),)))
    hrefs = {
        "own": f"{server.url}/own",
        "moved": f"{server.url}/moved",
        "foreign": f"{other_server.url}/foreign",
        "back": f"{other_server.url}/back",
    }
    downloader.download_assets(item_of(hrefs, at=f"{server.url}/items/lakes"), tmp_path)
    assert files_in(tmp_path) == {
        "back": b"own",
        "foreign": b"foreign",
        "moved": b"object",
        "own": b"own",
    }
    assert secrets_seen(server) == {"X-Gitlab-Token"}
    assert len(other_server.requests) == 3
    assert secrets_seen(other_server) == set()
    assert all(TOKEN not in repr(request) for request in other_server.requests)


def test_an_item_does_not_choose_the_server_of_the_token(
    server: LoopbackServer,
    other_server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
) -> None:
    other_server.route("/api/download/group/lakes/repository/a.csv", b"x")
    evil = f"{other_server.url}/api/stac/collections/dataset/items/group/lakes"
    href = f"{server.url}/api/download/group/lakes/repository/a.csv?ref=main"
    item = item_of({"a.csv": href}, at=evil)
    downloader.download_assets(item, tmp_path)
    assert secrets_seen(other_server) == set()


def test_a_401_of_another_server_says_that_the_token_was_not_sent(
    other_server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    other_server.inject(Fault(status=401, times=None))
    item = item_of({"a": f"{other_server.url}/a"})
    with pytest.raises(DownloadError, match=r"The token was not sent to .* name that server in"):
        downloader.download_assets(item, tmp_path)


def test_cookies_are_not_sent_with_the_next_asset(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a", "b")
    server.inject(Fault(headers={"set-cookie": "session=1; Path=/"}, times=None))
    downloader.download_assets(item, tmp_path)
    assert all("Cookie" not in request.headers for request in server.requests)


def test_assets_are_downloaded_over_tls_with_a_certificate_of_the_environment(
    tls_server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = served(tls_server, "a", "b", big=BODY)
    tls_server.inject(faulty.cut(20_000, path="big"))
    with STACDownloader(TOKEN, tls_server.url) as downloader:
        with monkeypatch.context() as without:
            without.delenv("REQUESTS_CA_BUNDLE")
            with pytest.raises(DownloadError, match="name its file in REQUESTS_CA_BUNDLE"):
                downloader.download_assets(item, tmp_path / "out")
        assert tls_server.requests == []
        report = downloader.download_assets(item, tmp_path / "out")
    assert secrets_seen(tls_server) == {"X-Gitlab-Token"}
    assert report["big"].status == "resumed"
    assert files_in(tmp_path / "out") == {"a": b"content of a", "b": b"content of b", "big": BODY}


# -- hrefs -----------------------------------------------------------------------------------------


def test_relative_hrefs_are_relative_to_the_item(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    for path in ("/cat/item/a.csv", "/cat/b.csv", "/c.csv"):
        server.route(path, path.encode())
    hrefs = {"a": "./a.csv", "b": "../b.csv", "c": "/c.csv"}
    downloader.download_assets(item_of(hrefs, at=f"{server.url}/cat/item/item.json"), tmp_path)
    assert files_in(tmp_path) == {"a": b"/cat/item/a.csv", "b": b"/cat/b.csv", "c": b"/c.csv"}


@pytest.mark.parametrize("href", ["file:///etc/hostname", "FILE:///etc/hostname"])
def test_a_remote_item_cannot_select_local_files(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, href: str
) -> None:
    item = item_of({"a": href}, at=f"{server.url}/items/lakes")
    with pytest.raises(DownloadError, match="refers to a local file"):
        downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {}


def test_a_remote_item_with_a_local_self_link_cannot_select_local_files(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    document = item_of({"a": f"file://{secret}", "b": str(secret)}).to_dict()
    document["links"] = [{"rel": "self", "href": str(tmp_path / "item.json")}]
    server.route("/item.json", document)
    item = pystac.Item.from_file(f"{server.url}/item.json", stac_io=downloader.stac_io)
    with pytest.raises(DownloadError):
        downloader.download_assets(item, tmp_path / "out")
    assert files_in(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("name", "href"),
    [
        ("a.csv", "a.csv"),
        ("a.csv", "./a.csv"),
        ("sub dir/with space.csv", "sub dir/with space.csv"),
        ("a#b.csv", "a#b.csv"),
        ("what?.csv", "./what?.csv"),
        ("100%.csv", "100%.csv"),
        ("été.csv", "été.csv"),
    ],
)
def test_the_local_assets_of_a_local_item_are_copied(
    downloader: STACDownloader, tmp_path: Path, name: str, href: str
) -> None:
    home = tmp_path / "catalog"
    (home / name).parent.mkdir(parents=True)
    (home / name).write_bytes(BODY)
    item = item_of(
        {"relative": {"href": href, "file:checksum": SHA256}, "absolute": str(home / name)},
        at=str(home / "item.json"),
    )
    report = downloader.download_assets(item, tmp_path / "out")
    assert files_in(tmp_path / "out") == {"absolute": BODY, "relative": BODY}
    assert report["relative"].checksum == SHA256


@pytest.mark.parametrize("name", ["a.csv", "with space.csv", "a#b.csv", "100%.csv", "été.csv"])
def test_a_file_url_of_a_local_item_is_copied(
    downloader: STACDownloader, tmp_path: Path, name: str
) -> None:
    origin = tmp_path / name
    origin.write_bytes(BODY)
    item = item_of({"a": origin.as_uri()}, at=str(tmp_path / "item.json"))
    downloader.download_assets(item, tmp_path / "out")
    assert files_in(tmp_path / "out") == {"a": BODY}


def test_the_error_for_a_missing_local_asset_names_its_path(
    downloader: STACDownloader, tmp_path: Path
) -> None:
    item = item_of({"a": "missing.csv"}, at=str(tmp_path / "item.json"))
    with pytest.raises(DownloadError) as caught:
        downloader.download_assets(item, tmp_path / "out")
    text = str(caught.value.errors["a"])
    assert str(tmp_path / "missing.csv") in text
    assert "cannot be written" not in text


@pytest.mark.parametrize(
    ("href", "tool"),
    [
        ("s3://bucket/key", "aws s3 cp"),
        ("S3://bucket/key", "aws s3 cp"),
        ("gs://bucket/key", "gcloud storage cp"),
        ("ftp://host/file", "curl"),
        ("python://a.py", "a tool that speaks it"),
    ],
)
def test_the_error_for_another_scheme_names_a_tool(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, href: str, tool: str
) -> None:
    item = served(server, "good.csv")
    item.add_asset("a", pystac.Asset(href, roles=["data"]))
    with pytest.raises(DownloadError, match=f"Use .*{tool}") as caught:
        downloader.download_assets(item, tmp_path)
    assert list(caught.value.errors) == ["a"]
    assert files_in(tmp_path) == {"good.csv": b"content of good.csv"}


@pytest.mark.parametrize("href", ["http://[bad", "http://", "http://host:port/x", "https://a b/"])
def test_an_invalid_href_fails_its_own_asset_only(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, href: str
) -> None:
    item = served(server, "good.csv")
    item.add_asset("a", pystac.Asset(href, roles=["data"]))
    with pytest.raises(DownloadError) as caught:
        downloader.download_assets(item, tmp_path)
    assert list(caught.value.errors) == ["a"]
    assert files_in(tmp_path) == {"good.csv": b"content of good.csv"}


# -- names -----------------------------------------------------------------------------------------

UNSAFE = [
    "../evil",
    "/evil",
    "..",
    "a/../../evil",
    "..\\evil",
    "C:\\evil",
    "a//b",
    "a\nb",
    "\ud800",
]


@pytest.mark.parametrize("key", [*UNSAFE, "x" * 300, ".stac-gitlab-records.jsonl"])
def test_an_unsafe_name_fails_its_own_asset_only(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, key: str
) -> None:
    item = served(server, "good.csv")
    item.add_asset(key, pystac.Asset(f"{server.url}/files/good.csv", roles=["data"]))
    with pytest.raises(DownloadError, match="cannot be a file name") as caught:
        downloader.download_assets(item, tmp_path / "out")
    assert list(caught.value.errors) == [key]
    assert isinstance(caught.value.errors[key], UnsafePathError)
    assert files_in(tmp_path) == {"out/good.csv": b"content of good.csv"}
    assert len(server.requests) == 1


def test_portable_names_rejects_names_that_other_systems_forbid(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = item_of({"con.txt": f"{server.url}/files/good", "a": f"{server.url}/files/good"})
    server.route("/files/good", b"good")
    with pytest.raises(DownloadError, match="is a device on Windows"):
        downloader.download_assets(item, tmp_path, portable_names=True)
    assert files_in(tmp_path) == {"a": b"good"}


@pytest.mark.parametrize(
    ("keys", "naming"),
    [
        (("Case.csv", "case.csv"), FileNaming(ignores_case=True, normalizes=False)),
        (("e\u0301.csv", "\u00e9.csv"), FileNaming(ignores_case=False, normalizes=True)),
        (("data", "data/a.csv"), None),
        (("a/b/c", "a/b"), None),
    ],
)
def test_names_that_collide_are_an_error_before_the_first_byte(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: tuple[str, str],
    naming: FileNaming | None,
) -> None:
    if naming is not None:
        monkeypatch.setattr(FileNaming, "of", classmethod(lambda _cls, _folder: naming))
    item = served(server, *keys, "other.csv")
    with pytest.raises(DownloadError, match="would be the same file") as caught:
        downloader.download_assets(item, tmp_path)
    assert all(repr(key) in str(caught.value) for key in keys)
    assert server.requests == []
    assert files_in(tmp_path) == {}
    rest = downloader.download_assets(item, tmp_path, exclude=keys[0])
    assert set(rest) == {keys[1], "other.csv"}


def test_portable_names_rejects_names_that_collide_elsewhere(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "Case.csv", "case.csv")
    with pytest.raises(DownloadError, match="would be the same file"):
        downloader.download_assets(item, tmp_path, portable_names=True)
    if not FileNaming.of(tmp_path).ignores_case:
        downloader.download_assets(item, tmp_path)
        assert set(files_in(tmp_path)) == {"Case.csv", "case.csv"}


@posix_only
def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "mine.csv").write_bytes(b"mine")
    (folder / "link").symlink_to(outside)
    (folder / "file.csv").symlink_to(outside / "mine.csv")
    item = served(server, "link/mine.csv", "link/new/x.csv", "file.csv")
    with pytest.raises(DownloadError, match=r"outside of it\. Nothing is written there") as caught:
        downloader.download_assets(item, folder)
    assert set(caught.value.errors) == {"link/mine.csv", "link/new/x.csv"}
    assert files_in(outside) == {"mine.csv": b"mine"}
    assert (folder / "file.csv").read_bytes() == b"content of file.csv"
    assert list(outside.iterdir()) == [outside / "mine.csv"]


def test_a_file_where_a_folder_is_needed_fails_its_own_asset_only(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"a file")
    item = served(server, "data/a.csv", "b.csv")
    with pytest.raises(DownloadError, match="because a file has its name"):
        downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {"b.csv": b"content of b.csv", "data": b"a file"}


def test_a_folder_where_a_file_is_needed_fails_its_own_asset_only(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").mkdir()
    item = served(server, "a.csv", "b.csv")
    for overwrite in ("if-changed", "never"):
        with pytest.raises(DownloadError, match=r"'a\.csv'.*written: .*Remove this folder"):
            downloader.download_assets(item, tmp_path, overwrite=overwrite)
    assert files_in(tmp_path) == {"b.csv": b"content of b.csv"}
    # Neither run has downloaded the file in vain.
    assert not [request for request in server.requests if request.path.endswith("a.csv")]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENAMETOOLONG, "shorter path"),
    ],
)
def test_the_error_for_a_limit_of_the_system_says_which(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    advice: str,
) -> None:
    def write(handle: int, content: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("stac_gitlab.files.partial_file.os.write", write)
    with pytest.raises(DownloadError, match=f"{os.strerror(number)}.*{advice}"):
        downloader.download_assets(served(server, "a.csv"), tmp_path)


# The names are escaped because the command line is not UTF-8 either.
ASCII_LOCALE = """
import sys, pystac, stac_gitlab
item = pystac.Item.from_dict({
    "type": "Feature", "stac_version": "1.1.0", "id": "lakes", "geometry": None, "links": [],
    "properties": {"datetime": "2024-01-01T00:00:00Z"},
    "assets": {
        key: {"href": sys.argv[1], "roles": ["data"]} for key in ("ok", "\\u6c34.csv", "\\xe9/a")
    },
})
for folder in (sys.argv[2], sys.argv[2] + "/\\xe9"):
    try:
        stac_gitlab.STACDownloader().download_assets(item, folder)
    except stac_gitlab.errors.STACGitLabError as error:
        print(ascii(str(error)))
"""


@posix_only
def test_names_that_the_locale_cannot_write_fail_their_own_assets_only(
    server: LoopbackServer, tmp_path: Path
) -> None:
    server.route("/a", BODY)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ASCII_LOCALE, f"{server.url}/a", str(tmp_path)],
        check=True,
        env={**os.environ, **ascii_only},
        capture_output=True,
        text=True,
        timeout=60,
    )
    by_assets, by_folder = done.stdout.splitlines()
    assert "2 of 3 assets failed" in by_assets
    assert "PYTHONUTF8=1" in by_assets
    assert "PYTHONUTF8=1" in by_folder
    assert files_in(tmp_path) == {"ok": BODY}


# -- folders that cannot be written to -------------------------------------------------------------


def test_a_file_where_the_output_folder_is_needed_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(DownloadError, match="out"):
        downloader.download_assets(served(server, "a.csv"), tmp_path / "out")
    with pytest.raises(DownloadError, match="out"):
        downloader.download_assets(served(server, "a.csv"), tmp_path / "out" / "deeper")
    assert server.requests == []


def test_a_folder_that_refuses_new_files_is_an_error(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.open

    def refusing(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(DownloadError, match="Permission denied"):
        downloader.download_assets(served(server, "a.csv"), tmp_path)
    assert files_in(tmp_path) == {}


@posix_only
def test_a_folder_without_the_permission_to_write_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DownloadError, match="Permission denied"):
            downloader.download_assets(served(server, "a.csv"), tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_is_removed_during_the_run_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    folder = tmp_path / "out"

    def vanish(request: RecordedRequest) -> Answer:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return Answer(200, (), BODY)

    item = served(server, "a")
    server.inject(Fault(path="/a$", answer=vanish))
    with pytest.raises(DownloadError, match=r"'a'.*cannot be written"):
        downloader.download_assets(item, folder)
    assert files_in(tmp_path) == {}


def test_the_error_for_a_full_disk_says_what_to_check(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.write

    def write(handle: int, content: Any) -> int:
        if len(content) > 30_000:
            raise OSError(28, "No space left on device")
        return real(handle, content)

    (tmp_path / "big").write_bytes(b"good and old")
    item = served(server, "small", big=BODY)
    monkeypatch.setattr("stac_gitlab.files.partial_file.os.write", write)
    with pytest.raises(DownloadError, match=r"No space left on device.*Check the free space"):
        downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path)["big"] == b"good and old"
    assert not [name for name in files_in(tmp_path) if name.endswith(".part")]


def test_a_full_disk_stops_the_run(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(_handle: int, _content: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stac_gitlab.files.partial_file.os.write", write)
    item = served(server, *(f"{n}.csv" for n in range(100)))
    one = STACDownloader(stac_io=downloader.stac_io, max_workers=1)
    with pytest.raises(DownloadError, match="No space left on device") as caught:
        one.download_assets(item, tmp_path)
    assert len(server.requests) == 1
    assert len(caught.value.errors) == 100
    assert "'1.csv': not started" in str(caught.value.errors["1.csv"])
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("options", [{}, {"overwrite": "never"}, {"dry_run": True}])
def test_nothing_is_written_where_everything_is_current(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    for key in ("a.csv", "data/b.csv"):
        server.route(f"/{key}", Conditional(BODY, etag='"one"'))
    item = item_of({key: f"{server.url}/{key}" for key in ("a.csv", "data/b.csv")})
    downloader.download_assets(item, tmp_path)
    real = os.open

    def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    report = downloader.download_assets(item, tmp_path, **options)
    expected = "planned" if options == {"dry_run": True} else "skipped"
    assert {result.status for result in report.values()} == {expected}


def test_a_read_only_file_system_stops_the_run(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read_only(_file: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("stac_gitlab.files.partial_file.PartialFile._open", read_only)
    item = served(server, *(f"{n}.csv" for n in range(50)))
    one = STACDownloader(stac_io=downloader.stac_io, max_workers=1)
    with pytest.raises(DownloadError, match="Read-only file system"):
        one.download_assets(item, tmp_path)
    assert len(server.requests) == 1


def test_a_folder_is_not_created_for_assets_that_cannot_be_downloaded(
    downloader: STACDownloader, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError):
        downloader.download_assets(item_of({"a": "s3://bucket/a"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tilde_is_the_home_folder(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    report = downloader.download_assets(served(server, "a.csv"), "~/out")
    assert report.paths == {"a.csv": tmp_path / "out" / "a.csv"}
    assert set(files_in(tmp_path)) == {"out/a.csv"}


@pytest.mark.parametrize("method", ["download_assets", "download_item"])
def test_a_relative_folder_does_not_follow_the_current_folder(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def change_folder(_request: RecordedRequest) -> Answer:
        os.chdir(tmp_path / "elsewhere")
        return Answer(200, (), b"a")

    item = served(server, "a.csv", item_id="lakes")
    server.route("/files/a.csv", change_folder)
    report = getattr(downloader, method)(item, "out")
    assert report.paths == {"a.csv": Path("out/a.csv")}
    assert files_in(tmp_path / "elsewhere") == {}
    if method == "download_item":
        saved = json.loads((tmp_path / "out" / "lakes.json").read_text())
        assert saved["assets"]["a.csv"]["href"] == "./a.csv"
    assert (tmp_path / "out" / "a.csv").read_bytes() == b"a"


# -- stopping --------------------------------------------------------------------------------------


def test_fail_fast_starts_no_further_download(
    server: LoopbackServer, tmp_path: Path, downloader: STACDownloader
) -> None:
    keys = [f"{n:02}.csv" for n in range(40)]
    item = served(server, *keys)
    server.inject(Fault(path="00", status=404, times=None))
    one_by_one = STACDownloader(stac_io=downloader.stac_io, max_workers=1)
    with pytest.raises(DownloadError, match=r"'00\.csv'") as caught:
        one_by_one.download_assets(item, tmp_path, fail_fast=True)
    assert isinstance(caught.value.errors["00.csv"], NotFoundError)
    assert len(server.requests) < 5
    assert len(files_in(tmp_path)) < 5


def test_fail_fast_cancels_running_downloads(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    gate = Gate(BODY)
    item = served(server, "bad.csv")
    server.route("/slow", gate)
    item.add_asset("slow", pystac.Asset(f"{server.url}/slow", roles=["data"]))

    def refuse(request: RecordedRequest) -> Answer:
        gate.wait_for(1)
        return Answer(404)

    server.route("/files/bad.csv", refuse)
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"'bad\.csv'") as caught:
        downloader.download_assets(item, tmp_path, fail_fast=True)
    assert time.monotonic() - started < 10
    gate.open()
    assert isinstance(caught.value.errors["bad.csv"], NotFoundError)
    assert files_in(tmp_path) == {}


def test_fail_fast_sends_no_request_if_a_name_is_unsafe(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "good.csv", "../evil")
    with pytest.raises(DownloadError, match="cannot be a file name"):
        downloader.download_assets(item, tmp_path, fail_fast=True)
    assert server.requests == []


def test_assets_are_downloaded_in_parallel(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    gate = Gate(BODY)
    server.route("/slow", gate)
    item = item_of({f"{n}.bin": f"{server.url}/slow" for n in range(8)})
    opener = threading.Thread(target=lambda: (gate.wait_for(8), gate.open()))
    opener.start()
    report = downloader.download_assets(item, tmp_path)
    opener.join()
    assert len(report.downloaded) == 8
    assert set(files_in(tmp_path).values()) == {BODY}


IN_ANOTHER_PROCESS = textwrap.dedent("""
    import json, sys, threading, time
    import pystac
    from stac_gitlab import GitLabStacIO, STACDownloader

    document, folder, url, timeout = sys.argv[1:]
    stac_io = GitLabStacIO("glpat-x", base_url=url, timeout=float(timeout))
    with STACDownloader(stac_io=stac_io) as downloader:
        try:
            downloader.download_assets(pystac.Item.from_dict(json.loads(document)), folder)
        except KeyboardInterrupt:
            ended = "interrupted"
        else:
            ended = "finished"
    others = [thread for thread in threading.enumerate() if thread.name != "MainThread"]
    for thread in others:
        thread.join(1)  # one that was just being started when the signal came
    left = [thread.name for thread in others if thread.is_alive()]
    print(json.dumps([ended, left, time.time()]))
""")


def download_in_another_process(
    item: pystac.Item, folder: Path, url: str, *, timeout: float = 60
) -> subprocess.Popen[str]:
    """Start a download in another process."""
    arguments = [json.dumps(item.to_dict()), str(folder), url, str(timeout)]
    return subprocess.Popen(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@posix_only
def test_an_interrupt_ends_the_run_and_leaves_nothing_behind(
    server: LoopbackServer, tmp_path: Path
) -> None:
    gate = Gate(BODY)
    server.route("/stalls", gate)
    server.route("/good", b"good")
    server.inject(Fault(path="/late", delay=faulty.FOR_EVER, times=None))
    hrefs = {
        "good.csv": f"{server.url}/good",
        "one.bin": f"{server.url}/stalls",
        "old.bin": f"{server.url}/stalls",
        "late.bin": f"{server.url}/late",
    }
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old.bin").write_bytes(b"good and old")
    child = download_in_another_process(item_of(hrefs), folder, server.url)
    try:
        gate.wait_for(2, timeout=30)
        sent = time.time()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    finally:
        gate.open()
        child.kill()
        child.communicate()
    assert out, err
    ended, threads, at = json.loads(out)
    assert ended == "interrupted"
    assert at - sent < 2.5
    assert threads == []
    found = files_in(folder)
    found.pop("good.csv", None)
    assert found == {"old.bin": b"good and old"}


@posix_only
def test_an_interrupt_does_not_wait_for_a_connection(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        child = download_in_another_process(item_of({"a": f"{url}/a"}), tmp_path, url, timeout=6)
        try:
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(1), "the greeting of TLS"
                sent = time.time()
                child.send_signal(signal.SIGINT)
                out, err = child.communicate(timeout=20)
        finally:
            child.kill()
            child.communicate()
    assert out, err
    assert json.loads(out)[2] - sent < 2.5
    assert files_in(tmp_path) == {}


@posix_only
def test_a_kill_leaves_no_incomplete_file_under_a_final_name(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    gate = Gate(BODY)
    server.route("/stalls", gate)
    item = item_of({"new.bin": f"{server.url}/stalls", "old.bin": f"{server.url}/stalls"})
    (tmp_path / "old.bin").write_bytes(b"good and old")
    child = download_in_another_process(item, tmp_path, server.url)
    try:
        gate.wait_for(2, timeout=30)
    finally:
        child.kill()
        child.communicate()
    assert not (tmp_path / "new.bin").exists()
    assert (tmp_path / "old.bin").read_bytes() == b"good and old"
    gate.open()
    downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path)["new.bin"] == files_in(tmp_path)["old.bin"] == BODY


# -- constructor -----------------------------------------------------------------------------------


def test_invalid_arguments_are_rejected(server: LoopbackServer) -> None:
    stac_io = GitLabStacIO(TOKEN, base_url=server.url)
    for wrong in (
        {"max_workers": 0},
        {"stac_io": stac_io, "auth_token": TOKEN},
        {"stac_io": stac_io, "retry": RetryPolicy()},
    ):
        with pytest.raises(ConfigurationError):
            STACDownloader(**wrong)  # type: ignore[arg-type]


def test_without_arguments_the_default_reader_is_used(server: LoopbackServer) -> None:
    stac_io = GitLabStacIO(TOKEN, base_url=server.url)
    assert STACDownloader().stac_io is not stac_io
    pystac.StacIO.set_default(stac_io)
    try:
        assert STACDownloader().stac_io is stac_io
        assert STACDownloader("glpat-other").stac_io is not stac_io
    finally:
        pystac.StacIO.set_default(pystac.stac_io.DefaultStacIO)


def test_the_repr_does_not_show_the_token(downloader: STACDownloader) -> None:
    assert TOKEN not in repr(downloader)
    assert "127.0.0.1" in repr(downloader)


def test_load_item_without_a_server_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"base_url=.*STAC_GITLAB_URL"):
        STACDownloader(TOKEN).load_item("dataset", "group", "lakes")
    monkeypatch.setenv("STAC_GITLAB_URL", "https://hub.example.org")
    assert STACDownloader(TOKEN).base_url == "https://hub.example.org"


# -- SharingHub and GitLab -------------------------------------------------------------------------

ODD_FILES = {
    key: b"II*\0 as a TIFF begins" if key.endswith(".tif") else f"content of {key}".encode()
    for key in json.loads((RECORDED / "item-nested-group.json").read_text("utf-8"))["response"][
        "json"
    ]["assets"]
    if key not in ("release", "preview.png")
}


BACKSLASHED = "data/back\\slash.csv"


@pytest.fixture(scope="module")
def hub() -> Iterator[SharingHubServer]:
    project = Project(
        "earth-obs/sentinel/s2-demo",
        {**ODD_FILES, "data/empty.csv": b"", "README.md": b"# Demo"},
        categories=("dataset",),
        lfs=("*.safetensors",),
    )
    with SharingHubServer([project], token=TOKEN) as running:
        yield running


@pytest.mark.parametrize("suffix", ["", "/", "/api/stac", "/api/stac/"])
@pytest.mark.parametrize(
    ("namespace", "project"),
    [
        ("earth-obs/sentinel", "s2-demo"),
        ("/earth-obs/sentinel/", "/s2-demo/"),
        ("earth-obs", "sentinel/s2-demo"),
    ],
)
def test_load_item_finds_the_project(
    hub: SharingHubServer, suffix: str, namespace: str, project: str
) -> None:
    with STACDownloader(TOKEN, f"{hub.url}{suffix}") as downloader:
        item = downloader.load_item("dataset", namespace, project)
    assert item.id == "earth-obs/sentinel/s2-demo"
    assert hub.requests[-1].raw_path == (
        "/api/stac/collections/dataset/items/earth-obs/sentinel/s2-demo"
    )
    assert TOKEN not in json.dumps(item.to_dict())


def test_load_item_accepts_a_server_below_a_path() -> None:
    server = SharingHubServer([Project("group/lakes")], token=TOKEN, base_path="/hub/api/stac")
    with server, STACDownloader(TOKEN, f"{server.url}/hub") as downloader:
        assert downloader.load_item("dataset", "group", "lakes").id == "group/lakes"


def test_load_item_quotes_special_characters(server: LoopbackServer) -> None:
    with STACDownloader(TOKEN, server.url) as downloader, pytest.raises(NotFoundError):
        downloader.load_item("a/b?c", "gr?oup", "la#kes")
    assert server.requests[0].raw_path == "/api/stac/collections/a%2Fb%3Fc/items/gr%3Foup/la%23kes"


def test_load_item_raises_the_error_of_the_server(hub: SharingHubServer) -> None:
    downloader = STACDownloader("glpat-wrong", hub.url)
    with downloader, pytest.raises(AuthenticationError, match="401"):
        downloader.load_item("dataset", "earth-obs/sentinel", "s2-demo")


def test_files_with_odd_names_are_downloaded(hub: SharingHubServer, tmp_path: Path) -> None:
    hub.clear_requests()
    with STACDownloader(TOKEN, hub.url) as downloader:
        item = downloader.load_item("dataset", "earth-obs/sentinel", "s2-demo")
        assert {"data/a#b.csv", "data/what?.csv", "data/データ.csv"} < set(item.assets)
        report = downloader.download_assets(item, tmp_path, exclude=BACKSLASHED)
    expected = {**ODD_FILES, "data/empty.csv": b""}
    del expected[BACKSLASHED]
    assert set(report) == set(expected)
    assert files_in(tmp_path) == expected
    assert all(result.verified for result in report.values())
    assert not any("gitlab_token" in request.target for request in hub.requests)
    assert all(request.headers["X-Gitlab-Token"] == TOKEN for request in hub.requests)


def test_a_file_with_a_backslash_in_its_name_is_downloaded(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    with STACDownloader(TOKEN, hub.url) as downloader:
        item = downloader.load_item("dataset", "earth-obs/sentinel", "s2-demo")
        downloader.download_assets(item, tmp_path, include=BACKSLASHED)
    assert (tmp_path / "data" / "back\\slash.csv").read_bytes() == ODD_FILES[BACKSLASHED]


def test_the_hash_of_gitlab_checks_blobs_but_not_lfs_files(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    with STACDownloader(TOKEN, hub.url) as downloader:
        item = downloader.load_item("dataset", "earth-obs/sentinel", "s2-demo")
        report = downloader.download_assets(item, tmp_path, include=["data/train*", "weights/*"])
    blob = report["data/train.csv"]
    assert blob.checksum == "1220" + hashlib.sha256(ODD_FILES["data/train.csv"]).hexdigest()
    assert report["weights/model.safetensors"].checksum is None
    assert report["weights/model.safetensors"].verified


def test_a_damaged_blob_is_found_by_the_hash_of_gitlab(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    hub.inject(Fault(path="train", body=b"CONTENT of data/train.csv", times=None))
    with STACDownloader(TOKEN, hub.url) as downloader:
        item = downloader.load_item("dataset", "earth-obs/sentinel", "s2-demo")
        with pytest.raises(DownloadError) as caught:
            downloader.download_assets(item, tmp_path, include="data/train.csv")
    hub.clear_faults()
    assert isinstance(caught.value.errors["data/train.csv"], ChecksumMismatchError)
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("key", ["data/train.csv", "weights/model.safetensors"])
def test_a_download_from_sharinghub_survives_a_cut(
    hub: SharingHubServer, tmp_path: Path, key: str
) -> None:
    with STACDownloader(TOKEN, hub.url, retry=RetryPolicy(backoff_base=0)) as downloader:
        item = downloader.load_item("dataset", "earth-obs/sentinel", "s2-demo")
        hub.inject(faulty.cut(5))
        report = downloader.download_assets(item, tmp_path, include=key)
    assert files_in(tmp_path) == {key: ODD_FILES[key]}
    # Files in LFS honour ranges there, blobs of the repository do not.
    assert report[key].status == ("resumed" if key.startswith("weights") else "downloaded")


def test_a_pointer_in_gitlab_is_resolved_into_the_file(tmp_path: Path) -> None:
    project = Project("group/lakes", {"big.tif": BODY}, lfs=("*.tif",))
    with GitLabServer([project], token=TOKEN) as gitlab:
        href = f"{gitlab.url}/api/v4/projects/group%2Flakes/repository/files/big.tif/raw?ref=main"
        promised = {"href": href, "file:size": 40_000, "file:checksum": SHA256}
        with STACDownloader(TOKEN, gitlab.url) as downloader:
            downloader.download_assets(item_of({"big.tif": promised}), tmp_path)
        assert files_in(tmp_path) == {"big.tif": BODY}
        assert secrets_seen(gitlab) == {"PRIVATE-TOKEN"}
