"""Reading the fields of a request, with one-line errors for what is wrong."""

import json
import math
from typing import Any, NoReturn

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError, is_real_number


def read_json(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a request. Raises ValueError for anything else."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        found = json.loads(data.decode(), parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is not an object")
    return found


def integer(fields: dict[str, Any], name: str, low: int, high: int) -> int:
    """Return an integer from low to high."""
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{name} must be an integer from {low} to {high}")
    return value


def positive(fields: dict[str, Any], name: str, high: float) -> float:
    """Return a number above 0, up to high."""
    value = fields.get(name)
    number = float(value) if is_real_number(value) else math.nan  # type: ignore[arg-type]
    if not 0 < number <= high:
        raise UserError(f"{name} must be a number above 0, at most {high:g}")
    return number


def several(fields: dict[str, Any], name: str, kind: type) -> list[Any]:
    """Return a list of integers or of strings, empty if the field is missing."""
    value = fields.get(name, [])
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise UserError(f"{name} must be a list of {kind.__name__}")
    return list(dict.fromkeys(value))


def pixels_of(fields: dict[str, Any], shape: tuple[int, ...]) -> Array:
    """Return the pixels as an array (H, W, C) uint8."""
    values = fields.get("pixels")
    size = math.prod(shape)
    if (
        not isinstance(values, list)
        or len(values) != size
        or not all(type(v) is int and 0 <= v <= 255 for v in values)
    ):
        raise UserError(f"pixels must be {size} integers from 0 to 255")
    return np.array(values, np.uint8).reshape(shape)
