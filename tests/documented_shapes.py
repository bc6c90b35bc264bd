"""Read the shapes in docstrings such as `x (..., I), w (I, O)  ->  y (..., O), cache.`"""

import inspect
import re
from dataclasses import dataclass, replace
from fractions import Fraction

TOKEN = re.compile(r"\d+|[A-Za-z]\w*|[-+*/]")
# Names directly before a pair of parentheses: "q, k, v (B, h, N, E)". A call such as f(x)
# has no space there, so it is not taken for a shape.
GROUP = re.compile(r"(?:(\w+(?:, \w+)*) )?(?<!\w)\(([^()]*)\)(,? or None)?")


@dataclass(frozen=True)
class Arrays:
    """Arrays of one documented shape, such as q, k, v (B, h, N, E).

    others: further shapes that are allowed, as in "rotation (N, E/2, 2) or (B, 1, N, E/2, 2)".
    """

    names: tuple[str, ...]
    shape: tuple[str, ...]
    or_none: bool
    others: tuple[tuple[str, ...], ...] = ()

    @property
    def shapes(self):
        """All shapes that are allowed."""
        return (self.shape, *self.others)


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs that the first sentence of a docstring documents."""

    inputs: list[Arrays]
    outputs: list[Arrays]
    cache: bool


def read_signature(f, known):
    """Return the Signature of a function's docstring, or None if it has no arrow.

    known: the letters and names that stand for sizes.
    """
    first = (inspect.getdoc(f) or "").split("\n\n")[0].replace("\n", " ")
    first = first.split("    ")[0]  # a formula may stand behind the shapes
    if "  ->  " not in first:
        return None
    left, right = first.split("  ->  ")
    outputs = read_arrays(right, known)
    return Signature(read_arrays(left, known), outputs, re.search(r"\bcache\b", right) is not None)


def read_arrays(text, known):
    """Return the Arrays in a text, in its order."""
    found = []
    for names, inside, or_none in GROUP.findall(text):
        shape = [item.strip() for item in inside.split(",") if item.strip()]
        if inside == "a scalar":
            shape = []
        elif not shape or not all(is_size(item, known) for item in shape):
            continue  # a remark in parentheses
        if names == "or":
            found[-1] = replace(found[-1], others=(*found[-1].others, tuple(shape)))
            continue
        names = tuple(names.split(", ")) if names else ("",)
        found.append(Arrays(names, tuple(shape), bool(or_none)))
    return found


def is_size(text, known):
    """Return whether a text is the size of an axis, or `...`."""
    if text == "...":
        return True
    return all(
        TOKEN.sub("", part).strip() == ""
        and all(t in known for t in TOKEN.findall(part) if t[0].isalpha())
        for part in text.split(" or ")
    )


def evaluate(text, sizes):
    """Return the value of an expression such as `H/P1 * W/P2` or `3D`.

    Products come before sums, a product may lack its sign, and division must be exact.
    """
    total, product, sign, divide = Fraction(0), None, 1, False
    for token in TOKEN.findall(text):
        if token in "+-":
            total += sign * product
            product, sign = None, 1 if token == "+" else -1
        elif token in "*/":
            divide = token == "/"
        else:
            value = Fraction(token) if token.isdigit() else Fraction(sizes[token])
            product = value if product is None else product / value if divide else product * value
            divide = False
    total += sign * product
    if total.denominator != 1:
        raise ValueError(f"{text} is {total}, not an integer")
    return int(total)


def evaluate_shape(shape, sizes, lead, second=False):
    """Return the numbers of a documented shape.

    lead: the axes for `...`; second: of "n or m", take m.
    """
    result = ()
    for item in shape:
        if item == "...":
            result += lead
        else:
            result += (evaluate(item.split(" or ")[-1 if second else 0], sizes),)
    return result
