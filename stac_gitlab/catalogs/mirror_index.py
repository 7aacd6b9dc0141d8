"""The index of a mirror: which objects it holds, in an SQLite file in its folder.

It keeps the memory of a run flat, and tells the next run what is new, changed and gone. While a run
uses it, another one cannot. What a killed run wrote last is compared again, and costs nothing else.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stac_gitlab.catalogs.mirror_layout import name_of, with_hash
from stac_gitlab.errors import ConfigurationError, DownloadError
from stac_gitlab.files.partial_file import OWN_PREFIX
from stac_gitlab.redaction import quoted

FILE_NAME = f"{OWN_PREFIX}-mirror.sqlite3"
ITEM, CATALOG = "item", "child"
"""The kinds of objects, named after the relation of the links that lead to them."""

# Seconds between two commits, each of which waits for the disk.
_COMMIT_INTERVAL = 2.0
_MAX_WAITING = 200
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value);
CREATE TABLE IF NOT EXISTS objects (
    number INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    path TEXT NOT NULL,
    identity TEXT NOT NULL UNIQUE,
    digest BLOB,
    size INTEGER,
    document TEXT,
    run INTEGER NOT NULL,
    complete INTEGER NOT NULL DEFAULT 0,
    UNIQUE (parent, kind, id, source)
);
"""
# What a run has not found, though it has seen all of the catalog where it was; and all below that.
_GONE = """
CREATE TEMPORARY TABLE gone AS
WITH RECURSIVE lost (number, kind, id, path) AS (
    SELECT number, kind, id, path FROM objects WHERE run <> :run
        AND parent IN (SELECT number FROM objects WHERE complete = :run)
    UNION ALL
    SELECT objects.number, objects.kind, objects.id, objects.path
        FROM objects JOIN lost ON objects.parent = lost.number
)
SELECT * FROM lost
"""


@dataclass(frozen=True)
class Entry:
    """An object of a mirror.

    Attributes:
        number: Its number. That of a catalog is smaller than those of what it lists.
        kind: `ITEM` or `CATALOG`.
        id: Its id.
        path: The path of its file below the folder of the mirror.
        digest: The digest of the original; None if not all of it is in the mirror.
        size: The size of its file in bytes; None if there is none.
    """

    number: int
    kind: str
    id: str
    path: str
    digest: bytes | None = None
    size: int | None = None

    @property
    def folder(self) -> str:
        """The path of the folder of the assets of an item, or of what a catalog lists."""
        if self.kind == ITEM:
            return self.path.removesuffix(".json")
        return self.path.rpartition("/")[0]


