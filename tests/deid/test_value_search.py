"""`Needles` finds values in any case, encoding and escape, and digits only as whole numbers."""

import json
import time
from html import escape

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgan.deid.value_search import Needles

pytestmark = pytest.mark.unit

NAMES = Needles({"Zyxquist": "name", "Mölk'Ossø": "odd name", "48151623": "number", "A^B C": "joined"})


@pytest.mark.parametrize(
    "written",
    [
        b"xZyxquisty",
        b"patient=ZYXQUIST",
        b"zyxquist",
        "Zyxquist".encode("utf-16-le"),
        "\ufeffname: ZYXQUIST".encode("utf-16"),
        b"\x00\x01Zyxquist\xff",
    ],
)
def test_needles_find_name_in_any_case_and_encoding(written):
    assert NAMES.kinds_in(written) == {"name"}


@pytest.mark.parametrize(
    "written",
    [
        json.dumps({"who": "Mölk'Ossø"}).encode(),
        json.dumps({"who": "Mölk'Ossø"}, ensure_ascii=False).encode(),
        escape("Mölk'Ossø").encode(),
        "Mölk'Ossø".encode("latin-1"),
        "MÖLK'OSSØ".encode(),
        b"file:///data/M%C3%B6lk%27Oss%C3%B8/x",
    ],
)
def test_needles_find_non_ascii_letters_in_json_html_and_url_escapes(written):
    assert NAMES.kinds_in(written) == {"odd name"}


@pytest.mark.parametrize("written", [b"48151623", b"id 48151623.", b"a48151623b", b"x=48151623,"])
def test_needles_find_digits_as_whole_number(written):
    assert NAMES.kinds_in(written) == {"number"}


@pytest.mark.parametrize("written", [b"0.48151623", b"148151623", b"481516230", b"4815162", b"", b"abc", b"Zyxquis"])
def test_needles_ignore_digits_inside_numbers_and_parts_of_values(written):
    assert NAMES.kinds_in(written) == set()


def test_needles_report_every_kind_found_in_text():
    assert NAMES.kinds_in(b"A^B C, Zyxquist") == {"joined", "name"}


def test_needles_without_values_find_nothing():
    assert Needles({}).kinds_in(b"anything") == set()


@given(st.binary(max_size=60), st.binary(max_size=60), st.text("abcdefgh-", min_size=4, max_size=20))
def test_needles_find_value_at_any_position(before, after, value):
    assert "kind" in Needles({value: "kind"}).kinds_in(before + value.encode() + after)


def test_needles_search_thousands_of_values_in_two_seconds():
    needles = Needles({f"1.3.6.1.4.1.9590.100.{number}": "UID" for number in range(20_000)})
    text = np.random.default_rng(0).bytes(4_000_000)
    start = time.process_time()
    assert needles.kinds_in(text) == set()
    assert time.process_time() - start < 2  # one search for each value would take minutes instead of 0.05 s
