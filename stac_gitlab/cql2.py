"""Whether a CQL2 filter is well-formed: what can be told without knowing the server.

This is no parser: it follows the words of a text as they may stand after one another, and the shape
of the JSON. That finds what people get wrong (a quote or bracket that does not close, ``==``, a
missing operand) before a server answers with a 400, or ignores the filter. Which properties and
functions there are only the server knows.

Source: OGC 21-065r2, Common Query Language (CQL2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from stac_gitlab.errors import ConfigurationError

__all__ = ["check_cql2_json", "check_cql2_text"]

_TOKEN = re.compile(
    r"""
    \s*(?:
        (?P<text>'(?:[^']|'')*')
      | (?P<name>"[^"]+"|[^\W\d][\w:.\-]*(?<![-.:]))
      | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<comparison><=|>=|<>|=|<|>)
      | (?P<sign>[-+*/%^])
      | (?P<open>\()
      | (?P<close>\))
      | (?P<comma>,)
    )
    """,
    re.VERBOSE,
)
_MISTAKES = {
    "==": "'==' is no operator of CQL2: use '='",
    "!=": "'!=' is no operator of CQL2: use '<>'",
    "&&": "'&&' is no operator of CQL2: use 'AND'",
    "||": "'||' is no operator of CQL2: use 'OR'",
}
_GEOMETRIES = frozenset(
    {
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
    }
)

# How many arguments an operator takes in JSON: at least, and at the most.
_ARITY: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("and", "or"), (2, None)),
    "not": (1, 1),
    **dict.fromkeys(("=", "<>", "<", ">", "<=", ">=", "like", "in"), (2, 2)),
    "between": (3, 3),
    "isNull": (1, 1),
}


def check_cql2_text(text: str) -> None:
    """Check a filter in CQL2 text.

    Raises:
        ConfigurationError: If it is not well-formed.
    """
    if not text.strip():
        raise ConfigurationError("filter: it is empty.")
    _Sentence(text).check()


class _Sentence:
    """A text, and what may stand at the place that has been reached.

    Between two operands stands an operator. Whether a word is one or the other is told by the word
    and by what is expected.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._wants_operand = True
        self._brackets: list[int] = []
        self._last = ""

    def check(self) -> None:
        while self._text[self._place :].strip():
            kind, word = self._next()
            if kind == "name" and word.lower() in _KEYWORDS and not word.startswith('"'):
                self._keyword(word.lower())
            elif kind == "open":
                self._open()
            elif kind == "close":
                self._close()
            elif kind in ("comparison", "comma"):
                self._operator(word)
            elif kind == "sign":
                # A minus may also stand before an operand.
                if not (self._wants_operand and word in "+-"):
                    self._operator(word)
            else:
                self._operand(word, kind)
            self._last = word
        if self._brackets:
            self._place = self._brackets[-1]
            self._fail("a bracket opens, and does not close")
        if self._wants_operand:
            self._fail(f"something is missing after {self._last!r}")

    def _next(self) -> tuple[str, str]:
        match = _TOKEN.match(self._text, self._place)
        rest = self._text[self._place :].lstrip()
        for wrong, advice in _MISTAKES.items():
            if rest.startswith(wrong):
                self._fail(advice)
        if match is None:
            opened = {"'": "a text", '"': "a name"}.get(rest[0])
            self._fail(
                f"{opened} in {rest[0]} opens, and does not close"
                if opened
                else f"{rest[0]!r} belongs to nothing"
            )
        self._place = match.end()
        kind = match.lastgroup or ""
        return kind, match[kind]

    def _keyword(self, word: str) -> None:
        if word in ("and", "or", "like", "between", "in", "is", "div"):
            self._operator(word.upper())
            if word == "is":
                match = re.match(r"\s+(?:not\s+)?null\b", self._text[self._place :], re.IGNORECASE)
                if match is None:
                    self._fail("after IS comes NULL, or NOT NULL")
                self._place += match.end()
                self._wants_operand = False
        elif word == "null":
            self._fail("NULL stands after IS only")
        elif word == "not" and not self._wants_operand:
            following = re.match(
                r"\s+(like|between|in)\b", self._text[self._place :], re.IGNORECASE
            )
            if following is None:
                self._fail("NOT stands before a condition, or before LIKE, BETWEEN or IN")
        elif word in ("true", "false"):
            self._operand(word, "name")

    def _operand(self, word: str, kind: str) -> None:
        if not self._wants_operand:
            self._fail(f"an operator is missing between {self._last!r} and {word!r}")
        self._wants_operand = False
        if kind == "name" and word.lower() in _GEOMETRIES:
            self._skip_geometry()

    def _operator(self, word: str) -> None:
        if self._wants_operand:
            self._fail(f"something is missing before {word!r}")
        self._wants_operand = True

    def _open(self) -> None:
        # After a name it is a call, after IN a list, elsewhere a group.
        self._brackets.append(self._place - 1)
        if not self._wants_operand and not re.fullmatch(r'[^\W\d]\w*|"[^"]+"', self._last):
            self._fail(f"an operator is missing between {self._last!r} and '('")
        self._wants_operand = True

    def _close(self) -> None:
        if not self._brackets:
            self._fail("a bracket closes that was not opened")
        self._brackets.pop()
        if self._wants_operand and self._last != "(":
            self._fail(f"something is missing after {self._last!r}")
        self._wants_operand = False

    def _skip_geometry(self) -> None:
        """Pass over what a geometry holds: numbers stand side by side there."""
        match = re.match(r"\s*(?:[zZ]\s*)?\(", self._text[self._place :])
        if match is None:
            return
        start = self._place + match.end() - 1
        depth = 0
        for place in range(start, len(self._text)):
            depth += {"(": 1, ")": -1}.get(self._text[place], 0)
            if depth == 0:
                self._place = place + 1
                return
        self._place = start
        self._fail("a bracket opens, and does not close")

    def _fail(self, why: str) -> NoReturn:
        raise ConfigurationError(
            f"filter: {why}, at character {self._place + 1} of {self._text!r}."
        )


