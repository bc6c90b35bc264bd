import numpy as np
import pytest

from numpyvit import UserError
from numpyvit.errors import (
    check_choice,
    check_int,
    check_number,
    is_positive_int,
    is_real_number,
    shown,
)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "adam",
            "optimizer 'adam' is unknown: did you mean 'adamw'? Choose one of adamw, muon, sgd",
        ),
        ("SGD", "optimizer 'SGD' is unknown: did you mean 'sgd'? Choose one of adamw, muon, sgd"),
        ("lion", "optimizer 'lion' is unknown: choose one of adamw, muon, sgd"),
        ("", "optimizer '' is unknown: choose one of adamw, muon, sgd"),
        (3, "optimizer 3 is unknown: choose one of adamw, muon, sgd"),
    ],
)
def test_an_unknown_choice_is_refused_and_a_close_match_suggested(value, message):
    with pytest.raises(UserError) as error:
        check_choice("optimizer", value, ["adamw", "muon", "sgd"])
    assert str(error.value) == message


@pytest.mark.parametrize("value", [1, 2.5, np.int64(1), np.float32(0.5), 10])
def test_numbers_within_the_bounds_are_accepted(value):
    check_number("x", value, above=0, most=10)


@pytest.mark.parametrize(
    "value", [0, -1, 11, np.nan, np.inf, 10**400, True, "1", None, [1], 1j, np.float32(11)]
)
def test_other_numbers_are_refused_in_one_line(value):
    with pytest.raises(UserError, match=r"^x is .*: it must be a number above 0 to 10$"):
        check_number("x", value, above=0, most=10)


@pytest.mark.parametrize("value", [0, 7, np.uint8(7), np.int64(3)])
def test_integers_are_returned_as_ints(value):
    found = check_int("n", value, most=7)
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize("value", [-1, 8, 1.0, np.float64(1), True, np.True_, "1", None, 10**400])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(UserError, match=r"^n is .*: it must be an integer, from 0 to 7$"):
        check_int("n", value, most=7)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3)), "an array of float64 of shape (2, 3)"),
        (np.float32(0.5), "0.5"),
        (int, "the type int"),
        ("a\nb", r"'a\nb'"),
        pytest.param(10**5000, "an object of type int", id="many digits"),
    ],
)
def test_values_are_shown_on_one_short_line(value, text):
    assert shown(value) == text
    assert len(shown(100 * "x")) < 90


def test_a_known_choice_is_accepted():
    check_choice("optimizer", "muon", iter(["adamw", "muon", "sgd"]))


@pytest.mark.parametrize(
    ("value", "is_int", "is_real"),
    [
        (1, True, True),
        (0, False, True),
        (-1, False, True),
        (2**31 - 1, True, True),
        (2**31, False, True),
        (1.0, False, True),
        (True, False, False),
        (np.inf, False, False),
        (np.nan, False, False),
        (10**400, False, False),
        ("1", False, False),
        (None, False, False),
    ],
)
def test_positive_integers_and_real_numbers(value, is_int, is_real):
    assert is_positive_int(value) == is_int
    assert is_real_number(value) == is_real
