"""``download`` and ``verify``: files brought here, and compared with what was recorded."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pystac

from stac_gitlab.auth import URL_VARIABLE
from stac_gitlab.cli.browse import read
from stac_gitlab.cli.options import Commands, add_command, add_selection, reader, roles_of
from stac_gitlab.cli.output import Output
from stac_gitlab.download.content_version import FILE_NAME, read_records
from stac_gitlab.download.downloader import STACDownloader
from stac_gitlab.download.task import digest_of_file
from stac_gitlab.errors import ConfigurationError, DownloadError
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError
from stac_gitlab.reading.stac_io import GitLabStacIO

# What json and pystac raise for something else.
_NO_ITEMS = (
    *(ValueError, TypeError, AttributeError, LookupError),
    *(pystac.STACError, pystac.STACTypeError),
)


def add_parser(commands: Commands) -> None:
    """Add the commands to the parser."""
    text = "download an item, a collection, or the items on standard input"
    download = add_command(commands, "download", _download, text)
    download.add_argument("url", metavar="URL|-", help="'-': an Item or ItemCollection on stdin")
    download.add_argument("-o", "--output", default=".", metavar="FOLDER")
    add_selection(download)
    download.add_argument("-x", "--exclude", nargs="+", metavar="KEY", help="keys or patterns")
    download.add_argument("-j", "--jobs", type=int, metavar="N", help="concurrent downloads")
    download.add_argument("--template", help="the path of each file; see the documentation")
    download.add_argument(
        "--overwrite", choices=("if-changed", "always", "never", "error"), default="if-changed"
    )
    download.add_argument("--segments", type=int, default=1, help="connections for a large file")
    download.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    download.add_argument("--dry-run", action="store_true", help="send no request for files")
    download.add_argument("--save-json", action="store_true", help="write a catalog of the items")
    text = "compare downloaded files with what was recorded"
    verify = add_command(commands, "verify", _verify, text)
    verify.add_argument("folder", type=Path, metavar="FOLDER")


def _download(arguments: argparse.Namespace, output: Output) -> int:
    base_url = os.environ.get(URL_VARIABLE) if arguments.url == "-" else arguments.url
    names = ["include", "exclude", "overwrite", "segments", "fail_fast", "dry_run", "save_json"]
    names += ["template"] if arguments.template else []
    options: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    options["roles"] = roles_of(arguments)
    with reader(arguments, base_url) as io:
        loader = STACDownloader(stac_io=io, max_workers=arguments.jobs, progress=output.bars)
        error = None
        try:
            report = loader.download_items(_items(io, arguments), arguments.output, **options)
        except DownloadError as failed:
            if failed.report is None:
                raise
            report, error = failed.report, failed
    results = [(item_id, result) for item_id, r in report.items() for result in r.values()]
    if output.json:
        fields = ("key", "path", "size", "status", "verified", "error")
        output.data(
            [
                {"item": item_id, **{name: getattr(result, name) for name in fields}}
                for item_id, result in results
            ]
        )
    else:
        output.say(str(report))
    if error is not None:
        raise error
    return 0


def _items(io: GitLabStacIO, arguments: argparse.Namespace) -> Iterable[pystac.Item]:
    if arguments.url == "-":
        items: Iterable[pystac.Item] = _items_in(sys.stdin.read())
    else:
        found = read(io, arguments.url)
        items = [found] if isinstance(found, pystac.Item) else found.get_items(recursive=True)
    return islice(items, arguments.max_items)


def _items_in(text: str) -> list[pystac.Item]:
    try:
        document = json.loads(text)
        features = document.get("features", [document])
        return [pystac.Item.from_dict(feature) for feature in features]
    except _NO_ITEMS as error:
        raise ConfigurationError(
            f"There is no Item or ItemCollection on standard input ({error})."
        ) from None


# -- verify ---------------------------------------------------------------------------------------


def _verify(arguments: argparse.Namespace, output: Output) -> int:
    folder = arguments.folder
    if not folder.is_dir():
        raise ConfigurationError(f"{str(folder)!r} is no folder.")
    states = {}
    for records in sorted(folder.rglob(FILE_NAME)):
        for path, record in read_records(records.parent).items():
            file = records.parent.joinpath(*path.split("/"))
            states[str(file)] = _state_of(file, record.size, record.checksum)
    if not states:
        raise ConfigurationError(f"{str(folder)!r} has no records of downloads.")
    if output.json:
        output.data(states)
    else:
        output.rows([(state, path) for path, state in states.items()])
    return 0 if all(state in ("ok", "size ok") for state in states.values()) else 1


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
