"""The fsspec protocol ``stacs``: the assets of items as read-only files.

A path is the URL of an item without its scheme, then ``/-/asset/``, then an asset key::

    stacs://hub.example.org/api/stac/collections/dataset/items/group/project/-/asset/data/a.csv
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote
from uuid import uuid4

import pystac
from fsspec.asyn import AsyncFileSystem, get_loop
from fsspec.spec import AbstractBufferedFile
from fsspec.utils import isfilelike, tokenize

from stac_gitlab.api.stac_api import STACAPI
from stac_gitlab.auth import Origin
from stac_gitlab.download.remote_content import (
    LocalContent,
    RangedContent,
    open_content,
    read_range,
)
from stac_gitlab.download.transfer import download_file
from stac_gitlab.errors import (
    AssetNotFoundError,
    ConfigurationError,
    HTTPStatusError,
    NotSTACError,
    RemoteWriteError,
)
from stac_gitlab.files.paths import relative_path
from stac_gitlab.integrations.asset_file import AssetFile, BlockCache
from stac_gitlab.integrations.asset_tree import AssetTree
from stac_gitlab.integrations.recent import Recent
from stac_gitlab.integrations.shared_reader import shared_reader
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import quoted, redact
from stac_gitlab.settings import expect

T = TypeVar("T")
_ASSETS = "/-/asset"
_COLLECTIONS = re.compile(r"(?P<api>[^/]+(?:/.*)?)/collections")
_ITEMS = re.compile(
    r"(?P<api>[^/]+(?:/.*)?)/collections/(?P<collection>[^/]+)/items(?:/(?P<id>.+))?"
)
# Seconds for which items and opened files are used again.
_LIFETIME = 60.0
_MOST_ITEMS = 10_000
# The first block of each is kept in memory.
_MOST_CONTENTS = 16
_THREADS = 32


class StacsFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The assets of items as read-only files, over the connections and the token of a reader.

    Args:
        reader: The reader to use. By default pystac's default reader if it is a GitLabStacIO, or
            else one with the token of the environment.
        token: A function that returns a token, instead of `reader`. A text is refused: chained
            file systems and Dask would write it into pickles.
        listings_expiry_time: Seconds after which an item is read again, and a file that was opened
            is requested again by the next `open`; None for never.

    Raises:
        ConfigurationError: If an argument is not valid.
    """

    protocol = "stacs"
    _pid: int
    # fsspec would find the instance of another reader with the same repr.
    cachable = False

    def __init__(
        self,
        *,
        reader: GitLabStacIO | None = None,
        token: Callable[[], str | None] | None = None,
        listings_expiry_time: float | None = _LIFETIME,
        **options: Any,
    ) -> None:
        super().__init__(listings_expiry_time=listings_expiry_time, **options)
        self._named = _named_reader(reader, token)
        self.reader = self._named or shared_reader()
        self._trees: Recent[AssetTree] = Recent(listings_expiry_time, _MOST_ITEMS)
        self._listings: Recent[dict[str, None]] = Recent(listings_expiry_time, _MOST_CONTENTS)
        self._contents: Recent[RangedContent | LocalContent] = Recent(
            listings_expiry_time, _MOST_CONTENTS
        )
        self._identity = uuid4().hex
        _file_systems[self._identity] = self

    def __repr__(self) -> str:
        return f"<StacsFileSystem of {self.reader!r}>"

    # -- copies -----------------------------------------------------------------------------

    @property
    def storage_options(self) -> dict[str, Any]:
        """The options that make the same file system in another process, without a token."""
        return self._options

    @storage_options.setter
    def storage_options(self, options: dict[str, Any]) -> None:
        self._options = {name: value for name, value in options.items() if name != "token"}
        if self._named is not None:
            self._options["reader"] = self._named

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._identity, type(self), self.storage_options)

    @property
    def _fs_token(self) -> str:
        """What fsspec and Dask compare file systems by."""
        token: str = self._fs_token_
        return token if self._named is None else tokenize(token, id(self._named))

    @property
    def loop(self) -> Any:
        """The event loop that bulk operations run in: a forked child gets its own."""
        if self._pid != os.getpid():
            self._pid, self._loop = os.getpid(), get_loop()  # what the base class looks at
        return self._loop

    def renew_in_child(self) -> None:
        """Give a forked child locks of its own."""
        for kept in (self._trees, self._listings, self._contents):
            kept.clear()

    def invalidate_cache(self, path: str | None = None) -> None:
        """Read items again, and request files again. `path` makes no difference."""
        self.renew_in_child()

    # -- folders ----------------------------------------------------------------------------

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the name, type and size of a file or folder.

        The size comes from ``file:size``, or else from the server.

        Raises:
            FileNotFoundError: If there is none. It is a STACGitLabError, too.
        """
        path = self._strip_protocol(path)
        home, key = _split(path)
        if key is None:
            self._check_folder(path)
            return {"name": path, "size": 0, "type": "directory"}
        info = self._tree(home).info(key)
        if info["size"] is None:
            info["size"] = self._content(path).size
        return {"name": path, **info}

    def isfile(self, path: str) -> bool:
        """Return whether a path is that of an asset."""
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        """Return whether a path is that of a folder."""
        return self._kind(path) == "directory"

    def exists(self, path: str, **_: Any) -> bool:
        """Return whether there is an asset or a folder."""
        return self._kind(path) is not None

    def _kind(self, path: str) -> str | None:
        """Return what a path is, without asking for the size of a file; None if it is missing."""
        path = self._strip_protocol(path)
        home, key = _split(path)
        try:
            if key is not None:
                return self._tree(home).kind(key)
            self._check_folder(path)
        except FileNotFoundError:
            return None
        return "directory"

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return what is in a folder: assets, items or collections.

        The size of an asset is None if the metadata do not tell it.

        Raises:
            FileNotFoundError: If there is no such folder. It is a STACGitLabError, too.
        """
        path = self._strip_protocol(path)
        home, key = _split(path)
        if key is None:
            found = [
                {"name": name, "size": 0, "type": "directory"} for name in self._folders_in(path)
            ]
        else:
            tree = self._tree(home)
            found = [
                {"name": f"{home}{_ASSETS}/{name}", **tree.info(name)}
                for name in tree.names_in(key)
            ]
        return found if detail else [info["name"] for info in found]

    def _folders_in(self, path: str) -> list[str]:
        """Return the folders in one that is not among the assets."""
        if path.endswith("/-"):
            self._tree(path.removesuffix("/-"))
            return [f"{path}/asset"]
        match = _COLLECTIONS.fullmatch(path)
        if match is not None and _ITEMS.fullmatch(path) is None:
            collections = STACAPI(self._url(match["api"]), stac_io=self.reader).collections()
            return [f"{path}/{quote(collection.id, safe='')}" for collection in collections]
        match = _ITEMS.fullmatch(path)
        if match is not None:
            below = f"{path}/"
            names = self._items_of(match["api"], match["collection"])
            inside = {
                below + name[len(below) :].partition("/")[0]: None
                for name in names
                if name.startswith(below)
            }
            if inside or not match["id"]:
                return list(inside)
        found = self._read(path)
        folders = ["-"] if getattr(found, "assets", None) else []
        folders += ["collections"] if found.get_links("data") else []
        folders += ["items"] if isinstance(found, pystac.Collection) else []
        return [f"{path}/{name}" for name in folders]

    def _check_folder(self, path: str) -> None:
        """Raise an error if a path that is not among the assets does not exist."""
        match = _ITEMS.fullmatch(path)
        if path.endswith("/-"):
            self._tree(path.removesuffix("/-"))
        elif match is not None and match["id"] and self._trees.known(path) is None:
            try:
                self._tree(path)
            except FileNotFoundError:
                names = self._items_of(match["api"], match["collection"])
                if not any(name.startswith(f"{path}/") for name in names):
                    raise
        elif match is None and _COLLECTIONS.fullmatch(path) is None:
            self._read(path)

    def _items_of(self, api: str, collection: str) -> dict[str, None]:
        """Return the paths of the items of a collection; keep the items."""
        url = self._url(f"{api}/collections/{collection}/items")

        def listed() -> dict[str, None]:
            session, omissions = self.reader.session, self.reader.omissions
            items = STACAPI(self._url(api), stac_io=self.reader).items(unquote(collection))
            item_url = partial(session.dialect_of(url).item_url, url)
            found = {item_url(item.id).partition("://")[2]: item for item in items}
            if self.reader.omissions == omissions:
                # Otherwise some of them may lack assets, so that each is read when it is needed.
                for name, item in found.items():
                    self._trees.get(name, partial(AssetTree, item, session))
            return dict.fromkeys(found)

        return self._listings.get(url, listed)

    def _tree(self, path: str) -> AssetTree:
        """Return the assets of the item or collection at a path."""

        def read() -> AssetTree:
            found = self._read(path)
            if not isinstance(found, (pystac.Item, pystac.Collection)):
                raise AssetNotFoundError(f"{self._url(path)} is a catalog, which has no assets.")
            return AssetTree(found, self.reader.session)

        return self._trees.get(path, read)

    def _read(self, path: str) -> pystac.STACObject:
        url = self._url(path)
        try:
            return self.reader.read_stac_object(url)
        except NotSTACError as error:
            raise AssetNotFoundError(str(error)) from error
        except HTTPStatusError as error:
            is_missing = self.reader.session.dialect_of(url).is_missing(error.status_code)
            if is_missing and not isinstance(error, FileNotFoundError):
                raise AssetNotFoundError(str(error)) from error
            raise

    def _url(self, path: str) -> str:
        """Return a path as a URL: https, except for loopback hosts and servers named with http."""
        host = path.partition("/")[0]
        schemes, origins = ("https", "http"), self.reader.credentials.origins
        origin = Origin.of(f"https://{host}")
        if origin is None:
            raise ConfigurationError(
                f"{quoted(redact(f'stacs://{path}'))} names no server. Write the URL of an item "
                f"with stacs:// instead of https://, then {_ASSETS}/, then an asset key."
            )
        if origin.is_loopback:
            schemes = ("http", "https")
        named = (s for s in schemes if Origin.of(f"{s}://{host}") in origins)
        return f"{next(named, schemes[0])}://{path}"

    # -- files ------------------------------------------------------------------------------

    def _content(self, path: str) -> RangedContent | LocalContent:
        """Return the content of a file, opened once for all who read it within a while."""
        known = self._contents.known(path)
        if known is not None and known.is_outdated:
            self._contents.forget(path)
        return self._contents.get(path, partial(self._open_content, path))

    def _open_content(self, path: str) -> RangedContent | LocalContent:
        home, key = _split(path)
        if key is None:
            raise AssetNotFoundError(
                f"{self._url(path)} is a folder. The path of a file is that of an item, then "
                f"{_ASSETS}/, then an asset key."
            )
        return open_content(self.reader.session, self._tree(home).source(key))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        *,
        block_size: int | str | None = None,
        cache_options: dict[str, Any] | None = None,
        cache_type: str | None = None,
        **_: Any,
    ) -> AbstractBufferedFile:
        if mode != "rb":
            self._refuse(path)
        return AssetFile(
            self,
            path,
            self._content(path),
            block_size=block_size or "default",
            cache_type=cache_type or BlockCache.name,
            cache_options=cache_options,
        )

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """Return the bytes of a file, or a part of them; negative positions count from the end.

        Raises:
            FileNotFoundError: If there is no such file. It is a STACGitLabError, too.
        """
        path = self._strip_protocol(path)
        is_whole = start is None and end is None
        # A whole file is not kept: it is rarely read again.
        is_kept = not is_whole or self._contents.known(path) is not None
        content = self._content(path) if is_kept else self._open_content(path)
        first, last, _step = slice(start, end).indices(content.size)
        return read_range(content, first, last)

    def get_file(self, rpath: str, lpath: Any, **_: Any) -> None:
        """Download a file, complete and verified, to a local path or an open file."""
        path = self._strip_protocol(rpath)
        if isfilelike(lpath):
            lpath.write(self.cat_file(path))
            return
        home, key = _split(path)
        if key is None or self._tree(home).kind(key) == "directory":
            os.makedirs(lpath, exist_ok=True)
            return
        relative_path(key)
        target = Path(lpath)
        target.parent.mkdir(parents=True, exist_ok=True)
        download_file(self.reader.session, self._tree(home).source(key), target)

    def ukey(self, path: str) -> str:
        """Return a text that changes with the content of a file, for caches of fsspec."""
        path = self._strip_protocol(path)
        content = self._content(path)
        version = getattr(content, "version", None)
        named = (path, content.size, version and version.validator, self.info(path))
        return hashlib.sha256(repr(named).encode()).hexdigest()

    # -- for event loops --------------------------------------------------------------------

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        return await _in_thread(self.info, path)

    async def _isfile(self, path: str) -> bool:
        return await _in_thread(self.isfile, path)

    async def _isdir(self, path: str) -> bool:
        return await _in_thread(self.isdir, path)

    async def _exists(self, path: str, **_: Any) -> bool:
        return await _in_thread(self.exists, path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        return await _in_thread(self.ls, path, detail)

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        return await _in_thread(self.cat_file, path, start, end)

    async def _get_file(self, rpath: str, lpath: Any, **_: Any) -> None:
        await _in_thread(self.get_file, rpath, lpath)

    # -- writing ----------------------------------------------------------------------------

    async def _pipe_file(self, path: str, *_: Any, **__: Any) -> None:
        self._refuse(path)

    async def _put_file(self, lpath: Any, rpath: str, *_: Any, **__: Any) -> None:
        self._refuse(rpath)

    async def _cp_file(self, path1: str, path2: str, **_: Any) -> None:
        self._refuse(path2)

    async def _rm_file(self, path: str, **_: Any) -> None:
        self._refuse(path)

    async def _mkdir(self, path: str, *_: Any, **__: Any) -> None:
        self._refuse(path)

    async def _makedirs(self, path: str, *_: Any, **__: Any) -> None:
        self._refuse(path)

    def _refuse(self, path: str) -> None:
        raise RemoteWriteError(
            f"stacs://{self._strip_protocol(path)}: this file system is read-only. Use "
            "stac_gitlab.publish to change a project."
        )


def _named_reader(reader: Any, token: Any) -> GitLabStacIO | None:
    if reader is not None:
        expect("reader", reader, GitLabStacIO, wanted="a GitLabStacIO")
    if token is None:
        return reader if isinstance(reader, GitLabStacIO) else None
    if reader is not None:
        raise ConfigurationError("reader= has a token of its own: pass either it or token=.")
    if not callable(token):
        raise ConfigurationError(
            "token= takes a function that returns a token: a token itself would be written into "
            "pickles. Or pass reader=GitLabStacIO(token), or set STAC_GITLAB_TOKEN."
        )
    return GitLabStacIO(token)


def _split(path: str) -> tuple[str, str | None]:
    """Return the path of an item and an asset key, which is None for other paths."""
    home, mark, key = path.partition(_ASSETS)
    if mark and (not key or key.startswith("/")):
        return home, key[1:]
    return path, None


async def _in_thread(call: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_executor(), call, *arguments)


@cache
def _executor() -> ThreadPoolExecutor:
    """Return the threads for all event loops. The default of a loop has only a few."""
    return ThreadPoolExecutor(_THREADS, "stac-gitlab-fsspec")


_file_systems: weakref.WeakValueDictionary[str, StacsFileSystem] = weakref.WeakValueDictionary()
# Between two tasks of Dask, nothing else refers to the file system of both.
_restored: deque[StacsFileSystem] = deque(maxlen=2)


def _restore(identity: str, cls: type[StacsFileSystem], options: dict[str, Any]) -> StacsFileSystem:
    """Return the one copy of a file system in this process, so that items are read once."""
    made = _file_systems.get(identity)
    if made is None:
        made = cls(**options)
        del _file_systems[made._identity]
        made._identity = identity
        made = _file_systems.setdefault(identity, made)
    _restored.append(made)
    return made


def _renew_in_child() -> None:
    _executor.cache_clear()
    for each in list(_file_systems.values()):
        each.renew_in_child()


if hasattr(os, "register_at_fork"):  # Windows has no fork.
    os.register_at_fork(after_in_child=_renew_in_child)
