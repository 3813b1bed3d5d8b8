import subprocess
import sys
from datetime import date, datetime, time

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.index.arrow import (
    bools,
    moment_scalar,
    number_array,
    number_scalar,
    numbers,
    text_list_array,
    text_scalar,
)
from tests.support.checkout import CHECKOUT


@settings(deadline=None)
@given(st.text())
def test_text_scalars_equal_those_of_pyarrow(text):
    assert text_scalar(text) == pa.scalar(text)


@settings(deadline=None)
@given(st.integers(-(2**31), 2**31 - 1))
def test_number_scalars_equal_those_of_pyarrow(number):
    for kind in (pa.int32(), pa.int64()):
        assert number_scalar(number, kind) == pa.scalar(number, kind)


@settings(deadline=None)
@given(st.datetimes().map(lambda moment: moment.replace(microsecond=0)))
def test_time_scalars_equal_those_of_pyarrow(moment):
    assert moment_scalar(moment) == pa.scalar(moment, pa.timestamp("s"))


def test_the_first_and_the_last_day_of_the_calendar_are_representable():
    for day in (date.min, date.max):
        assert moment_scalar(datetime.combine(day, time.min)).as_py().date() == day


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([True, False, None]))), st.integers(0, 20), st.integers(0, 20))
def test_booleans_are_read_in_order_with_null_as_false(chunks, start, length):
    values = pa.chunked_array(chunks, pa.bool_()).slice(start, length)
    assert bools(values).tolist() == [bool(value) for value in values.to_pylist()]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1))), st.integers(0, 20), st.integers(0, 20))
def test_numbers_are_read_in_order(chunks, start, length):
    values = pa.chunked_array(chunks, pa.uint64()).slice(start, length)
    assert numbers(values, np.dtype(np.uint64)).tolist() == values.to_pylist()


def test_pandas_is_not_imported():
    program = (
        "import sys, numpy as np, pyarrow as pa, pyarrow.compute as pc\n"
        "from datetime import datetime\n"
        "from image_finder.components.index.arrow import *\n"
        "texts = pa.chunked_array([pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(bytes(8)), pa.py_buffer(b'')])])\n"
        "assert bools(pc.equal(texts, text_scalar(''))).tolist() == [True]\n"
        "moment_scalar(datetime(2024, 1, 1)), number_scalar(3, pa.int32())\n"
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


@settings(deadline=None)
@given(st.lists(st.lists(st.text())))
def test_lists_of_texts_equal_those_of_pyarrow(values):
    assert text_list_array(values).to_pylist() == values


@settings(deadline=None)
@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.none()))
def test_unknown_numbers_are_null(values):
    known = np.array([value is not None for value in values], bool)
    array = number_array(np.array([value or 0 for value in values], np.int32), pa.int32(), known)
    assert array.to_pylist() == values
