import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.storage.json_text import parse_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_what_python_writes_is_read_back(value):
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        b"NaN",
        b'{"a": [Infinity]}',
        b"-Infinity",
        b"1e400",
        b"-1e999999999",
        b"1" + b"0" * 400,
        b"-9223372036854775808",
        b"1" * 5000,
        b'{"a": 1, "a": 2}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"",
        b"{",
        b"\xff\xfe\xfd",
        b"1 2",
    ],
)
def test_what_a_program_would_stumble_over_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\w") as error:
        parse_json(text)
    assert len(str(error.value)) < 300
