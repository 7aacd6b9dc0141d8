"""``mirror`` and ``publish``: a local copy of a catalog, and a folder in a GitLab project."""

from __future__ import annotations

import argparse

from stac_gitlab.catalogs.mirror import mirror
from stac_gitlab.catalogs.publish import publish
from stac_gitlab.cli.options import reader, roles_of, stac_url
from stac_gitlab.cli.output import Output
from stac_gitlab.cli.progress import log_section


def run_mirror(arguments: argparse.Namespace, output: Output) -> int:
    """Copy a hub or catalog, or update the copy."""
    section = log_section("mirror", f"Mirror to {arguments.folder}", is_shown=not output.is_silent)
    with section, reader(arguments, arguments.url) as io:
        report = mirror(
            stac_url(arguments.url),
            arguments.folder,
            roles=roles_of(arguments),
            include=arguments.include,
            assets=not arguments.no_assets,
            max_items=arguments.max_items,
            prune=arguments.prune,
            stac_io=io,
            progress=output.progress,
        )
    if output.json:
        output.data(vars(report))
    else:
        output.say(str(report))
    return 0


def run_publish(arguments: argparse.Namespace, output: Output) -> int:
    """Bring the files of a folder into a GitLab project."""
    section = log_section("publish", f"Publish {arguments.folder}", is_shown=not output.is_silent)
    names = ("branch", "message", "create_project", "delete", "dry_run", "hub")
    with section, reader(arguments, arguments.project, is_target=True) as io:
        report = publish(
            arguments.folder,
            arguments.project,
            stac_io=io,
            progress=output.progress,
            topics=arguments.topics or ["sharinghub:dataset"],
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
