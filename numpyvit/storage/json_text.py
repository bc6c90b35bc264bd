"""Reading JSON without trust: every number is finite and can be used as a float."""

import json
import math
from typing import Any

MOST_DIGITS = 18  # of an integer: below 2**63, so that NumPy can hold it, too


def parse_json(data: bytes) -> Any:
    """Return the value that the JSON text `data` describes.

    Raises ValueError for a text that is not JSON, and for what Python's parser accepts
    but a program would stumble over later: NaN and Infinity, a number beyond the range
    of floats, an integer of more than 18 digits, the same name twice in one object, and
    nesting that is deeper than Python's stack.
    """
    try:
        return json.loads(
            data,
            parse_constant=parse_float,
            parse_float=parse_float,
            parse_int=parse_int,
            object_pairs_hook=unique_names,
        )
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def parse_float(text: str) -> float:
    """Return the number. Raises ValueError if it is NaN or infinite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is not finite")
    return number


def parse_int(text: str) -> int:
    """Return the integer. Raises ValueError if it has too many digits."""
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"the integer {text[:20]}... has more than {MOST_DIGITS} digits")
    return int(text)


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's pairs as a dict. Raises ValueError if a name occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found
