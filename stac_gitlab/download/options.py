"""Which assets to download, and how: the options that all download methods share."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypedDict, get_args

import pystac

from stac_gitlab.download.assets import HasAssets, Names, asset_roles, filter_assets
from stac_gitlab.download.progress import ProgressOption, check_progress
from stac_gitlab.download.source import Verify
from stac_gitlab.download.task import Overwrite
from stac_gitlab.errors import AssetNotFoundError, ConfigurationError, NothingToDownloadWarning
from stac_gitlab.files.paths import unwritable_characters
from stac_gitlab.redaction import printable, quoted
from stac_gitlab.settings import expect, expect_choice, path_of

MAX_SEGMENTS = 16
# Tells a glob from the key of an asset.
_GLOB = re.compile(r"[*?\[]")

_ANY_ROLE = "Pass roles=None to download assets of any role, or without one."
_NO_ASSETS = (
    "A guest of a GitLab project sees its description only, so the role of this token in the "
    "project may be the reason."
)


class DownloadOptions(TypedDict, total=False):
    """The keyword arguments that all download methods share.

    :meth:`STACDownloader.download_assets` documents them.
    """

    exclude_roles: Names
    include: Names
    exclude: Names
    media_types: Names
    alternates: Sequence[str]
    overwrite: Overwrite
    verify: Verify
    segments: int
    fail_fast: bool
    dry_run: bool
    portable_names: bool
    progress: ProgressOption
    executor: Executor | None


class AllOptions(DownloadOptions, total=False):
    """The same, with the roles, which each method also takes by name."""

    roles: Names


_DEFAULTS: AllOptions = {
    "roles": ("data",),
    "exclude_roles": None,
    "include": None,
    "exclude": None,
    "media_types": None,
    "alternates": (),
    "overwrite": "if-changed",
    "verify": True,
    "segments": 1,
    "fail_fast": False,
    "dry_run": False,
    "portable_names": False,
    "progress": None,
    "executor": None,
}


def checked_options(given: AllOptions) -> AllOptions:
    """Return all options, with defaults for those that are not given.

    Raises:
        TypeError: If there is no such option.
        ConfigurationError: If a value is not valid.
    """
    unknown = ", ".join(repr(name) for name in given if name not in _DEFAULTS)
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown}; choose from {[*_DEFAULTS]}")
    options: AllOptions = {**_DEFAULTS, **given}
    expect_choice("overwrite", options["overwrite"], get_args(Overwrite))
    segments = options["segments"]
    if type(segments) is not int or not 1 <= segments <= MAX_SEGMENTS:
        raise ConfigurationError(
            f"segments={segments!r}: choose a number from 1 to {MAX_SEGMENTS}."
        )
    check_progress(options["progress"])
    executor = options["executor"]
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ConfigurationError(
            f"executor has to be a concurrent.futures.Executor, not {type(executor).__name__}. "
            "Leave it out to use threads of this process."
        )
    # Iterators can be read only once, but these are read for each item.
    for name in ("roles", "exclude_roles", "include", "exclude", "media_types"):
        names = options[name]
        if isinstance(names, Iterator):
            options[name] = tuple(names)
    alternates = options["alternates"]
    wanted = "names of alternate assets"
    expect("alternates", alternates, Iterable, wanted=wanted)
    options["alternates"] = (alternates,) if isinstance(alternates, str) else tuple(alternates)
    for name in options["alternates"]:
        expect("alternates", name, str, wanted=wanted)
    return options


def folder_of(output_dir: object) -> Path:
    """Return the output folder that an argument names.

    Raises:
        ConfigurationError: If it is no path.
    """
    folder = Path(path_of("output_dir", output_dir, wanted="the path of a folder"))
    try:
        folder = folder.expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"output_dir={str(folder)!r}: {error}") from None
    if (problem := unwritable_characters(folder)) is not None:
        raise ConfigurationError(f"output_dir={str(folder)!r}: {problem}.")
    return folder


def select_assets(item: HasAssets, options: AllOptions) -> dict[str, pystac.Asset]:
    """Return the assets of an item that the options select."""
    return filter_assets(
        item,
        roles=options["roles"],
        exclude_roles=options["exclude_roles"],
        include=options["include"],
        exclude=options["exclude"],
        media_types=options["media_types"],
    )


def select_or_warn(item: HasAssets, options: AllOptions) -> dict[str, pystac.Asset]:
    """Return the selected assets of one item; warn if there are none.

    Raises:
        AssetNotFoundError: If `include` names an asset that does not exist.
    """
    selected = select_assets(item, options)
    name = printable(repr(item))
    include = options["include"]
    names = [include] if isinstance(include, str) else list(include or ())
    missing = [name for name in names if name not in item.assets and not _GLOB.search(name)]
    keys = ", ".join(quoted(str(key)) for key in item.assets) or "none that this token can see"
    if missing:
        raise AssetNotFoundError(
            f"{name} has no asset {', '.join(map(quoted, missing))}. Its assets: {keys}."
        )
    if not selected:
        hint = "" if item.assets else f" {_NO_ASSETS}"
        if options["roles"] is not None and select_assets(item, {**options, "roles": None}):
            hint = f" {_ANY_ROLE}"
        warnings.warn(
            f"{name} has no asset that meets the conditions (roles={options['roles']!r}); there "
            f"is nothing to download. Its assets: {keys}.{hint}",
            NothingToDownloadWarning,
            stacklevel=3,
        )
    return selected


class Selection:
    """Selects the assets of many items, and warns once about items of which nothing is selected."""

    def __init__(self, options: AllOptions) -> None:
        self._options = options
        self._items = self._without_roles = 0
        self._is_any_selected = False
        self._example = ""

    def select(self, item: HasAssets) -> dict[str, pystac.Asset]:
        """Return the assets of an item that the options select."""
        selected = select_assets(item, self._options)
        self._items += 1
        if selected:
            self._is_any_selected = True
        elif self._options["roles"] is not None and item.assets and not asset_roles(item):
            self._example = self._example or printable(repr(item))
            self._without_roles += 1
        return selected

    def warn(self) -> None:
        """Warn if nothing is selected, or nothing of the items that have no roles."""
        roles = f"roles={self._options['roles']!r}"
        if self._without_roles:
            problem = (
                f"The assets of {self._without_roles} of {self._items} items have no roles, for "
                f"example those of {self._example}, so {roles} selects none of them. {_ANY_ROLE}"
            )
        elif self._items and not self._is_any_selected:
            problem = (
                f"None of {self._items} items has an asset that meets the conditions ({roles}); "
                "there is nothing to download."
            )
        else:
            return
        warnings.warn(problem, NothingToDownloadWarning, stacklevel=3)
