"""What notebooks show: tables, in which every text is escaped and without secrets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from stac_gitlab.redaction import printable, redact

# Notebooks align cells to the right. They drop style sheets, but not all styles of an element.
_LEFT = ' style="text-align:left;padding-right:1em"'

_MAX_NAMES = 4


class Markup(str):
    """HTML that is shown as it is."""

    __slots__ = ()


def is_notebook() -> bool:
    """Return whether the code runs in a kernel of Jupyter."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython(), "kernel") if ipython is not None else False


def html_table(
    rows: Iterable[Sequence[object]], *, header: Sequence[str] = (), caption: str = ""
) -> str:
    """Return a table.

    Args:
        rows: The cells of each row. What is no :class:`Markup` is shown as a text.
        header: The names of the columns.
        caption: A line above the table.
    """
    head = "".join(f"<th{_LEFT}>{html_text(name)}</th>" for name in header)
    body = "".join(
        f"<tr>{''.join(f'<td{_LEFT}>{html_text(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    title = f"<caption{_LEFT}>{html_text(caption, limit=500)}</caption>" if caption else ""
    return f"<table>{title}{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def html_fields(name: str, fields: Mapping[str, object]) -> str:
    """Return a table of the fields of an object, without those that are None."""
    return html_table(
        [(field, value) for field, value in fields.items() if value is not None], caption=name
    )


def html_text(value: object, *, limit: int = 200) -> Markup:
    """Return a value as HTML: redacted, escaped and shortened."""
    if isinstance(value, Markup):
        return value
    return Markup(escape(printable(redact(str(value)), limit=limit)))


def file_link(path: Path | None, *, limit: int = 200) -> Markup:
    """Return a link to a local file, relative to the working folder if it is below it."""
    if path is None:
        return Markup()
    absolute = path.absolute()
    try:
        href = quote(absolute.relative_to(Path.cwd()).as_posix())
    except (ValueError, OSError):
        href = absolute.as_uri()
    # A relative href must not look like a scheme.
    href = href if href.startswith("file:") else f"./{href}"
    return Markup(f'<a href="{escape(href)}">{html_text(path, limit=limit)}</a>')


def web_link(url: str) -> Markup:
    """Return a link to a page of a server, or the text alone if it is no URL of one."""
    text = html_text(url)
    if not url.lower().startswith(("https://", "http://")):
        return text
    return Markup(f'<a href="{escape(redact(url))}" rel="noreferrer">{text}</a>')


def listing(names: Sequence[str], count: int) -> str:
    """Return a number of names, and the first of them."""
    shown = ", ".join(printable(redact(name), limit=40) for name in names[:_MAX_NAMES])
    return f"{count}: {shown}{', …' if count > _MAX_NAMES else ''}"
