"""The parser of all commands.

It uses argparse: the package needs no other parser, and completion is generated from it. It imports
nothing that is slow. Each command names the function that runs it as ``module.function``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from stac_gitlab.__about__ import __version__

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
_SEVERAL: dict[str, Any] = {"nargs": "+", "action": "extend"}
# Their values may begin with '-'.
_SIGNED = ("--bbox", "--sortby", "--fields")
_OVERWRITE = ("if-changed", "always", "never", "error")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options = {"allow_abbrev": False, "formatter_class": _Format, **options}
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where to look, and end with code 2."""
        self.exit(2, f"{self.prog}: {message}. See: {self.prog} --help\n")


class _Format(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=28, **options)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of a command. Ends the process if they are wrong, or after --help."""
    parser = make_parser()
    known = {name: action for each in _parsers(parser) for name, action in _options(each).items()}
    several = {name for name, action in known.items() if action.nargs == "+"}
    return parser.parse_args(_arranged(map(_decoded, words), known, several))


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="stac-gitlab",
        description="Authenticated STAC from the command line.",
        epilog="Examples:\n"
        "  stac-gitlab auth login https://hub.example.org\n"
        "  stac-gitlab ls https://hub.example.org\n"
        "  stac-gitlab search https://hub.example.org -c dataset --q lakes |"
        " stac-gitlab download - -o lakes",
    )
    parser.add_argument("--version", action="version", version=f"stac-gitlab {__version__}")
    _add_general(parser, is_top=True)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_browsing(commands)
    _add_download(commands)
    _add_sharing(commands)
    _add_auth(commands)
    _add_command(
        commands, "env", "environment.show_environment", "show versions and settings, for reports"
    )
    _add_demo(commands)
    completion = _add_command(
        commands, "completion", "completion.show_script", "print a completion script for a shell"
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def _add_command(commands: Commands, name: str, run: str, text: str, **more: Any) -> Parser:
    parser = commands.add_parser(
        name, help=text, **{"description": f"{text}.".capitalize(), **more}
    )
    parser.set_defaults(run=run)
    _add_general(parser, is_top=False)
    return parser


def _add_general(parser: Parser, *, is_top: bool) -> None:
    """Add the options that may stand before and behind the name of a command."""

    def default(value: Any) -> Any:
        # The parser of a command must not reset what stood before its name.
        return value if is_top else argparse.SUPPRESS

    group = parser.add_argument_group("general options")
    add = group.add_argument
    flag = {"action": "store_true", "default": default(False)}
    add("--json", **flag, help="print JSON for programs")
    add("-q", "--quiet", **flag, help="print errors only")
    text = "show attempts and waits; twice: tracebacks, too"
    add("-v", "--verbose", action="count", default=default(0), help=text)
    text = "read the token from a file ('-': stdin)"
    add("--token-file", type=Path, metavar="FILE", default=default(None), help=text)
    add("--token", default=default(None), help=argparse.SUPPRESS)
    text = "the header for the token, if the server has one of its own"
    add("--header", metavar="NAME", default=default(None), help=text)
    text = "other servers that get the token"
    add("--hosts", metavar="HOST", default=default(None), help=text, **_SEVERAL)


# -- commands -------------------------------------------------------------------------------------


def _add_browsing(commands: Commands) -> None:
    ls = _add_command(commands, "ls", "browse.list_", "list a hub, a collection or an item")
    ls.add_argument("url", nargs="?", metavar="URL", help="default: STAC_GITLAB_URL")
    text = "items of each collection (default: 20)"
    ls.add_argument("-n", "--max-items", type=_from_0, default=20, metavar="N", help=text)
    text = "ask the server for the sizes of the files of an item"
    ls.add_argument("--sizes", action="store_true", help=text)
    _add_cache(ls)
    show = _add_command(commands, "show", "browse.show", "show one object with its metadata")
    show.add_argument("url", metavar="URL")
    _add_cache(show)
    _add_search(commands)


def _add_search(commands: Commands) -> None:
    text = "print matching items as an ItemCollection"
    search = _add_command(commands, "search", "browse.search", text)
    add = search.add_argument
    add("url", metavar="URL", help="the landing page of the STAC API")
    add("-c", "--collections", metavar="ID", help="default: all", **_SEVERAL)
    add("--ids", metavar="ID", **_SEVERAL)
    text = "west, south, east and north in degrees"
    add("--bbox", type=float, metavar="DEGREES", help=text, **_SEVERAL)
    add("--intersects", metavar="GEOJSON", help="a geometry or feature, or the file that holds it")
    add("--datetime", help="an instant or an interval, such as 2024-01/2024-03")
    add("--query", metavar="QUERY", help="comparisons such as 'eo:cloud_cover<10'", **_SEVERAL)
    add("--filter", help="a CQL2 filter, as a text or as JSON")
    add("--filter-lang", choices=("cql2-text", "cql2-json"), help="default: what it looks like")
    add("--sortby", metavar="FIELD", help="'-' before it: descending", **_SEVERAL)
    add("--fields", metavar="FIELD", help="'-' before it: left out", **_SEVERAL)
    add("-k", "--q", metavar="WORDS", help="words to find in titles and descriptions")
    add("--limit", type=_from_1, metavar="N", help="items on a page")
    add("-n", "--max-items", type=_from_0, metavar="N", help="items in all (default: all)")
    add("--matched", action="store_true", help="print the number of matching items only")
    add("--save", metavar="FILE", help="write to a file instead of stdout")
    _add_cache(search)


def _add_cache(parser: Parser) -> None:
    parser.add_argument("--cache", metavar="FOLDER", help="keep documents in a folder")
    parser.add_argument("--offline", action="store_true", help="read the cache, request nothing")


def _add_download(commands: Commands) -> None:
    text = "download an item, a collection, a search, or the items on standard input"
    download = _add_command(commands, "download", "download.download", text)
    add = download.add_argument
    add("url", metavar="URL|-", help="'-': an Item or ItemCollection on standard input")
    add("-o", "--output", default=".", metavar="FOLDER", help="default: the working folder")
    _add_selection(download)
    add("-x", "--exclude", metavar="KEY", help="keys or patterns", **_SEVERAL)
    add("-j", "--jobs", type=_from_1, metavar="N", help="concurrent downloads")
    text = "the path of each file (default: {collection}/{id}/{key})"
    add("--template", help=text)
    add("--overwrite", choices=_OVERWRITE, default="if-changed", help="default: if-changed")
    text = "connections for a large file (default: 1)"
    add("--segments", type=_from_1, default=1, metavar="N", help=text)
    add("--fail-fast", action="store_true", help="stop at the first failure")
    add("--dry-run", action="store_true", help="send no request for files")
    add("--save-json", action="store_true", help="write a catalog of the items")
    text = "compare downloaded files with what was recorded"
    verify = _add_command(commands, "verify", "download.verify", text)
    verify.add_argument("folder", type=Path, metavar="FOLDER")


def _add_selection(parser: Parser) -> None:
    text = "default: data; 'any', or with -i: all"
    parser.add_argument("-r", "--roles", metavar="ROLE", help=text, **_SEVERAL)
    parser.add_argument("-i", "--include", metavar="KEY", help="keys or patterns", **_SEVERAL)
    parser.add_argument("-n", "--max-items", type=_from_0, metavar="N")


def _add_sharing(commands: Commands) -> None:
    text = "make a local copy of a hub or catalog, or update it"
    copy = _add_command(commands, "mirror", "share.run_mirror", text)
    copy.add_argument("url", metavar="URL")
    copy.add_argument("folder", metavar="FOLDER")
    _add_selection(copy)
    copy.add_argument("--no-assets", action="store_true", help="copy documents only")
    copy.add_argument("--prune", action="store_true", help="remove what the server no longer lists")
    text = "bring a folder into a GitLab project"
    publish = _add_command(commands, "publish", "share.run_publish", text)
    add = publish.add_argument
    add("folder", metavar="FOLDER")
    add("project", metavar="PROJECT", help="the URL of the GitLab project")
    add("--branch", default="main", help="default: main")
    add("-m", "--message", help="the message of the commits")
    add("--topics", metavar="TOPIC", help="default: sharinghub:dataset", **_SEVERAL)
    add("--create-project", action="store_true", help="if it does not exist")
    add("--delete", action="store_true", help="delete files that FOLDER lacks")
    add("--dry-run", action="store_true", help="send nothing")
    add("--hub", metavar="URL", help="the SharingHub, for the URL of the item")


def _add_auth(commands: Commands) -> None:
    auth = commands.add_parser("auth", help="show, store and forget tokens")
    actions: Commands = auth.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("status", "show which token a server gets, and what the server says of it"),
        ("login", "store a token for a server"),
        ("logout", "forget the stored token of a server"),
    ):
        parser = _add_command(actions, name, f"auth.{name}", text)
        parser.add_argument("url", nargs="?", metavar="URL", help="default: STAC_GITLAB_URL")


def _add_demo(commands: Commands) -> None:
    demo = _add_command(
        commands,
        "demo",
        "demo.run_demo",
        "browse a hub, download the data of one item, and verify the files",
        description="Browse a SharingHub with stock pystac, download the data assets of one item\n"
        "and verify the files. Without --url, a stand-in server with sample projects is\n"
        "started on this machine. The token for a real server is taken from\n"
        "STAC_GITLAB_TOKEN, GITLAB_TOKEN or CI_JOB_TOKEN.",
    )
    demo.add_argument("--url", help="a SharingHub, such as https://hub.example.org")
    text = "the id of the item to download, such as group/project"
    demo.add_argument("--item", metavar="ID", help=text)
    text = "the folder to download to (default: a new one)"
    demo.add_argument("--output", type=Path, metavar="FOLDER", help=text)


def _whole_number(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() else -1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, {least} or greater")
        return number

    return convert


_from_0, _from_1 = _whole_number(0), _whole_number(1)


# -- what argparse does not do --------------------------------------------------------------------


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of its commands."""
    yield parser
    for each in subparsers(parser).values():
        yield from _parsers(each)


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands of a parser, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {name: action for action in parser._actions for name in action.option_strings}


def _arranged(words: Iterator[str], known: Container[str], several: Container[str]) -> list[str]:
    """Return words as argparse understands them: each value of a list with the name of its option.

    Otherwise it takes the URL behind ``-c dataset`` for another collection, and ``-title`` behind
    ``--sortby`` for an option.
    """
    arranged: list[str] = []
    option = ""
    for word in words:
        if word == "--":
            return [*arranged, word, *words]
        if word.split("=", 1)[0] in known:
            option = word if word in several else ""
        elif "://" in word or (word.startswith("-") and option not in _SIGNED):
            option = ""
        elif option:
            if arranged[-1] == option:
                arranged.pop()
            arranged.append(f"{option}={word}")
            continue
        arranged.append(word)
    return arranged


def _decoded(word: str) -> str:
    """Return an argument as UTF-8, if the locale has no such characters."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return os.fsencode(word).decode("utf-8", "replace")
    return word
