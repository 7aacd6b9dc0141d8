"""Tracebacks in IPython, with a stand-in for it; `notebooks/test_tracebacks.py` uses a real one."""

from __future__ import annotations

import pickle
import sys
import traceback
from types import ModuleType, SimpleNamespace
from typing import Any

import pystac
import pytest

from stac_gitlab import GitLabStacIO, NotFoundError
from stac_gitlab.testing import LoopbackServer


class View:
    """Formats tracebacks as plain Python does."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def structured_traceback(self, *error: Any, tb_offset: int) -> list[str]:
        assert tb_offset == 0
        return traceback.format_exception(*error)


@pytest.fixture
def ipython(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    shell = SimpleNamespace(InteractiveTB=View("Context"))
    module = ModuleType("IPython")
    vars(module)["get_ipython"] = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", module)
    return shell


def not_found(server: LoopbackServer) -> Any:
    reader = GitLabStacIO(base_url=server.url)
    with pytest.raises(NotFoundError) as caught:
        reader.read_json(f"{server.url}/nothing")
    return caught.value


def test_only_frames_of_the_user_are_shown(
    server: LoopbackServer, ipython: SimpleNamespace
) -> None:
    error = not_found(server)
    frames = len(traceback.extract_tb(error.__traceback__))
    shown = "".join(error._render_traceback_())
    assert shown.count('File "') == 1
    assert "not_found" in shown
    assert "404 Not Found" in shown
    assert "%xmode Verbose" in shown
    assert len(traceback.extract_tb(error.__traceback__)) == frames > 5
    ipython.InteractiveTB.mode = "Verbose"
    assert "".join(error._render_traceback_()).count('File "') == frames


@pytest.mark.usefixtures("ipython")
def test_frames_of_libraries_that_call_this_one_are_not_shown(server: LoopbackServer) -> None:
    pandas: dict[str, Any] = {"__name__": "pandas.io.common"}
    exec("def read_in_pandas(read):\n    return read()", pandas)
    with pytest.raises(NotFoundError) as caught:
        pandas["read_in_pandas"](lambda: GitLabStacIO().read_json(f"{server.url}/nothing"))
    shown = "".join(caught.value._render_traceback_())
    assert ", in read_in_pandas" in "".join(traceback.format_exception(caught.value))
    assert ", in read_in_pandas" not in shown
    assert ", in <lambda>" in shown


@pytest.mark.usefixtures("ipython")
def test_an_error_that_pystac_wraps_is_shown_with_its_cause(server: LoopbackServer) -> None:
    reader = GitLabStacIO(base_url=server.url)
    catalog = pystac.Catalog("rivers", "Rivers")
    catalog._stac_io = reader
    link = pystac.Link("child", f"{server.url}/nothing").set_owner(catalog)
    with pytest.raises(pystac.STACError) as caught:
        link.resolve_stac_object()
    error: Any = caught.value
    shown = "".join(error._render_traceback_())
    assert "404 Not Found" in shown
    assert "direct cause" in shown
    assert shown.count('File "') == 1
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
