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
_FOLDERS = re.compile(r"(?:(?<=/)|\A)\*\*+/")
_BRACKET = re.compile(r"\[([!^]?)(\]?[^\]]{0,255}+)\]")
_LONGEST_PATH = 4096
# Sets of sets, which git does not know.
_SPECIAL_IN_SET = re.compile(r"[\[&~|]")


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
        if filters and 0 < len(pattern) <= _LONGEST_PATH:
            prefix = f"{re.escape(folder)}/" if folder else ""
            try:
                rule = re.compile(prefix + _regex(pattern), re.DOTALL)
            except re.error:
                # A range such as z-a, or one of classes. It fits no file.
                return
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
    """Return the regular expression of a pattern, relative to the folder of its file.

    Where a wildcard follows, the first place at which a part fits is as good as any later one. So
    the part is an atomic group, and the time grows with the product of both lengths at most.
    """
    if "/" not in pattern:
        pattern = f"**/{pattern}"
    first, *others = _FOLDERS.split(pattern.lstrip("/"))
    if not others:
        return _regex_of_path(first)
    between = "".join(f"(?>(?:[^/]*/)*?{_regex_of_path(part)})" for part in others[:-1])
    return f"{_regex_of_path(first)}{between}(?:[^/]*/)*{_regex_of_path(others[-1])}"


def _regex_of_path(path: str) -> str:
    """Return the regular expression of a pattern without ``**/``."""
    folder, slash, name = path.rpartition("/")
    last = ".*" if len(name) > 1 and not name.strip("*") else _regex_of_name(name)
    return "/".join(map(_regex_of_name, folder.split("/"))) + slash + last


def _regex_of_name(pattern: str) -> str:
    # What stands before, between and behind the wildcards.
    parts = [""]
    at = 0
    while at < len(pattern):
        if pattern[at] == "*":
            parts.append("")
            at += 1
        elif pattern[at] == "?":
            parts[-1] += "[^/]"
            at += 1
        elif (bracket := _BRACKET.match(pattern, at)) is not None:
            negation = "^" if bracket[1] else ""
            members = bracket[2].replace("[:space:]", r"\s")
            members = _SPECIAL_IN_SET.sub(r"\\\g<0>", members)
            parts[-1] += f"(?!/)[{negation}{members}]"
            at = bracket.end()
        else:
            at += pattern[at] == "\\" and at + 1 < len(pattern)
            parts[-1] += re.escape(pattern[at])
            at += 1
    first, *others = parts
    if not others:
        return first
    between = "".join(f"(?>[^/]*?{part})" for part in others[:-1] if part)
    return f"{first}{between}[^/]*{others[-1]}"