_KEYWORDS = frozenset(
    {"and", "or", "not", "like", "between", "in", "is", "null", "true", "false", "div"}
)


def check_cql2_json(value: Any) -> None:
    """Check a filter in CQL2 JSON.

    Raises:
        ConfigurationError: If it is not well-formed.
    """
    if not isinstance(value, Mapping) or not value:
        raise ConfigurationError(
            "filter: CQL2 JSON is an object such as {'op': '=', 'args': [{'property': 'id'}, 'a']}."
        )
    if "op" not in value:
        raise ConfigurationError(f"filter: no 'op' among {sorted(map(str, value))}.")
    _check_operation(value)


def _check_operation(value: Any) -> None:
    if isinstance(value, (list, tuple)):
        for each in value:
            _check_operation(each)
        return
    if not isinstance(value, Mapping) or "op" not in value:
        return
    operator, arguments = value["op"], value.get("args")
    if not isinstance(operator, str) or not operator:
        raise ConfigurationError(f"filter: the operator {operator!r} is no text.")
    if operator in ("==", "!=", "&&", "||"):
        raise ConfigurationError(f"filter: {_MISTAKES[operator]}.")
    if not isinstance(arguments, (list, tuple)):
        raise ConfigurationError(f"filter: the 'args' of {operator!r} are no list.")
    least, most = _ARITY.get(operator, (0, None))
    if len(arguments) < least or (most is not None and len(arguments) > most):
        wanted = str(least) if least == most else f"{least} or more"
        raise ConfigurationError(
            f"filter: {operator!r} takes {wanted} arguments, not {len(arguments)}."
        )
    if operator == "in" and not isinstance(arguments[1], (list, tuple)):
        raise ConfigurationError("filter: the second argument of 'in' is no list.")
    for argument in arguments:
        _check_operation(argument)
