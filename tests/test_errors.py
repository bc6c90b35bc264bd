import numpy as np
import pytest

from numpyvit import UserError
from numpyvit.errors import check_choice, is_positive_int, is_real_number


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
