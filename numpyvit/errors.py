"""The error for everything that a user can cause, and the hint that goes with a misspelt name."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: one line that says what was found, what was wanted and what to do.

    The command prints it after ``numpyvit: error:`` and ends with exit code 2; any other exception is a bug.
    """


def check_choice(what: str, value: object, choices: Iterable[str]) -> None:
    """Raise UserError unless `value` is one of `choices`; name the nearest of them."""
    choices = list(choices)
    if value in choices:
        return
    near = [c for c in choices if c.lower() == str(value).lower()]
    near = near or difflib.get_close_matches(str(value)[:100], choices, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"{what} {value!r} is unknown: {hint}(one of {', '.join(choices)})")
