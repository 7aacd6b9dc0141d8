"""Documents on disk: for conditional requests, and for reading without a server.

One file holds one document as the session returned it: complete, decoded and within the limits. Its
secrets are redacted. Its name is a keyed hash of the URL and of the secrets that are sent with it,
so a document is found only with the token that it was read with.

A file is written beside its name and moved there in one step. No lock and no handle is kept, so
threads, forked children and other processes may share a folder. A process that is killed leaves
complete files.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import requests

from stac_gitlab.auth import Origin, request_url
from stac_gitlab.errors import (
    ConfigurationError,
    NotFoundError,
    OfflineError,
    PermissionDeniedError,
)
from stac_gitlab.files.partial_file import (
    PartialFile,
    leftovers_in,
    open_own,
    remove_if_there,
)
from stac_gitlab.http.responses import Document, header_without_secret
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import (
    redact,
    redact_body,
    redact_text,
    redacting_logger,
    strip_token_parameters,
)
from stac_gitlab.settings import number, path_of, whole_number

logger = redacting_logger(__name__)
T = TypeVar("T")
_FOLDER = "stac-gitlab-documents"
_KEY_NAME = "key"
_KEY_SIZE = 32
_SUFFIX = ".document"
_MAX_HEAD = 16 * 1024
# Removing some files more than needed makes the next search for the oldest ones rare.
_KEPT_SHARE = 0.9
_LARGEST_SHARE = 4


@dataclass(frozen=True)
class DocumentCache:
    """Where a reader keeps the documents that it has read.

    The folder is private: it is created for its owner only. It may be deleted at any time.

    Attributes:
        folder: The folder. Several readers and processes may use the same one.
        max_age: Seconds for which a document is used without asking the server. With 0, the server
            is always asked.
        max_bytes: About how many bytes are kept. Documents that were not used for the longest time
            are removed first.

    Raises:
        ConfigurationError: If a value makes no sense.
    """

    folder: str | os.PathLike[str]
    max_age: float = 0.0
    max_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        path_of("folder", self.folder, wanted="the path of a folder")
        number("max_age", self.max_age, unit="seconds")
        whole_number("max_bytes", self.max_bytes, least=0)

    def clear(self) -> None:
        """Remove all documents. Readers may go on using the cache.

        Raises:
            ConfigurationError: If the folder cannot be used.

        Example:
            >>> DocumentCache("stac-cache").clear()  # doctest: +SKIP
        """
        _Folder(self, create=False).clear()


def cache_in(folder: str | os.PathLike[str] | DocumentCache | None) -> DocumentCache | None:
    """Return the cache in a folder. A cache, or None, is returned unchanged."""
    return folder if folder is None or isinstance(folder, DocumentCache) else DocumentCache(folder)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A document from the cache.

    Attributes:
        document: The document, without secrets.
        last_modified: Its ``Last-Modified`` header.
        confirmed: When the server last gave or confirmed it, in seconds since 1970.
        always_ask: Whether the server wants to be asked each time (``no-cache``).
    """

    document: Document
    last_modified: str | None
    confirmed: float
    always_ask: bool

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that make a request conditional; none without a validator."""
        etag = self.document.headers.get("ETag")
        named = {"If-None-Match": etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in named.items() if value is not None}


class CachedDocuments:
    """Fetches documents through a cache, if there is one, and from it alone while offline.

    Args:
        session: Sends the requests.
        cache: Where documents are kept; None to keep none.

    Raises:
        ConfigurationError: If the folder of the cache cannot be used.
    """

    def __init__(self, session: GitLabSession, cache: DocumentCache | None) -> None:
        self._session = session
        self._folder = None if cache is None else _Folder(cache, create=session.offline is None)

    def fetch(
        self,
        url: str,
        parse: Callable[[Document], T],
        *,
        headers: Mapping[str, str],
        **options: Any,
    ) -> T:
        """Return the result of `parse` for the document at `url`, as ``GitLabSession.fetch`` does.

        Raises:
            OfflineError: If the session is offline, and the document is not in the cache.
        """
        if self._folder is None or options.get("method", "GET") != "GET":
            if self._session.offline is not None:
                raise self._not_held(url, options.get("method", "GET"))
            return self._session.fetch(url, parse, headers=headers, **options)
        url = strip_token_parameters(url)
        try:
            request_url(url)
        except (requests.RequestException, ValueError):
            # The session explains what is wrong with it.
            return self._session.fetch(url, parse, headers=headers, **options)
        folder = self._folder
        name = self._name_of(url, headers, folder)
        stored = folder.load(name, url, max_bytes=options["max_bytes"])
        if self._session.offline is not None and stored is None:
            raise self._not_held(url, "GET", name)
        is_offline = self._session.offline is not None
        if stored is not None and (is_offline or self._is_fresh(url, stored, folder.max_age)):
            at = datetime.fromtimestamp(stored.confirmed, UTC).isoformat(timespec="seconds")
            logger.info("%s: read from the cache, last confirmed by the server at %s", url, at)
            return parse(stored.document)
        conditions = {} if stored is None else stored.conditions

        def parse_and_keep(response: Document) -> T:
            if response.status == 304 and stored is not None:
                result = parse(stored.document)
                folder.save(name, url, replace(stored, confirmed=time.time()))
                return result
            result = parse(response)
            kept = self._kept(url, response)
            if kept is None:
                folder.remove(name)
            else:
                folder.save(name, url, kept)
            return result

        try:
            return self._session.fetch(
                url,
                parse_and_keep,
                headers={**headers, **conditions},
                statuses=frozenset({304}) if conditions else frozenset(),
                **options,
            )
        except (NotFoundError, PermissionDeniedError):
            folder.remove(name)
            raise

    def _is_fresh(self, url: str, stored: _Stored, max_age: float) -> bool:
        if stored.confirmed <= self._session.last_change.get(Origin.of(url), -1.0):
            # RFC 9111, 4.4: the reader itself may have changed it.
            return False
        # A clock that was set back makes a document appear to come from the future.
        return 0 <= time.time() - stored.confirmed < max_age and not stored.always_ask

    def _kept(self, url: str, response: Document) -> _Stored | None:
        """Return what is kept of a response; None if it must not be, or cannot be without secrets.

        Source: RFC 9111, sections 3 and 5.2.2.
        """
        given = response.headers.get("Cache-Control", "").split(",")
        control = {directive.partition("=")[0].strip().lower() for directive in given}
        varies = response.headers.get("Vary", "").strip() == "*"
        if response.status != 200 or "no-store" in control or varies:
            return None
        if response.url != _as_received(url):
            leaves = Origin.of(response.url) != Origin.of(url)
            # It was read with the secrets of another origin, which are not part of the name.
            used_others = leaves and self._session.credentials.allows(response.url)
            if used_others or redact(response.url) != response.url:
                return None
        try:
            body = redact_body(response.body)
        except RecursionError:
            return None
        etag = header_without_secret("ETag", response.headers)
        modified = header_without_secret("Last-Modified", response.headers)
        kept = {} if etag is None else {"ETag": etag}
        document = Document(response.url, body, kept, 200)
        return _Stored(document, modified, time.time(), "no-cache" in control)

    def _name_of(self, url: str, headers: Mapping[str, str], folder: _Folder) -> str:
        """Return the name of a document's file: one hash of the request, one of its secrets."""
        session = self._session
        public = {**session.credentials.harmless_headers(), **headers}
        token_header = session.dialect_of(url).token_header
        secrets: dict[str, str] = {**session.credentials.headers_for(url, token_header)}
        login = session.netrc_login("GET", url)
        if login is not None and "authorization" not in {n.lower() for n in secrets}:
            secrets["authorization"] = ":".join(login)
        return f"{folder.mark([url, *_lines(public)])}-{folder.mark(_lines(secrets))}"

    def _not_held(self, url: str, method: str, name: str | None = None) -> OfflineError:
        redacted = redact(url)
        if self._folder is None:
            why = "There is no cache=. Pass one, or read a mirror by its path."
        elif name is None:
            why = "Only responses to GET are cached."
        elif self._folder.holds_other(name):
            why = "The cache holds it for another token or other headers. Read with the same ones."
        else:
            why = f"It is not in the cache {self._folder.path!r}. Read it once with the server."
        return OfflineError(
            f"{method} {redacted}: not requested, because {self._session.offline}. {why}",
            url=redacted,
        )


