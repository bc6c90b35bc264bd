"""The error for everything that a user can cause, small checks of values, and `say`,
which prints a line of text that may come from outside.
"""

import difflib
import math
import numbers
import operator
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO


class UserError(ValueError):
    """Bad input: one line that says what was found, what was wanted and what to do.

    The command prints it after ``numpyvit: error:`` and ends with exit code 2. Any
    other exception is a bug. The message may quote file names and the contents of files,
    so what a terminal would obey in it is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    r"""Return `text` with a backslash escape for each character that is not printable.

    Names of files and classes can come from a stranger. Printed as they are, control
    characters could clear the screen or retitle the window, line breaks could forge lines
    of output, and direction overrides could reorder what is read. The result is one line:
    "a\nb" for "a", a line break and "b".
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def say(line: str = "", file: TextIO | None = None) -> None:
    """Print one line, escaped by `printable`, to `file` or else to standard output.

    The line is flushed, so that whoever reads a pipe or a log sees it at once.
    """
    print(printable(line), file=file, flush=True)


def say_lines(text: str) -> None:
    """Print a text of several lines, such as a table, by `say`."""
    for line in text.split("\n"):
        say(line)


def check_choice(kind: str, value: object, choices: Iterable[str]) -> None:
    """Raise UserError, with the closest match, unless `value` is one of `choices`.

    kind: what is chosen, as the beginning of the message, such as "data set".
    """
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return
    closest = closest_match(value, choices) if isinstance(value, str) else None
    hint = f"did you mean {closest!r}? Choose" if closest else "choose"
    raise UserError(f"{kind} {shown(value)} is unknown: {hint} one of {', '.join(choices)}")


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


def check_int(name: str, value: Any, least: int = 0, most: int = 2**63 - 1) -> int:
    """Return `value` as an int. Raises UserError unless it is one from `least` to `most`.

    The integers of NumPy are accepted; bools are not, and floats are not.
    """
    if type(value) is int or (isinstance(value, numbers.Integral) and not isinstance(value, bool)):
        number = operator.index(value)
        if least <= number <= most:
            return number
    bounds = f"from {least} to {most}" if most < 10**6 else f"{least} or more"
    raise UserError(f"{name} is {shown(value)}: it must be an integer, {bounds}")


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> None:
    """Raise UserError unless `value` is a finite number within the bounds that are given.

    `least` and `most` belong to the allowed numbers, `above` and `below` do not. hint: is
    added to the message. NumPy's numbers are accepted, and bools are not.
    """
    number = math.nan
    if type(value) is float:  # first, as it is fast
        number = value
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # an int of more than 308 digits
            number = float(value)
    if (
        math.isfinite(number)
        and (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    ):
        return
    bounds = {"from": least, "above": above, "to": most, "below": below}
    words = ["a number"]
    words += [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    raise UserError(f"{name} is {shown(value)}: it must be {' '.join(words)}{hint}")


def check_sizes(**sizes: Any) -> None:
    """Raise UserError unless all of these are integers from 1 to 2**31 - 1."""
    for name, size in sizes.items():
        check_int(name, size, least=1, most=2**31 - 1)


def check_bool(name: str, value: object) -> None:
    """Raise UserError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise UserError(f"{name} is {shown(value)}: it must be True or False")


def check_type(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """Raise UserError unless `value` is an instance of `kind`, which `wanted` describes."""
    if not isinstance(value, kind):
        raise UserError(f"{name} is {shown(value)}: it must be {wanted}")


def check_path(name: str, value: object) -> None:
    """Raise UserError unless `value` is the path of a file or folder."""
    check_type(name, value, (str, os.PathLike), "a path")


def check_function(name: str, value: object, wanted: str) -> None:
    """Raise UserError unless `value` can be called; `wanted` describes the function."""
    if not callable(value) or isinstance(value, type):
        raise UserError(f"{name} is {shown(value)}: it must be {wanted}")


def shown(value: Any) -> str:
    """Return a short text for `value`, on one line, for an error message."""
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if isinstance(value, type) or (dtype is not None and shape is None):
        return f"the type {getattr(value, '__name__', dtype)}"
    if shape and dtype is not None:
        return f"an array of {dtype} of shape {tuple(shape)}"
    if dtype is not None and hasattr(value, "item"):
        value = value.item()
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of the object, or for an int of thousands of digits
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:50]}..., of type {type(value).__name__}"
