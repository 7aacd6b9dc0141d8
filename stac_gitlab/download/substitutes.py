"""What a server sends in place of a file: pages, messages, pointers, and files of other formats."""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from urllib.parse import urlsplit

import requests

from stac_gitlab.download.git_blobs import is_lfs_pointer
from stac_gitlab.download.source import Source
from stac_gitlab.errors import InvalidResponseError, LFSPointerError, STACGitLabError
from stac_gitlab.http.responses import is_html
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import printable, quoted, redact, redact_response

POINTER_SIZE = 1024
"""Bytes of the largest body that may be a pointer in place of the file."""

PAGE_START = 8192
"""Bytes from the start of a body that show whether it is a page."""

FORMAT_START = 64
"""Bytes from the start of a file that show its format."""

_MAX_EXCERPT = 200
_DVC_POINTER = re.compile(rb"(?:^|\n)outs:[ \t\r]*+\n\s*+(?:-\s++)?(?:md5|etag|size|path|hash):")
# The formats whose files begin with certain bytes: their names and media types, and those bytes.
_FORMATS = {
    name: (re.compile(names, re.IGNORECASE), re.compile(start, re.DOTALL))
    for name, names, start in (
        ("TIFF", r".*\.tiff?|image/(?:tiff|vnd\.stac\.geotiff)", rb"II[*+]\0|MM\0[*+]"),
        (
            "ZIP",
            r".*\.(?:zip|kmz|npz)|application/(?:x-)?zip(?:-compressed)?",
            rb"PK[\x03\x05\x07]",
        ),
        ("netCDF", r".*\.nc4?|application/(?:x-)?netcdf4?", rb"CDF[\x01\x02\x05]|\x89HDF"),
        ("HDF5", r".*\.(?:h5|hdf5)|application/(?:x-)?hdf5", rb"\x89HDF"),
        ("JPEG 2000", r".*\.(?:jp2|j2k)|image/jp2", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
        ("JPEG", r".*\.jpe?g|image/jpeg", rb"\xff\xd8\xff"),
        ("PNG", r".*\.png|image/png", rb"\x89PNG\r\n"),
        ("Parquet", r".*\.(?:geo)?parquet|application/(?:vnd\.apache\.|x-)parquet", rb"PAR1"),
        ("gzip", r".*\.t?gz|application/(?:x-)?gzip", rb"\x1f\x8b"),
        ("PDF", r".*\.pdf|application/pdf", rb"%PDF-"),
        # Not .las, which well logs have, too.
        ("LAZ", r".*\.laz|application/vnd\.las(?:zip)?(?:\+copc)?", rb"LASF"),
        ("GRIB", r".*\.gri?b2?|application/(?:wmo-grib2?|x-grib2?)", rb"GRIB"),
        ("FlatGeobuf", r".*\.fgb|application/(?:vnd\.)?flatgeobuf", rb"fgb"),
        ("GeoPackage", r".*\.gpkg|application/geopackage\+sqlite3", rb"SQLite format 3\0"),
    )
}
# The start of JSON, XML or HTML, perhaps with a byte order mark. A few bytes do not tell it from
# binary content that begins with the same character.
_MESSAGE_TYPE = re.compile(r"(?:application|text)/(?:[\w.-]+\+)?(?:json|xml|html)")
_READABLE = re.compile(rb"[^\0-\x08\x0e-\x1f]*")
_TEXT_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{<][^\0-\x08\x0e-\x1f]{7,63}")


def error_for_substitute(
    session: GitLabSession, source: Source, response: requests.Response, start: bytes
) -> STACGitLabError | None:
    """Return an error if a body is a page or a message in place of the file.

    The caller raises it: the body may contain the token, and this frame, which a traceback may
    show, has it among its locals.
    """
    is_page = "html" in (source.media_type or "") or source.key.lower().endswith((".html", ".htm"))
    if not is_page and is_html(response, start):
        return session.page_error(response, start, wanted=f"the file {quoted(source.key)}")
    expected = _expected_format(source)
    if expected is None or not _is_text(start):
        return None
    url = redact_response(response).url
    message = redact(printable(start.decode("utf-8", "replace").strip(), limit=PAGE_START))
    return InvalidResponseError(
        f"GET {url}: the server sent a message in place of the {expected} file "
        f"{quoted(source.key)}: {message[:_MAX_EXCERPT]}",
        url=url,
    )


def other_format(source: Source, start: bytes, sent_type: str) -> str:
    """Return what to say of a file of another format than its name or media type states.

    Args:
        start: The first bytes of the file.
        sent_type: The media type of the response.
    """
    if not start and source.size == 0:
        return ""
    expected = _expected_format(source)
    if expected is not None and _FORMATS[expected][1].match(start):
        return ""
    found = None
    if expected is not None:
        found = next((name for name, (_, known) in _FORMATS.items() if known.match(start)), None)
    if found is not None:
        problem = f"it is a {found} file"
    elif expected is not None and not start:
        problem = "it is empty"
    elif _is_message_type(source, sent_type, expected) and _READABLE.fullmatch(start):
        problem = f"the server sent {printable(redact(sent_type), limit=80)!r}"
    else:
        return ""
    wanted = _media_type(source) if expected is None else f"a {expected} file"
    return f"{quoted(source.key)} should be {wanted}, but {problem}."


def media_type_of(response: requests.Response) -> str:
    """Return the media type of a response as the server wrote it, without parameters."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip()


def _is_message_type(source: Source, sent_type: str, expected: str | None) -> bool:
    """Return whether a media type is that of messages, and not that of the file."""
    sent_type = sent_type.lower()
    if expected is not None and sent_type.startswith("text/"):
        return True
    if _MESSAGE_TYPE.fullmatch(sent_type) is None:
        return False
    stated = _media_type(source)
    names = f"{stated} {source.key} {urlsplit(source.url).path}".lower()
    is_known = expected is not None or stated not in ("", "text/plain")
    return is_known and not any(kind in names for kind in ("json", "xml", "html"))


def error_for_pointer(source: Source, content: bytes) -> LFSPointerError | None:
    """Return an error if a body is a pointer of Git LFS or DVC to the file."""
    if is_lfs_pointer(content):
        return LFSPointerError(
            f"{quoted(source.key)}: the server sent a Git LFS pointer in place of the file. "
            f"{redact(source.url)} serves the repository without LFS. Use the URL of GitLab's "
            "files API with lfs=true, or run 'git lfs pull' in a clone."
        )
    is_dvc_file = source.key.lower().endswith((".dvc", "dvc.lock"))
    if _DVC_POINTER.match(content) and not is_dvc_file:
        return LFSPointerError(
            f"{quoted(source.key)}: the server sent a DVC pointer in place of the file. Run "
            "'dvc pull' in a clone of the project."
        )
    return None


def _is_text(start: bytes) -> bool:
    match = _TEXT_START.match(start)
    if match is None:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(match[0])
    except UnicodeDecodeError:
        return False
    return True


def _media_type(source: Source) -> str:
    return (source.media_type or "").partition(";")[0].strip()


def _expected_format(source: Source) -> str | None:
    """Return the format that the media type of a file states, or else its name."""
    media_type = _media_type(source)
    path = urlsplit(source.url).path
    if path.lower().endswith((".json", ".xml", ".txt")):
        # The href of metadata is sometimes listed with the media type of the data.
        return None
    is_stated = media_type not in ("", "application/octet-stream")
    if is_stated:
        return _format_named(media_type)
    return _format_named(_suffix_of(source.key)) or _format_named(_suffix_of(path))


def _suffix_of(name: str) -> str:
    """Return the end of a file name with its last dot, or an empty text if it has none."""
    dot = name.rfind(".")
    return "" if dot < 0 else name[dot:]


# Each file is asked about twice, and many files have the same suffix or media type.
@lru_cache(maxsize=64)
def _format_named(stated: str) -> str | None:
    """Return the format that a media type or the suffix of a file name belongs to."""
    return next((name for name, (known, _) in _FORMATS.items() if known.fullmatch(stated)), None)
