"""The error for everything that a user can cause, and small checks of values."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: one line that says what was found, what was wanted and what to do.

    The command prints it after ``numpyvit: error:`` and ends with exit code 2. Any
    other exception is a bug.
    """


def check_choice(kind: str, value: object, choices: Iterable[str]) -> None:
    """Raise UserError, with the closest match, unless `value` is one of `choices`.

    kind: what is chosen, as the beginning of the message, such as "data set".
    """
    choices = list(choices)
    if value in choices:
        return
    closest = closest_match(str(value), choices)
    hint = f"did you mean {closest!r}? Choose" if closest else "choose"
    raise UserError(f"{kind} {value!r} is unknown: {hint} one of {', '.join(choices)}")


def closest_match(name: str, choices: list[str]) -> str | None:
    """Return the choice that `name` is most likely a misspelling of, or None."""
    for choice in choices:
        if choice.lower() == name.lower():
            return choice
    matches = difflib.get_close_matches(name[:100], choices, n=1, cutoff=0.6)
    return matches[0] if matches else None


def is_positive_int(n: object) -> bool:
    """Return whether `n` is an integer from 1 to 2**31 - 1 (a bool is not)."""
    return isinstance(n, int) and not isinstance(n, bool) and 0 < n < 2**31


def is_real_number(x: object) -> bool:
    """Return whether `x` is a finite number, neither a bool nor NaN."""
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e300
