"""How an error is shown in a notebook: without the frames of libraries."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

_BELOW = ("stac_gitlab", "pystac", "pystac_client", "tenacity", "requests", "urllib3")
_ABOVE = ("dask", "distributed", "fsspec", "geopandas", "pandas", "pyarrow", "xarray", "zarr")
_MACHINERY = ("concurrent", "contextlib", "functools", "threading", "IPython")


def folded_traceback(error: BaseException) -> list[str]:
    """Return the lines that IPython prints for an error, with the frames of the user's code only.

    IPython calls it as ``_render_traceback_`` of an error. ``%xmode Verbose`` shows all frames, and
    the debugger finds them in any mode.
    """
    from IPython import get_ipython  # noqa: PLC0415  # it is the caller

    view = get_ipython().InteractiveTB
    chain = [] if view.mode == "Verbose" else list(_chain(error))
    tracebacks = [each.__traceback__ for each in chain]
    try:
        for each in chain:
            each.__traceback__ = _without_libraries(each.__traceback__)
        lines = view.structured_traceback(type(error), error, error.__traceback__, tb_offset=0)
    finally:
        for each, traceback in zip(chain, tracebacks, strict=True):
            each.__traceback__ = traceback
    note = "(Frames of libraries are not shown. To see them: %xmode Verbose, then %tb.)"
    return [*lines, note] if chain else list(lines)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, each once."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _without_libraries(traceback: TracebackType | None) -> TracebackType | None:
    frames = []
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__"))
        if module.partition(".")[0] not in _BELOW + _ABOVE + _MACHINERY:
            frames.append(traceback)
        traceback = traceback.tb_next
    kept: TracebackType | None = None
    for each in reversed(frames):
        kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return kept
