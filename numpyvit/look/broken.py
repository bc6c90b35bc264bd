"""Backward functions with a mistake, to show what a wrong gradient looks like.

Each mistake is a common one. It is made by replacing a piece of the function's source,
so that everything that calls the function runs the broken code while `broken` is
active.
"""

import ast
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

from ..errors import check_choice
from ..layers.attention import attention_backward
from ..layers.layernorm import layernorm_backward
from ..layers.softmax import softmax_backward

# The function, a piece of its source, and what stands there instead.
MISTAKES: dict[str, tuple[Callable[..., Any], str, str]] = {
    # only the diagonal of softmax's matrix of derivatives
    "softmax": (softmax_backward, "dy - row_dot(dy, y)", "dy * (1 - y)"),
    # without the factor 1 / √E
    "scale": (attention_backward, "dr = ds * E**-0.5", "dr = ds.copy()"),
    # without the term that comes from the mean
    "mean": (layernorm_backward, "dx -= row_mean(g)", "dx -= 0"),
}
# Whoever runs a backward pass that must be right, while `broken` may be in use in
# another thread, holds this lock.
BACKWARD = threading.RLock()


@contextmanager
def broken(name: str | None) -> Iterator[None]:
    """Make one of the MISTAKES inside a `with` block, in all threads; None makes none.

    BACKWARD is held inside the block. Raises UserError for an unknown name.
    """
    with BACKWARD:
        if name is None:
            yield
            return
        check_choice("mistake", name, MISTAKES)
        function: Any = inspect.unwrap(MISTAKES[name][0])
        right = function.__code__
        function.__code__ = broken_code(name)
        try:
            yield
        finally:
            function.__code__ = right


@functools.cache
def broken_code(name: str) -> CodeType:
    """Return the code of a function with its mistake, at the same line numbers."""
    function, piece, instead = MISTAKES[name]
    code = inspect.unwrap(function).__code__
    source = Path(code.co_filename).read_text(encoding="utf-8")
    if source.count(piece) != 1:
        raise AssertionError(f"{piece!r} does not stand once in {code.co_filename}")
    tree = ast.parse(source.replace(piece, instead))
    module = compile(tree, code.co_filename, "exec")
    found = [c for c in module.co_consts if isinstance(c, CodeType) and c.co_name == code.co_name]
    return found[0]
