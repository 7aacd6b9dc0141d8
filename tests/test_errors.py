"""The error tree: as drawn, with constructors, pickling and the bases that users catch."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pystac
import pytest
import requests

import stac_gitlab
from stac_gitlab import errors

RESPONSE = requests.Response()
RESPONSE.status_code = 429
RESPONSE.url = "https://hub.example.org/api/stac"
RESPONSE._content = b"Retry later"

# The keyword arguments of each class.
STATUS = {"response": RESPONSE, "retry_after": 7.5}
DOWNLOAD = {"errors": {"data.csv": errors.NetworkError("gone", url="u")}, "report": {"a": 1}}
KEYWORDS: dict[type[errors.STACGitLabError], dict[str, object]] = {
    errors.STACGitLabError: {},
    errors.ConfigurationError: {},
    errors.RemoteWriteError: {},
    errors.NetworkError: {"url": "https://hub.example.org"},
    errors.OfflineError: {"url": "https://hub.example.org"},
    errors.RequestTimeoutError: {"url": "https://hub.example.org"},
    errors.InvalidResponseError: {"url": "https://hub.example.org", "truncated": True},
    errors.NotSTACError: {"url": "https://hub.example.org", "truncated": True},
    errors.HTTPStatusError: STATUS,
    errors.AuthenticationError: STATUS,
    errors.ConflictError: STATUS,
    errors.InvalidRequestError: STATUS,
    errors.PermissionDeniedError: STATUS,
    errors.NotFoundError: STATUS,
    errors.RateLimitError: STATUS,
    errors.ServerError: STATUS,
    errors.DownloadError: DOWNLOAD,
    errors.AssetNotFoundError: DOWNLOAD,
    errors.ChecksumMismatchError: DOWNLOAD,
    errors.DownloadHTTPError: {**DOWNLOAD, "response": RESPONSE},
    errors.IncompleteDownloadError: DOWNLOAD,
    errors.LFSPointerError: DOWNLOAD,
    errors.UnsafePathError: DOWNLOAD,
}
ERRORS = [cls("it failed", **keywords) for cls, keywords in KEYWORDS.items()]
each_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


def classes_of_module() -> dict[str, type]:
    return {
        name: cls
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and cls.__module__ == errors.__name__
    }


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Return, for each class in the drawn tree, its parent and the base class in brackets."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r" {4}([ │├└─]*)([A-Z]\w+)(?:\s+\(([\w.]+)\))?", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        above[depth] = match[2]
        tree[match[2]] = (above[depth - 1] if depth else None, match[3])
    return tree


def test_the_drawn_tree_shows_the_base_classes() -> None:
    drawn = drawn_tree()
    assert set(drawn) == set(classes_of_module())
    for name, (parent, foreign) in drawn.items():
        bases = {
            base.__name__ if base.__module__ == errors.__name__ else base
            for base in vars(errors)[name].__bases__
        }
        expected: set[object] = {parent or Exception}
        if foreign is not None:
            expected.add(named(foreign))
        if name == "STACGitLabWarning":
            expected = {UserWarning}
        assert bases == expected, name


def named(dotted: str) -> type:
    module, _, name = dotted.rpartition(".")
    scope = {"": __builtins__, "requests": vars(requests), "pystac": vars(pystac)}[module]
    found: type = scope[name] if isinstance(scope, dict) else getattr(scope, name)
    return found


def test_every_error_is_a_public_name_of_the_package() -> None:
    assert set(classes_of_module()) <= set(stac_gitlab.__all__)


def test_every_error_class_is_tested_below() -> None:
    raised = {cls for cls in classes_of_module().values() if not issubclass(cls, Warning)}
    assert set(KEYWORDS) == raised


@each_error
def test_an_error_has_the_message_and_attributes_that_it_was_given(
    error: errors.STACGitLabError,
) -> None:
    assert str(error) == "it failed"
    assert error.args == ("it failed",)
    assert {name: getattr(error, name) for name in KEYWORDS[type(error)]} == KEYWORDS[type(error)]


@each_error
def test_no_constructor_depends_on_the_bases_that_follow_in_the_resolution_order(
    error: errors.STACGitLabError,
) -> None:
    class OtherError(Exception):
        def __init__(self, bad_dict: dict[str, object], expected: type) -> None:
            raise AssertionError("not to be called")

    mixed = type("Mixed", (type(error), OtherError), {})
    assert str(mixed("it failed", **KEYWORDS[type(error)])) == "it failed"


@each_error
def test_an_error_survives_a_copy(error: Exception) -> None:
    assert_same(copy.copy(error), error)


@each_error
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_a_pickle(error: Exception, protocol: int) -> None:
    assert_same(pickle.loads(pickle.dumps(error, protocol)), error)


@each_error
def test_an_error_survives_a_deep_copy(error: Exception) -> None:
    assert_same(copy.deepcopy(error), error)


def assert_same(again: Exception, error: Exception) -> None:
    assert type(again) is type(error)
    assert str(again) == str(error) != ""
    assert repr(again) == repr(error)
    assert set(vars(again)) == set(vars(error))
    for name in ("url", "truncated", "status_code", "retry_after", "report"):
        assert getattr(again, name, None) == getattr(error, name, None)
    if isinstance(error, errors.HTTPStatusError):
        assert isinstance(again, errors.HTTPStatusError)
        assert again.response.text == "Retry later"
        assert again.response.status_code == again.status_code == 429
    if isinstance(error, errors.DownloadError):
        assert isinstance(again, errors.DownloadError)
        assert str(again.errors["data.csv"]) == "gone"


def test_requests_http_error_catches_a_status_error() -> None:
    with pytest.raises(requests.HTTPError) as caught:
        raise errors.NotFoundError("not there", response=RESPONSE)
    assert caught.value.response.status_code == 429


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (errors.NotFoundError, FileNotFoundError),
        (errors.AuthenticationError, PermissionError),
        (errors.PermissionDeniedError, PermissionError),
    ],
)
def test_users_of_files_catch_a_status_error(error: type[Exception], base: type[Exception]) -> None:
    made = error("it failed", **STATUS)  # type: ignore[call-arg]  # of a base class
    with pytest.raises(base, match="it failed"):
        raise made
    assert isinstance(made, requests.HTTPError)


def test_a_remote_write_is_a_not_implemented_error_as_in_pystac() -> None:
    with pytest.raises(NotImplementedError):
        raise errors.RemoteWriteError("no")


def test_every_warning_has_the_base_class_of_the_package() -> None:
    warned = [cls for cls in classes_of_module().values() if issubclass(cls, Warning)]
    assert all(issubclass(cls, errors.STACGitLabWarning) for cls in warned)
    assert all(issubclass(cls, UserWarning) for cls in warned)


@each_error
def test_a_message_is_shortened_in_its_middle(error: errors.STACGitLabError) -> None:
    cls = type(error)
    url = f"https://hub.example.org/{'a' * 5_000_000}/data.csv"
    message = str(cls(f"GET {url}: not found. Check the URL.", **KEYWORDS[cls]))
    assert message.startswith("GET https://hub.example.org/aaa")
    assert message.endswith("/data.csv: not found. Check the URL.")
    assert len(message) < 400
    spaced = str(cls("\n".join(["so it is " * 100_000] * 2), **KEYWORDS[cls]))
    assert len(spaced) < 3100
    usual = f"GET {'u' * 250} {'and so on ' * 100}"
    assert str(cls(usual, **KEYWORDS[cls])) == usual


def test_a_warning_is_shortened_in_its_middle() -> None:
    message = str(errors.UnreadableItemWarning(f"{'i' * 5_000_000} cannot be read"))
    assert message.endswith("iii cannot be read")
    assert len(message) < 400
