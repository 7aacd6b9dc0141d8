"""``download`` and ``verify``: files brought here, and compared with what was recorded."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pystac

from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE, Origin
from stac_gitlab.cli.browse import read_items
from stac_gitlab.cli.options import has_token_in_environment, reader, roles_of
from stac_gitlab.cli.output import Output
from stac_gitlab.cli.progress import log_section
from stac_gitlab.download.content_version import FILE_NAME, read_records
from stac_gitlab.download.downloader import STACDownloader
from stac_gitlab.download.options import checked_options, select_or_warn
from stac_gitlab.download.report import BatchReport, human_size
from stac_gitlab.download.task import digest_of_file
from stac_gitlab.errors import (
    ConfigurationError,
    DownloadError,
    ImplicitTokenWarning,
    NothingToDownloadWarning,
)
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError
from stac_gitlab.files.paths import is_local, local_path
from stac_gitlab.reading.stac_io import GitLabStacIO

# What json and pystac raise for something else.
_NO_ITEMS = (
    *(ValueError, TypeError, AttributeError, LookupError),
    *(pystac.STACError, pystac.STACTypeError),
)


def download(arguments: argparse.Namespace, output: Output) -> int:
    """Download the assets of items."""
    names = ["include", "exclude", "overwrite", "segments", "fail_fast", "dry_run", "save_json"]
    names += ["template"] if arguments.template else []
    options: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    options["roles"] = roles_of(arguments)
    if arguments.url == "-" and str(arguments.token_file) == "-":
        raise ConfigurationError(
            "Standard input holds either items or the token. Use --token-file FILE, or set "
            f"{TOKEN_VARIABLES[0]}."
        )
    piped = _features_in(_standard_input()) if arguments.url == "-" else None
    title = f"Download to {arguments.output}"
    section = log_section("download", title, is_shown=not output.is_silent)
    with reader(arguments, _server_of(arguments, piped)) as io:
        loader = STACDownloader(stac_io=io, max_workers=arguments.jobs, progress=output.progress)
        error = None
        # An error before the first item is an error of the URL, not of the download.
        items = _items(io, arguments, piped)
        with section:
            try:
                report = loader.download_items(items, arguments.output, **options)
            except DownloadError as failed:
                if not isinstance(failed.report, BatchReport):
                    raise
                report, error = failed.report, failed
    _print_report(output, report, arguments.output)
    if error is not None:
        raise error
    return 0


def _print_report(output: Output, report: BatchReport, folder: str) -> None:
    results = [(item_id, result) for item_id, r in report.items() for result in r.values()]
    if output.json:
        fields = ("key", "path", "size", "status", "verified", "error")
        output.data(
            [
                {"item": item_id, **{name: getattr(result, name) for name in fields}}
                for item_id, result in results
            ]
        )
        return
    if len(report) == 1:
        output.rows([(r.status, human_size(r.size), r.path or r.key) for _, r in results])
    output.rows([(item_id, each.summary()) for item_id, each in report.items()])
    if len(report) > 1:
        done = sum(result.status in ("downloaded", "resumed", "skipped") for _, result in results)
        output.say(f"{len(report)} items, {done} files in {folder}")


def _items(
    io: GitLabStacIO, arguments: argparse.Namespace, piped: list[dict[str, Any]] | None
) -> Iterable[pystac.Item]:
    items = read_items(io, arguments.url) if piped is None else iter(_made_items(piped))
    items = islice(items, arguments.max_items)
    first = list(islice(items, 2))
    if arguments.include and len(first) == 1:
        _check_keys(first[0], arguments.include)
    return chain(first, items)


def _check_keys(item: pystac.Item, keys: list[str]) -> None:
    """Raise an AssetNotFoundError if an item has no asset that is asked for by its key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToDownloadWarning)
        select_or_warn(item, checked_options({"include": keys}))


# -- items on standard input ----------------------------------------------------------------------


def _standard_input() -> bytes | str:
    if sys.stdin is None:
        raise ConfigurationError("Standard input is closed.")
    # JSON is UTF-8, whatever the locale is.
    stream = getattr(sys.stdin, "buffer", sys.stdin)
    content: bytes | str = stream.read()
    return content


def _features_in(text: bytes | str) -> list[dict[str, Any]]:
    try:
        document = json.loads(text)
        features: list[dict[str, Any]] = document.get("features", [document])
        _made_items(features)
    except _NO_ITEMS as error:
        raise ConfigurationError(
            f"There is no Item or ItemCollection on standard input ({error})."
        ) from None
    return features


def _made_items(features: Iterable[dict[str, Any]]) -> list[pystac.Item]:
    return [pystac.Item.from_dict(feature) for feature in features]


def _server_of(arguments: argparse.Namespace, piped: list[dict[str, Any]] | None) -> str | None:
    """Return the server that gets the token: that of the URL, or the one that the items name."""
    known = os.environ.get(URL_VARIABLE)
    if piped is None and not is_local(arguments.url):
        return str(arguments.url)
    if known:
        return known
    server = _server_named_in(_features_of_file(arguments.url) if piped is None else piped)
    is_chosen = arguments.token is not None or arguments.token_file is not None
    if server is not None and not is_chosen and has_token_in_environment():
        warnings.warn(
            f"The token of the environment is sent to {server}, which the items name. To choose "
            f"the server, set {URL_VARIABLE}.",
            ImplicitTokenWarning,
            stacklevel=2,
        )
    return server


def _features_of_file(path: str) -> list[dict[str, Any]]:
    """Return the items in a local file; what is wrong with it is reported when it is read."""
    try:
        document = json.loads(Path(local_path(path)).read_bytes())
        found: list[dict[str, Any]] = document.get("features", [document])
    except (OSError, *_NO_ITEMS):
        return []
    return found


def _server_named_in(features: list[dict[str, Any]]) -> str | None:
    """Return the origin of the first item's own URL."""
    links = features[0].get("links", []) if features else []
    for relation in ("self", "root"):
        for link in links:
            origin = Origin.of(str(link.get("href"))) if link.get("rel") == relation else None
            if origin is not None and not origin.is_public_metadata:
                return str(origin)
    return None


# -- verify ---------------------------------------------------------------------------------------


def verify(arguments: argparse.Namespace, output: Output) -> int:
    """Compare downloaded files with their records."""
    folder = arguments.folder
    if not folder.is_dir():
        raise ConfigurationError(f"{str(folder)!r} is no folder.")
    states = {}
    for records in folder.rglob(FILE_NAME):
        for path, record in read_records(records.parent).items():
            file = records.parent.joinpath(*path.split("/"))
            states[str(file)] = _state_of(file, record.size, record.checksum)
    if not states:
        raise ConfigurationError(f"{str(folder)!r} has no records of downloads.")
    states = dict(sorted(states.items()))
    bad = sum(state not in ("ok", "size ok") for state in states.values())
    if output.json:
        output.data(states)
    else:
        output.rows([(state, path) for path, state in states.items()])
        output.say(f"{len(states)} files, {bad or 'none'} missing or changed")
    return 1 if bad else 0


def _state_of(file: Path, size: int, checksum: str | None) -> str:
    """Return how a file compares with its record."""
    if not file.is_file():
        return "missing"
    if file.stat().st_size != size:
        return "changed"
    if checksum is None:
        return "size ok"
    try:
        known = Checksum.parse(checksum)
    except UnknownChecksumError:
        return "size ok"
    return "ok" if digest_of_file(file, known) == known.digest else "changed"
