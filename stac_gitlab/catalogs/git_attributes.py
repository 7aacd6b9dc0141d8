"""Which files of a repository Git LFS stores, as the .gitattributes files say.

Source: git documentation, gitattributes(5) and gitignore(5), "Pattern format".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

ATTRIBUTES_FILE = ".gitattributes"
_LFS = "filter=lfs diff=lfs merge=lfs -text"
_MACRO = "[attr]"
_NEEDS_ESCAPE = re.compile(r"([\\*?\[])")


class GitAttributes:
    """The rules for Git LFS.

    Args:
        files: The contents of the .gitattributes files, by their paths.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        # The rules of a deeper folder come later, and the last rule that fits decides.
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        # Names that stand for several attributes.
        self._macros: dict[str, list[str]] = {}
        for path in sorted(files, key=lambda path: path.count("/")):
            folder = posixpath.dirname(path)
            for line in files[path].decode("utf-8", "replace").splitlines():
                self._add(folder, line)

    def _add(self, folder: str, line: str) -> None:
        pattern, named = _split(line)
        if pattern.startswith(_MACRO) and not folder:
            self._macros[pattern.removeprefix(_MACRO)] = named
        if pattern.startswith(("#", "!", _MACRO)):
            # Negative patterns are forbidden.
            return
        attributes = [each for name in named for each in self._macros.get(name, [name])]
        filters = [a for a in attributes if re.match(r"[-!]?filter(?:=|$)", a)]
        if pattern and filters:
            prefix = f"{re.escape(folder)}/" if folder else ""
            rule = re.compile(prefix + _regex(pattern), re.DOTALL)
            self._rules.append((rule, filters[-1] == "filter=lfs"))

    def uses_lfs(self, path: str) -> bool | None:
        """Return whether a file is stored in Git LFS, or None if no rule is about it."""
        fitting = [in_lfs for rule, in_lfs in self._rules if rule.fullmatch(path)]
        return fitting[-1] if fitting else None


def lfs_lines(paths: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return lines for .gitattributes that put files into Git LFS, and no others.

    One pattern for all files with an ending is used where no other file has that ending.
    """
    other_endings = {_ending(path) for path in others}
    patterns: dict[str, None] = {}
    for path in paths:
        ending = _ending(path)
        exact = "/" + _NEEDS_ESCAPE.sub(r"\\\1", path)
        by_ending = "*" + _NEEDS_ESCAPE.sub(r"\\\1", ending)
        patterns[exact if not ending or ending in other_endings else by_ending] = None
    return [f"{_quoted(pattern)} {_LFS}" for pattern in patterns]


def _ending(path: str) -> str:
    return posixpath.splitext(path)[1]


def _quoted(pattern: str) -> str:
    if not re.search(r"[\s\"\x00-\x1f]|^[#!]", pattern):
        return pattern
    escaped = pattern.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " else f"\\{ord(c):03o}" for c in escaped) + '"'


def _split(line: str) -> tuple[str, list[str]]:
    """Return the pattern and the attributes of a line."""
    line = line.strip()
    if line.startswith('"'):
        match = re.match(r'"((?:[^"\\]|\\.)*)"(.*)', line)
        if match is None:
            return "", []
        return re.sub(r"\\(.)", r"\1", match[1]), match[2].split()
    pattern, _, rest = line.partition(" ") if " " in line else line.partition("\t")
    return pattern, rest.split()


def _regex(pattern: str) -> str:
    """Return the regular expression of a pattern, relative to the folder of its file."""
    is_anchored = "/" in pattern
    pattern = pattern.lstrip("/")
    made = "" if is_anchored else "(?:.*/)?"
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            made, at = made + "(?:.*/)?", at + 3
        elif pattern[at:] == "**":
            made, at = made + ".*", at + 2
        elif pattern[at] == "*":
            made, at = made + "[^/]*", at + 1
        elif pattern[at] == "?":
            made, at = made + "[^/]", at + 1
        elif (bracket := re.compile(r"\[([!^]?)(\]?[^\]]*)\]").match(pattern, at)) is not None:
            negation = "^" if bracket[1] else ""
            members = bracket[2].replace("[:space:]", r"\s").replace("[", r"\[")
            made, at = f"{made}(?!/)[{negation}{members}]", bracket.end()
        else:
            at += pattern[at] == "\\" and at + 1 < len(pattern)
            made, at = made + re.escape(pattern[at]), at + 1
    return made
