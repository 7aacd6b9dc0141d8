"""``mirror`` and ``publish``: a local copy of a catalog, and a folder in a GitLab project."""

from __future__ import annotations

import argparse

from stac_gitlab.catalogs.mirror import mirror
from stac_gitlab.catalogs.publish import publish
from stac_gitlab.cli.options import (
    Commands,
    add_command,
    add_selection,
    reader,
    roles_of,
    stac_url,
)
from stac_gitlab.cli.output import Output


def add_parser(commands: Commands) -> None:
    """Add the commands to the parser."""
    text = "make a local copy of a hub or catalog, or update it"
    copy = add_command(commands, "mirror", _mirror, text)
    copy.add_argument("url", metavar="URL")
    copy.add_argument("folder", metavar="FOLDER")
    add_selection(copy)
    copy.add_argument("--no-assets", action="store_true", help="copy documents only")
    copy.add_argument("--prune", action="store_true", help="remove what the server no longer lists")
    parser = add_command(commands, "publish", _publish, "bring a folder into a GitLab project")
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("project", metavar="PROJECT", help="the URL of the GitLab project")
    parser.add_argument("--branch", default="main")
    parser.add_argument("-m", "--message", help="the message of the commits")
    parser.add_argument("--topics", nargs="+", default=["sharinghub:dataset"], metavar="TOPIC")
    parser.add_argument("--create-project", action="store_true")
    parser.add_argument("--delete", action="store_true", help="delete files that FOLDER lacks")
    parser.add_argument("--dry-run", action="store_true", help="send nothing")
    parser.add_argument("--hub", metavar="URL", help="the SharingHub, for the URL of the item")


def _mirror(arguments: argparse.Namespace, output: Output) -> int:
    with reader(arguments, arguments.url) as io:
        report = mirror(
            stac_url(arguments.url),
            arguments.folder,
            roles=roles_of(arguments),
            include=arguments.include,
            assets=not arguments.no_assets,
            max_items=arguments.max_items,
            prune=arguments.prune,
            stac_io=io,
            progress=output.bars,
        )
    if output.json:
        output.data(vars(report))
    else:
        output.say(str(report))
    return 0


def _publish(arguments: argparse.Namespace, output: Output) -> int:
    names = ("branch", "message", "topics", "create_project", "delete", "dry_run", "hub")
    with reader(arguments, arguments.project) as io:
        report = publish(
            arguments.folder,
            arguments.project,
            stac_io=io,
            progress=output.bars,
            **{name: getattr(arguments, name) for name in names},
        )
    if output.json:
        output.data(vars(report))
        return 0
    changes = {"created": report.created, "updated": report.updated, "deleted": report.deleted}
    output.rows([(change, path) for change, paths in changes.items() for path in paths])
    output.say(f"{len(report.unchanged)} unchanged, {len(report.commits)} commits")
    if report.item_url:
        output.say(report.item_url)
    return 0
