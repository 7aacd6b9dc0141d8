"""The targets of the fuzzers, with a few hundred inputs each; `fuzz/run.py` tries more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from targets import PIECES, SEEDS, TARGETS

inputs = st.binary(max_size=80) | st.lists(
    st.sampled_from([*PIECES, *SEEDS]) | st.binary(max_size=6), max_size=12
).map(b"".join)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300)
@given(data=inputs)
def test_nothing_that_comes_in_makes_a_target_fail(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_and_what_was_found_from_them_make_no_target_fail(name: str) -> None:
    for seed in (*SEEDS, *PIECES):
        TARGETS[name](seed)
        TARGETS[name](seed[:-1])
        TARGETS[name](seed + seed)
