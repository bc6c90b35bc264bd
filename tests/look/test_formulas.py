"""A formula that was read from a statement gives what the statement computes."""

import ast
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.backend.arrays import as_rows, contiguous, get_xp
from numpyvit.backend.erf import erf
from numpyvit.backend.ops import col_sum, matmul, row_dot, row_mean, row_sum, transposed
from numpyvit.look.evaluate import evaluate
from numpyvit.look.formulas import Symbol, compiled, run
from numpyvit.look.trace import step_tree
from numpyvit.testing import close, normal, seeds

MODULE = {
    "np": np,
    "as_rows": as_rows,
    "contiguous": contiguous,
    "get_xp": get_xp,
    "erf": erf,
    "col_sum": col_sum,
    "matmul": matmul,
    "row_dot": row_dot,
    "row_mean": row_mean,
    "row_sum": row_sum,
    "transposed": transposed,
}
# x and y are (2, 3, 4), w is (4, 5), and n is 3.
STATEMENTS = [
    "r = x + y",
    "r = 2 * x - y / 3 + (-x)",
    "r = 1 / get_xp(x).sqrt(x * x + 0.5)",
    "r = get_xp(x).exp(x - x.max(-1, keepdims=True))",
    "r = get_xp(x).tanh(x) + np.log(x * x + 1)",
    "r = erf(x)",
    "r = x @ w",
    "r = x[0] @ y[1].T",
    "r = matmul(as_rows(x), w).reshape(*x.shape[:-1], w.shape[1])",
    "r = x.swapaxes(-1, -2) @ y",
    "r = transposed(x, 0.5)",
    "r = row_sum(x) + row_mean(x) * row_dot(x, y)",
    "r = col_sum(x)",
    "r = x.sum(1) / x.shape[1]",
    "r = x.sum()",
    "r = x.sum(0).max(-1)",
    "r = x[:, 1:].transpose(2, 0, 1).reshape(4, -1)",
    "r = x[..., ::2] * y[..., 1::2]",
    "r = x[:, None, ..., 0]",
    "r = contiguous(x.T)",
    "r = get_xp(x).stack([x, y, 2 * x], axis=1)",
    "r = np.concatenate([x, y[:, :1]], axis=1)",
    "r = np.broadcast_to(w[0], (2, 3, 5)) * 2",
    "r = np.roll(x, 1, 2) + np.flip(y, 0)",
    "r = np.pad(x, ((0, 0), (1, 2), (0, 0)))",
    "r = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (1, 2))[:, ::2]",
    "r, s = x * 2, y",
    "r = x * (n if n > 2 else 0)",
    "r = x.astype(x.dtype) * x.itemsize",
    "x += y",
    "x *= 0.5",
    "x[:, 1:] = y[:, :2]",
    "x[..., 0] += 3",
    "x[:, [2, 0]] -= y[:, :2]",
    "x[...] = 7",
    "np.multiply(x, y, out=x)",
    "get_xp(x).tanh(x, out=x)",
    "return x + 1",
    "return x, (y * 2, n)",
]


def values_after(statement, arrays):
    """Run a statement with NumPy and return its variables."""
    names = {name: x.copy() for name, x in arrays.items()} | {"n": 3}
    exec(compiled(ast.parse(statement).body[0]), dict(MODULE), names)
    return names


@pytest.mark.parametrize("statement", STATEMENTS)
@given(seed=seeds)
def test_a_formula_gives_what_the_statement_computes(statement, seed):
    shapes = {"x": (2, 3, 4), "y": (2, 3, 4), "w": (4, 5)}
    arrays = {name: normal(shape, seed + i) for i, (name, shape) in enumerate(shapes.items())}
    symbols = {
        name: Symbol(step_tree(i, x.shape), x.dtype) for i, (name, x) in enumerate(arrays.items())
    }
    made = run(compiled(ast.parse(statement).body[0]), {**symbols, "n": 3}, MODULE)
    wanted = values_after(statement, arrays)
    assert set(made) == set(wanted)
    compare(made, wanted, list(arrays.values()))


def compare(made, wanted, steps):
    """Assert that the Symbols among the variables stand for the arrays of the same names."""
    for name, value in wanted.items():
        found = made[name]
        if isinstance(value, tuple):
            compare(dict(enumerate(found)), dict(enumerate(value)), steps)
        elif isinstance(value, np.ndarray | np.floating):
            tree = json.loads(json.dumps(found.tree))
            assert found.shape == value.shape
            assert (found.ndim, found.size) == (value.ndim, value.size)
            assert close(evaluate(tree, steps), value)
        else:
            assert found == value


@given(
    st.lists(
        st.sampled_from(["x += y", "x[:, 0] = y[:, 1]", "x *= x", "y = x[:, ::-1]"]), max_size=6
    )
)
def test_statements_can_follow_each_other(statements):
    arrays = {"x": normal((2, 3, 4), 0), "y": normal((2, 3, 4), 1)}
    names = {name: Symbol(step_tree(i, x.shape)) for i, (name, x) in enumerate(arrays.items())}
    wanted = {name: x.copy() for name, x in arrays.items()}
    for statement in statements:
        if statement.startswith("y"):  # a view in NumPy, which later changes would reach
            statement += " + 0"
        names = run(compiled(ast.parse(statement).body[0]), names, MODULE)
        exec(statement, dict(MODULE), wanted)
    compare(names, wanted, list(arrays.values()))


@pytest.mark.parametrize(
    "statement",
    [
        "r = np.cumsum(x)",
        "r = np.add.reduce(x)",
        "r = np.linalg.norm(x)",
        "r = np.sort(x)",
        "r = np.sum(x, 0)",
        "r = np.pad(x, 1, constant_values=3)",
        "r = x + unknown",
        "r = x.argmax()",
        "r = x + np.ones(4)",
        "r = x.mean(0)",
    ],
)
def test_what_cannot_be_followed_is_an_error_and_not_a_wrong_formula(statement):
    symbols = {"x": Symbol(step_tree(0, (2, 3, 4)))}
    with pytest.raises((TypeError, AttributeError, NotImplementedError, NameError)):
        run(compiled(ast.parse(statement).body[0]), symbols, MODULE)


@pytest.mark.parametrize(
    ("statement", "is_regular"),
    [("r = x.T", True), ("r = x[:, ::-1]", True), ("r = x[:, [0, 2, 1]]", False)],
)
def test_a_regular_view_is_described_by_strides(statement, is_regular):
    symbols = {"x": Symbol(step_tree(0, (2, 3)))}
    tree = run(compiled(ast.parse(statement).body[0]), symbols, MODULE)["r"].tree
    assert tree["op"] == "gather"
    assert ("strides" in tree) == is_regular == ("index" not in tree)