class MirrorIndex:
    """The index in a folder.

    Args:
        folder: The folder of the mirror, which exists.
        source: What is mirrored, without secrets.

    Attributes:
        is_new: Whether there was no index.
        run: The number of this run.

    Raises:
        ConfigurationError: If the folder is the mirror of something else, or in use.
        DownloadError: If the file cannot be used.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._file = folder / FILE_NAME
        self.is_new = not self._file.exists()
        self._saved: list[tuple[bytes | None, int | None, int, int]] = []
        self._seen: list[tuple[int, int]] = []
        with self._explained():
            self._database = sqlite3.connect(self._file, timeout=0.0)
            try:
                self._open(source)
            except BaseException:
                self._database.close()
                raise

    def _open(self, source: str) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        # In this order, the log needs no shared memory, which network file systems lack.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute("BEGIN EXCLUSIVE")
        self._database.commit()
        self._database.executescript(_SCHEMA)
        about = dict(self._database.execute("SELECT name, value FROM about"))
        known = about.get("source", source)
        if known != source:
            raise ConfigurationError(
                f"{str(self._file.parent)!r} is the mirror of {known}, and not of {source}. "
                "Choose another folder."
            )
        self.run = int(about.get("run", 0)) + 1
        values = {"source": source, "run": self.run}
        self._database.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values.items())
        self._database.commit()
        self._committed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        with self._explained():
            try:
                if isinstance(error, sqlite3.Error):
                    raise error
                self.commit()
            finally:
                self._database.close()

    def discard(self) -> None:
        """Remove the index, which is new."""
        self._database.close()
        self._file.unlink()

    def find(self, parent: int, kind: str, object_id: str, source: str = "") -> Entry | None:
        """Return what the mirror holds of an object."""
        row = self._database.execute(
            "SELECT number, kind, id, path, digest, size FROM objects"
            " WHERE parent = ? AND kind = ? AND id = ? AND source = ?",
            (parent, kind, object_id, source),
        ).fetchone()
        return None if row is None else Entry(*row)

    def add(
        self, parent: Entry | None, kind: str, object_id: str, source: str = "", file: str = ""
    ) -> Entry:
        """Add an object that is not in the mirror yet, and choose the path of its file.

        Args:
            parent: The catalog that lists it; None for the root.
            kind: `ITEM` or `CATALOG`.
            object_id: Its id.
            source: Its URL, if a link leads to it.
            file: The name of the file of a catalog.
        """
        name = name_of(object_id)
        folder = "" if parent is None else parent.folder
        folder = f"{folder}/" if folder else ""
        for is_taken in (False, True):
            if is_taken:
                name = with_hash(name, f"{kind} {object_id} {source}")
            stem = f"{folder}{name}"
            # The root has no folder of its own.
            identity = "" if parent is None else stem.casefold()
            path = file if parent is None else f"{stem}/{file}" if file else f"{stem}.json"
            cursor = self._database.execute(
                "INSERT OR IGNORE INTO objects (parent, kind, id, source, path, identity, run)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    0 if parent is None else parent.number,
                    *(kind, object_id, source, path, identity, self.run),
                ),
            )
            if cursor.rowcount:
                return Entry(cursor.lastrowid or 0, kind, object_id, path)
        raise DownloadError(f"{quoted(object_id)}: the mirror has no free name for it.")

    def saved(self, entry: Entry, digest: bytes | None, size: int | None) -> None:
        """Note that the file of an item was written, or could not be."""
        self._saved.append((digest, size, self.run, entry.number))
        if len(self._saved) >= _MAX_WAITING:
            self._flush()

    def seen(self, entry: Entry) -> None:
        """Note that an item is unchanged."""
        self._seen.append((self.run, entry.number))
        if len(self._seen) >= _MAX_WAITING:
            self._flush()

    def described(self, entry: Entry, document: str) -> None:
        """Keep the document of a catalog, without the links to what it lists."""
        self._database.execute(
            "UPDATE objects SET document = ?, run = ? WHERE number = ?",
            (document, self.run, entry.number),
        )

    def completed(self, entry: Entry) -> None:
        """Note that this run has seen all that a catalog lists."""
        self._flush()
        self._database.execute(
            "UPDATE objects SET complete = ? WHERE number = ?", (self.run, entry.number)
        )

    def find_gone(self) -> int:
        """Find what is gone, for :meth:`gone`; return the number of items."""
        self.commit()
        self._database.execute("DROP TABLE IF EXISTS temp.gone")
        self._database.execute(_GONE, {"run": self.run})
        self._database.commit()
        found = self._database.execute("SELECT count(*) FROM gone WHERE kind = ?", (ITEM,))
        return int(found.fetchone()[0])

    def gone(self) -> Iterator[Entry]:
        """Yield what is gone."""
        rows = self._database.execute("SELECT number, kind, id, path FROM gone")
        yield from (Entry(*row) for row in rows)

    def remove_gone(self) -> None:
        """Forget what is gone."""
        self._database.execute("DELETE FROM objects WHERE number IN (SELECT number FROM gone)")
        self.commit()

    def catalogs(self) -> Iterator[tuple[Entry, str]]:
        """Yield the catalogs of this run with their documents, the root last."""
        rows = self._database.execute(
            "SELECT number, kind, id, path, document FROM objects"
            " WHERE kind = ? AND run = ? AND document IS NOT NULL ORDER BY number DESC",
            (CATALOG, self.run),
        )
        yield from ((Entry(*row[:4]), row[4]) for row in rows)

    def members(self, catalog: Entry, *, without_gone: bool) -> Iterator[Entry]:
        """Yield what is in a catalog and has a file, in the order in which it was added."""
        rows = self._database.execute(
            "SELECT number, kind, id, path FROM objects WHERE parent = ?"
            " AND (size IS NOT NULL OR document IS NOT NULL)"
            " AND (NOT ? OR number NOT IN (SELECT number FROM gone)) ORDER BY number",
            (catalog.number, without_gone),
        )
        yield from (Entry(*row) for row in rows)

    def commit(self) -> None:
        """Write all to the disk."""
        self._flush()
        self._database.commit()
        self._committed = time.monotonic()

    def _flush(self) -> None:
        self._database.executemany(
            "UPDATE objects SET digest = ?, size = ?, run = ? WHERE number = ?", self._saved
        )
        self._database.executemany("UPDATE objects SET run = ? WHERE number = ?", self._seen)
        self._saved.clear()
        self._seen.clear()
        if time.monotonic() - self._committed > _COMMIT_INTERVAL:
            self._database.commit()
            self._committed = time.monotonic()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise ConfigurationError(
                    f"{str(self._file.parent)!r} is in use: another mirror() writes to it. Wait "
                    "for it, or choose another folder."
                ) from error
            raise DownloadError(
                f"The index of the mirror {str(self._file)!r} cannot be used: {error}. If it is "
                "damaged, remove it: the next run compares all files anew."
            ) from error
