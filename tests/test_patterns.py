"""The time that a regular expression takes grows with the text only, whatever a server sends."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stac_gitlab

SIZE = 2000
# A linear pattern takes a tenth of this for a text of that size, and a quadratic one ten times it.
SUSPICIOUS = 0.001
# How much the time of a linear pattern may grow when the text is four times as long.
MOST_GROWTH = 8

PIECES = (
    *("\\", '"', "'", "<", ">", "(", ")", "[", "]", "{", "}", ",", ";", ":", "=", "&", "?", "#"),
    *("/", "@", "-", ".", "_", "*", "0", "a", "A", " ", "\t", "\n", "\x00", "\u00e9", "\u200b"),
    *("%25", "%", "&#0", "&#x0", "\\u", "://a", "//", "a,", "1-", "--", "<!--", "<a ", "ey.", "gl"),
)


SOURCE = "\n".join(
    path.read_text(encoding="utf-8") for path in Path(stac_gitlab.__path__[0]).rglob("*.py")
)


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Yield every compiled pattern at the level of a module or class, with its name."""
    for found in pkgutil.walk_packages(stac_gitlab.__path__, "stac_gitlab."):
        if ".testing" in found.name or found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        holders = [module, *(v for v in vars(module).values() if isinstance(v, type))]
        for holder in holders:
            if getattr(holder, "__module__", module.__name__) != module.__name__:
                continue
            for name, value in vars(holder).items():
                if isinstance(value, re.Pattern):
                    yield f"{found.name}.{name}", value


def text_of(pattern: re.Pattern[Any]) -> str:
    source = pattern.pattern
    return source.decode("latin-1") if isinstance(source, bytes) else str(source)


def hostile_texts(pattern: re.Pattern[Any], size: int) -> Iterator[Any]:
    """Yield texts of many equal pieces, after beginnings that the pattern itself names."""
    literals = dict.fromkeys(re.findall(r"[\w%&=:;/<>@.-]+", text_of(pattern)))
    starts = ["", *itertools.islice(literals, 12)]
    for piece in dict.fromkeys((*literals, *PIECES)):
        for start in starts:
            text = f"{start}{piece * (size // len(piece))}\x01"
            if isinstance(pattern.pattern, bytes):
                yield text.encode("utf-8")
            else:
                yield text


def methods_of(name: str) -> set[str]:
    """Return the methods of a pattern that the package calls: some search, and some do not."""
    used = set(re.findall(rf"\b{name}\.(search|match|fullmatch|finditer|sub|split)\b", SOURCE))
    return used or {"finditer"}


def seconds(pattern: re.Pattern[Any], method: str, text: Any) -> float:
    begun = time.process_time()
    if method in ("sub", "finditer", "split"):
        for _ in pattern.finditer(text):
            pass
    else:
        getattr(pattern, method)(text)
    return time.process_time() - begun


def grows_too_fast(pattern: re.Pattern[Any], method: str) -> str | None:
    """Return the beginning of a text for which the time is not linear."""
    for index, text in enumerate(hostile_texts(pattern, SIZE)):
        if seconds(pattern, method, text) < SUSPICIOUS:
            continue
        longer = next(itertools.islice(hostile_texts(pattern, 4 * SIZE), index, None))
        least = [min(seconds(pattern, method, t) for _ in range(3)) for t in (text, longer)]
        if least[0] >= SUSPICIOUS and least[1] > MOST_GROWTH * least[0]:
            return repr(text[:40])
    return None


@pytest.mark.parametrize(("name", "pattern"), [pytest.param(*p, id=p[0]) for p in patterns()])
def test_the_time_of_a_pattern_grows_with_the_text_only(
    name: str, pattern: re.Pattern[Any]
) -> None:
    for method in methods_of(name.rpartition(".")[2]):
        assert grows_too_fast(pattern, method) is None


@pytest.mark.parametrize(
    ("slow", "method"),
    [(r"\\+u", "sub"), (r"\s+x", "search"), (r"[^@]+@", "search"), (r"\s*\n\s*x", "match")],
)
def test_a_pattern_that_takes_quadratic_time_is_found(slow: str, method: str) -> None:
    assert grows_too_fast(re.compile(slow), method) is not None