class _Folder:
    """The files of a cache."""

    def __init__(self, settings: DocumentCache, *, create: bool) -> None:
        self.path = os.path.expanduser(os.fspath(settings.folder))
        self.max_age = settings.max_age
        self._max_bytes = settings.max_bytes
        self._private = os.path.join(self.path, _FOLDER)
        # What other processes have saved is unknown before the first look.
        self._saved_since_look = float("inf")
        self._key = os.urandom(_KEY_SIZE)
        try:
            self._check_owner()
            if create:
                self._create()
                # Somebody else may have been faster.
                self._check_owner()
            self._key = self._saved_key() or self._key
        except OSError as error:
            raise ConfigurationError(
                f"cache={self.path!r}: this folder cannot be used ({error.strerror or error}). "
                "Name a folder that you can write to."
            ) from error

    def _create(self) -> None:
        """Create the folder for its owner only, with the key, unless it exists."""
        with contextlib.suppress(FileExistsError):
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            os.mkdir(self._private, 0o700)
        if self._saved_key() is None:
            _create_complete(os.path.join(self._private, _KEY_NAME), self._key)

    def _check_owner(self) -> None:
        """Check that only its owner can read and change the folder."""
        if os.name == "nt" or not os.path.lexists(self._private):
            return
        status = os.lstat(self._private)
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o077:
            raise ConfigurationError(
                f"cache={self.path!r}: other users can read or change {self._private!r}. Remove "
                "it, or make it private with chmod 700."
            )

    def _saved_key(self) -> bytes | None:
        """Return the key of the hashes. Without it, tokens could be guessed from file names."""
        try:
            with open_own(os.path.join(self._private, _KEY_NAME)) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def mark(self, parts: list[str]) -> str:
        """Return a keyed hash of texts."""
        message = json.dumps(parts).encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:32]

    def holds_other(self, name: str) -> bool:
        """Tell whether the document of a name is held for other secrets."""
        beginning = name.partition("-")[0]
        with contextlib.suppress(OSError), os.scandir(self._private) as entries:
            return any(entry.name.startswith(beginning) for entry in entries)
        return False

    def load(self, name: str, url: str, *, max_bytes: int) -> _Stored | None:
        """Return a document; None if it is not there, damaged, or larger than `max_bytes`."""
        path = self._path_of(name)
        try:
            with open_own(path) as file:
                content = file.read(max_bytes + _MAX_HEAD + 1)
        except OSError:
            return None
        head, _, body = content.partition(b"\n")
        try:
            known = json.loads(head)
            if len(body) > max_bytes or known["crc32"] != zlib.crc32(body):
                return None
            there, etag, modified = known["url"], known["etag"], known["last_modified"]
            if not all(isinstance(each, str | None) for each in (there, etag, modified)):
                return None
            headers = {} if etag is None else {"ETag": etag}
            document = Document(there or _as_received(url), body, headers, 200)
            confirmed = float(known["confirmed"])
            stored = _Stored(document, modified, confirmed, bool(known["always_ask"]))
        except (ValueError, KeyError, TypeError):
            return None
        # The time of a file says when it was last used. The folder may be read-only.
        with contextlib.suppress(OSError):
            os.utime(path)
        return stored

    def save(self, name: str, url: str, stored: _Stored) -> None:
        """Save a document, and remove the oldest ones if there are too many."""
        document = stored.document
        if len(document.body) > self._max_bytes // _LARGEST_SHARE:
            self.remove(name)
            return
        head = {
            "url": None if document.url == _as_received(url) else document.url,
            "etag": document.headers.get("ETag"),
            "last_modified": stored.last_modified,
            "confirmed": stored.confirmed,
            "always_ask": stored.always_ask,
            "crc32": zlib.crc32(document.body),
        }
        content = b"%s\n%s" % (json.dumps(head).encode(), document.body)
        try:
            if not os.path.isdir(self._private):
                # Somebody has deleted the folder.
                self._create()
            _write_whole(self._path_of(name), content)
            self._saved_since_look += len(content)
            if self._saved_since_look > self._max_bytes // 16:
                self._make_room()
                self._saved_since_look = 0.0
        except OSError as error:
            logger.warning("%s: not kept in the cache: %s", url, error)

    def remove(self, name: str) -> None:
        """Remove a document, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(self._path_of(name))

    def clear(self) -> None:
        """Remove all documents, if there is a folder."""
        with contextlib.suppress(FileNotFoundError):
            for _, _, path in self._documents():
                remove_if_there(path)

    def _documents(self) -> list[tuple[float, int, str]]:
        """Return when each document was last used, its size in bytes and its path."""
        files: list[tuple[float, int, str]] = []
        with os.scandir(self._private) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        files.append((status.st_mtime, status.st_size, entry.path))
        return files

    def _make_room(self) -> None:
        files = self._documents()
        total = sum(size for _, size, _ in files)
        if total > self._max_bytes:
            for _, size, path in sorted(files):
                remove_if_there(path)
                total -= size
                if total <= self._max_bytes * _KEPT_SHARE:
                    break
        for leftovers in leftovers_in(self._private).values():
            for leftover in leftovers:
                leftover.remove()

    def _path_of(self, name: str) -> str:
        return os.path.join(self._private, f"{name}{_SUFFIX}")


def _write_whole(path: str, content: bytes) -> None:
    """Write a file completely or not at all, in a folder that exists."""
    with PartialFile(path) as part:
        part.write(content)
        part.finish()


def _create_complete(path: str, content: bytes) -> None:
    """Create a file with its content in one step, unless another process has created it."""
    beside = f"{path}-{os.urandom(6).hex()}"
    _write_whole(beside, content)
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    except OSError:
        # A file system without hard links.
        os.replace(beside, path)
    remove_if_there(beside)


def _as_received(url: str) -> str:
    """Return the URL that a document has if no redirect led elsewhere."""
    return redact_text(request_url(url))


def _lines(headers: Mapping[str, str]) -> list[str]:
    return sorted(f"{name.lower()}: {value}" for name, value in headers.items())
