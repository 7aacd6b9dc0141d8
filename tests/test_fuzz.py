"""The targets of the fuzzers, with a few hundred inputs each; `fuzz/run.py` tries more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from targets import TARGETS

PIECES = [
    *(b"file:", b"FILE://", b"/", b"\\", b"//", b"..", b"C:", b"http:", b"https://h", b"/vsi"),
    *(b"gitlab_token=", b"gitlab%5Ftoken%3D", b"&", b"?", b"#", b"%2F", b"%00", b"\x00", b"\t"),
    *(
        b" ",
        b"[",
        b"]",
        b"@",
        b":",
        b'"',
        b"{",
        b"}",
        b",",
        b"\\u00",
        b"\\ud800",
        b"a-known-secret",
    ),
    *(b"Wed, 01 Jan 2020 00:00:00 GMT", b"9" * 30, b"-1", b"1e9", b"reset=", b"r=0;t=5", b"\n"),
    *(b'"type": "Feature"', b'"stac_version": "1.0.0"', b'"links": []', b'"$ref": "file:///x"'),
]
inputs = st.binary(max_size=80) | st.lists(
    st.sampled_from(PIECES) | st.binary(max_size=6), max_size=12
).map(b"".join)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300)
@given(data=inputs)
def test_nothing_that_comes_in_makes_a_target_fail(name: str, data: bytes) -> None:
    TARGETS[name](data)
