"""The repository of a project: its archive is downloaded, checked and extracted, or nothing is."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pystac

from stac_gitlab.download.progress import Progress
from stac_gitlab.download.report import human_size
from stac_gitlab.download.source import Source, self_href
from stac_gitlab.download.substitutes import POINTER_SIZE, error_for_pointer
from stac_gitlab.download.transfer import download_file
from stac_gitlab.errors import (
    ConfigurationError,
    DownloadError,
    InvalidResponseError,
    STACGitLabError,
    UnsafePathError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.files.checksums import BUFFER_SIZE
from stac_gitlab.files.disk_space import free_space
from stac_gitlab.files.partial_file import PartialFile, leftovers_for, leftovers_in
from stac_gitlab.files.paths import is_web, relative_path
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import printable, quoted, redact
from stac_gitlab.settings import Limits

# Without Limits(archive_bytes=): archives of repositories rarely grow to ten times their size.
_MOST_GROWTH = 100
_ALWAYS_ALLOWED = 2**30
# Bytes of an entry in the directory of an archive: names of 200 characters, and then some.
_ENTRY_SIZE = 300
# By what zipfile raises for archives that are damaged, encrypted or of an unknown compression.
_BAD_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,
    ValueError,
)
_MAX_EXAMPLES = 3


def fetch_project(
    session: GitLabSession, item: pystac.Item, ref: str | None, folder: Path, progress: Progress
) -> None:
    """Download the archive of an item's project, and extract it as a new or empty folder.

    Raises:
        ConfigurationError: If the item comes from no project.
        DownloadError: If the archive cannot be extracted. Then the folder is as it was.
        HTTPStatusError: If the server responds with an error.
        NetworkError: If there is no connection, after all attempts.
    """
    source = _archive_of(session, item, ref)
    target = Path(os.path.realpath(folder))
    progress.expect(1, None)
    try:
        _check_free(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _scratch_folder(target) as scratch:
            archive, files = scratch / "archive.zip", scratch / "files"
            download_file(
                session,
                source,
                archive,
                on_bytes=lambda received, size: progress.advance(source.key, received, size),
            )
            progress.done(source.key, archive.stat().st_size)
            files.mkdir()
            extraction = _Extraction(source, files, session.limits)
            extraction.run(archive)
            with contextlib.suppress(FileNotFoundError):
                target.rmdir()
            files.rename(target)
    except OSError as error:
        if isinstance(error, STACGitLabError):
            raise
        raise DownloadError(
            f"{quoted(source.key)}: the folder {str(target)!r} cannot be written: "
            f"{error.strerror or error}. Check the free space and the permissions."
        ) from error
    extraction.warn()


def _archive_of(session: GitLabSession, item: pystac.Item, ref: str | None) -> Source:
    item_url, item_id = self_href(item), str(item.id)
    url = None
    if is_web(item_url):
        url = session.dialect_of(item_url).archive_url(
            item_url, item_id=item_id, properties=item.properties, ref=ref
        )
    if url is None:
        raise ConfigurationError(
            f"{printable(repr(item))} does not name the GitLab project that it comes from. Read it "
            "from a SharingHub, or from a catalog in a GitLab repository."
        )
    return Source(url, f"the archive of {item_id}", media_type="application/zip")


@contextlib.contextmanager
def _scratch_folder(target: Path) -> Iterator[Path]:
    """Create a hidden folder beside `target`, and remove those of processes that were killed.

    A locked partial file without content shows that its owner lives.
    """
    for leftover in leftovers_for(target, leftovers_in(target.parent)):
        abandoned = f"{leftover.path}.files"
        if os.path.isdir(abandoned):
            shutil.rmtree(abandoned, ignore_errors=True)
            with contextlib.suppress(OSError):
                leftover.remove()
    with PartialFile(target) as lease:
        scratch = Path(f"{lease.open_path()}.files")
        scratch.mkdir(mode=0o700)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _check_free(target: Path) -> None:
    """Check that the folder can be replaced."""
    try:
        is_taken = any(target.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        is_taken = True
    if is_taken:
        problem = "exists already, and is not an empty folder"
    elif os.path.ismount(target) or target in (Path.cwd(), *Path.cwd().parents):
        problem = "is in use, so it cannot be replaced in one step"
    else:
        return
    raise DownloadError(f"{str(target)!r} {problem}. Choose a new folder, such as one inside it.")


@dataclass
class _Extraction:
    """Extracts the files of an archive into a new folder, within limits."""

    _source: Source
    _folder: Path
    _limits: Limits
    _left_out: list[str] = field(default_factory=list)
    _pointers: list[str] = field(default_factory=list)

    def run(self, archive: Path) -> None:
        """Extract all regular files.

        Raises:
            DownloadError: If the archive exceeds a limit, or a name in it leads out of the folder.
            InvalidResponseError: If it is damaged.
            OSError: If a file cannot be written.
        """
        try:
            most = max(self._limits.archive_files * _ENTRY_SIZE, 4 * BUFFER_SIZE)
            with _ArchiveFile(archive, most, self._too_many) as file, zipfile.ZipFile(file) as zip_:
                members = [member for member in zip_.infolist() if not member.is_dir()]
                _check_compression(members)
                self._check_limits(members, archive.stat().st_size)
                top = _top_folder(members)
                for member in members:
                    self._extract(zip_, member, member.filename.removeprefix(top))
        except STACGitLabError:
            raise
        except _BAD_ARCHIVE as error:
            raise InvalidResponseError(
                f"GET {redact(self._source.url)}: {self._source.key} cannot be extracted: "
                f"{redact(str(error))}. Nothing was kept; try again.",
                url=redact(self._source.url),
            ) from error

    def warn(self) -> None:
        """Warn about files that were left out, or that stand for others."""
        self._warn("were left out", self._left_out)
        self._warn(
            "are pointers of Git LFS or DVC, whose content is not in the archive", self._pointers
        )

    def _warn(self, problem: str, names: Sequence[str]) -> None:
        if names:
            more = ", …" if len(names) > _MAX_EXAMPLES else "."
            examples = ", ".join(name.rstrip(".") for name in names[:_MAX_EXAMPLES])
            warnings.warn(
                f"{quoted(self._source.key)}: {len(names)} files {problem}: {examples}{more}",
                UnverifiedDownloadWarning,
                stacklevel=5,
            )

    def _check_limits(self, members: Sequence[zipfile.ZipInfo], archive_size: int) -> None:
        if len(members) > self._limits.archive_files:
            raise self._too_many()
        # zipfile never extracts more of a file than the size that the archive states.
        size = sum(member.file_size for member in members)
        for member in members:
            self._source.check_limit(member.file_size, self._limits.file_bytes)
        most = self._limits.archive_bytes
        if most is None:
            most = max(_ALWAYS_ALLOWED, _MOST_GROWTH * archive_size)
        if size > most:
            raise DownloadError(
                f"{quoted(self._source.key)}: its {human_size(archive_size)} would become "
                f"{human_size(size)}, more than the {human_size(most)} that are allowed. Nothing "
                "was extracted. If you expect that, raise Limits(archive_bytes=)."
            )
        free = free_space(self._folder)
        if free is not None and size > free:
            raise DownloadError(
                f"{quoted(self._source.key)}: {human_size(size)} are needed, but "
                f"{str(self._folder.parent.parent)!r} has only {human_size(free)} free. Nothing "
                "was extracted. Free some space, or choose another folder."
            )

    def _too_many(self) -> DownloadError:
        return DownloadError(
            f"{quoted(self._source.key)}: it lists more than {self._limits.archive_files} files. "
            "Nothing was extracted. If you expect that, raise Limits(archive_files=)."
        )

    def _extract(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> None:
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            self._left_out.append(f"{quoted(name)} is a link")
            return
        try:
            path = self._folder.joinpath(*relative_path(name).split("/"))
        except UnsafePathError as error:
            if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                raise
            self._left_out.append(str(error))
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError):
            self._left_out.append(f"{quoted(name)} has the name of another file")
            return
        with file, archive.open(member) as content:
            while chunk := content.read(BUFFER_SIZE):
                file.write(chunk)
        if mode & stat.S_IXUSR:
            with contextlib.suppress(OSError):
                path.chmod(path.stat().st_mode | (path.stat().st_mode & 0o444) >> 2)
        if member.file_size < POINTER_SIZE and error_for_pointer(
            Source(self._source.url, name), path.read_bytes()
        ):
            self._pointers.append(quoted(name))


class _ArchiveFile(io.BufferedReader):
    """An archive whose directory must not be larger than some bytes: zipfile reads all of it."""

    def __init__(self, path: Path, most: int, error: Callable[[], DownloadError]) -> None:
        super().__init__(io.FileIO(path))
        self._most = most
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._most:
            raise self._error()
        return super().read(size)


def _check_compression(members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse what git does not use: other decoders take memory and raise errors of their own."""
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"compression {member.compress_type} is not supported")


def _top_folder(members: Sequence[zipfile.ZipInfo]) -> str:
    """Return the folder that contains all files of an archive, with its slash."""
    tops = {member.filename.partition("/")[0] for member in members}
    has_top = len(tops) == 1 and all("/" in member.filename for member in members)
    top = tops.pop() if has_top else ""
    return f"{top}/" if top not in ("", ".", "..") else ""
