"""Property tests for layers, ours and yours: Hypothesis strategies and assertions.

The strategies draw shapes and seeds. Arrays are then filled by a generator from a drawn
seed, since Hypothesis' own arrays() fills most of an array with one constant.

The assertions take a pure pair: `forward(*inputs) -> y, cache` and `backward(dy, cache)
-> a gradient for each input`. `check_pair_contract` makes all of them.
`check_layer_contract` does so for a layer with weights:

    @settings(deadline=None)  # an example may take longer than Hypothesis' 200 ms
    @given(shapes_BND(), seeds)
    def test_my_norm(shape, seed):
        check_layer_contract(MyNorm(shape[-1]), normal(shape, seed), seed)

It needs Hypothesis: pip install 'numpyvit[test]'.

A drawn shape may be as small as (1, 1, 1), where the gradient of a norm over one feature
is zero, and that of a ReLU may be. A gradient that is zero and should be fails only if
it is zero in every example that is drawn. If it is meant to be, declare it by
zero=["x"].
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import currently_in_test_context, reject
from hypothesis import strategies as st

from .backend.arrays import Array
from .config import GELU, POOLING, POSITIONS, ViTConfig
from .gradcheck import Backward, Forward, check_function, noisy_pair
from .gradcheck.contract import layouts, linearity, purity, reentrancy
from .gradcheck.elsewhere import EXAMPLES, subject_of, without_zeros, zero_so_far
from .gradcheck.layer import overwriting
from .gradcheck.pair import Pair
from .gradcheck.properties import batch_splits, copies, dtypes
from .gradcheck.values import close, normal

__all__ = [
    "assert_batch_splits",
    "assert_dtype_kept",
    "assert_gradients",
    "assert_linear_backward",
    "assert_pure",
    "assert_reentrant",
    "check_layer_contract",
    "check_pair_contract",
    "close",
    "linear_args_BIO",
    "normal",
    "seeds",
    "shapes_BHWC",
    "shapes_BND",
    "shapes_BNhE",
    "vit_configs",
]

seeds = st.integers(0, 2**32 - 1)


def shapes_BND(
    max_B: int = 3, max_N: int = 4, max_D: int = 6
) -> st.SearchStrategy[tuple[int, int, int]]:
    """Draw (images, tokens, width), each at least 1."""
    return st.tuples(st.integers(1, max_B), st.integers(1, max_N), st.integers(1, max_D))


def shapes_BNhE(
    max_B: int = 3, max_N: int = 4, max_h: int = 3, max_E: int = 3
) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw (images, tokens, heads, width of a head), each at least 1."""
    return st.tuples(
        st.integers(1, max_B), st.integers(1, max_N), st.integers(1, max_h), st.integers(1, max_E)
    )


@st.composite
def shapes_BHWC(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Draw ((images, height, width, channels), (patch height, patch width)).

    The height and width of the image are multiples of those of the patch.
    """
    B, C, p1, p2, rows, columns = draw(st.tuples(*[st.integers(1, 3)] * 6))
    return (B, rows * p1, columns * p2, C), (p1, p2)


@st.composite
def linear_args_BIO(
    draw: st.DrawFn, max_B: int = 3, max_I: int = 4, max_O: int = 4
) -> tuple[Array, Array, Array]:
    """Draw x (B, I), w (I, O), b (O,)."""
    B, I, O, seed = draw(
        st.tuples(st.integers(1, max_B), st.integers(1, max_I), st.integers(1, max_O), seeds)
    )
    return normal((B, I), seed), normal((I, O), seed + 1), normal((O,), seed + 2)


@st.composite
def vit_configs(draw: st.DrawFn, dropout: bool = False) -> ViTConfig:
    """Draw the configuration of a tiny model; dropout=True adds all kinds of dropout.

    norm_eps is large, since two or three features are often nearly equal, and a
    LayerNorm over them without it is almost a step function.
    """
    (_, H, W, C), patch = draw(shapes_BHWC())
    heads = draw(st.integers(1, 2))
    positions = draw(st.sampled_from(POSITIONS))
    E = 4 if positions == "rotary" else draw(st.integers(1, 3))
    p = st.sampled_from([0.0, 0.3]) if dropout else st.just(0.0)
    return ViTConfig(
        (H, W),
        patch,
        C,
        classes=draw(st.integers(1, 4)),
        width=heads * E,
        heads=heads,
        depth=draw(st.integers(1, 2)),
        mlp_width=draw(st.integers(1, 4)),
        pooling=draw(st.sampled_from(POOLING)),
        positions=positions,
        gelu=draw(st.sampled_from(GELU)),
        head_hidden=draw(st.sampled_from([0, 3])),
        qkv_bias=draw(st.booleans()),
        norm_eps=0.1,
        dropout=draw(p),
        attention_dropout=draw(p),
        drop_path=draw(p),
        patch_overlap=draw(st.integers(0, min(patch))),
    )


def assert_gradients(forward: Forward, backward: Backward, *inputs: Array, **options: Any) -> None:
    """Assert that the gradients are right. options: as for gradcheck.check_function."""
    report = check_function(forward, backward, *inputs, **options)
    assert report, f"\n{report}"


def assert_none(faults: list[str]) -> None:
    """Assert that there are no faults; the message lists them."""
    assert not faults, "; ".join(faults)


def assert_linear_backward(
    forward: Forward, backward: Backward, *inputs: Array, seed: int = 0
) -> None:
    """Assert that backward is linear in dy, and gives the same bits at a second call.

    backward(2 a - 3 b) = 2 backward(a) - 3 backward(b).
    """
    assert_none(linearity(Pair(forward, backward, inputs), seed))


def assert_reentrant(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """Assert that a backward does not depend on calls made since its forward.

    Those are a forward at other inputs, and its backward.
    """
    assert_none(reentrancy(Pair(forward, backward, inputs), seed))


def assert_batch_splits(
    forward: Forward, backward: Backward, x: Array, *weights: Array, seed: int = 0
) -> None:
    """Assert that a batch can be computed in two parts, wherever it is cut.

    The y and dx of the parts are those of the whole batch, and the gradients of the
    weights add up to those of the whole batch. If the functions accept an empty batch,
    one of the parts may also be empty.
    """
    assert_none(batch_splits(Pair(forward, backward, [x, *weights]), seed))


def assert_pure(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """Assert that nothing but the return values tells that the functions were called.

    They write to none of their arguments, the cache included, and gradients share no
    memory. Inputs that are read-only, not contiguous or in Fortran order give the same
    results, and so does a cache that was pickled.
    """
    pair = Pair(forward, backward, inputs)
    assert_none(purity(pair, seed))
    assert_none(copies(pair, seed))
    assert_none(layouts(pair, seed))


def assert_dtype_kept(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """Assert that y and the gradients have the dtype of the inputs.

    The dtypes are float32, float64 and longdouble. The values are those of float64, up
    to rounding in float32.
    """
    assert_none(dtypes(Pair(forward, backward, inputs), seed))


def check_pair_contract(
    forward: Forward,
    backward: Backward,
    *inputs: Array,
    seed: int = 0,
    gradients: bool = True,
    splits: bool = True,
    names: Sequence[str] | None = None,
    zero: Sequence[str] = (),
    tolerance: float | None = None,
) -> None:
    """Make all assertions above for a pure pair of functions.

    gradients=False leaves out the comparison with differences; splits=False leaves out
    `assert_batch_splits`, for functions whose first input is not a batch of independent
    images. names, zero, tolerance: as for gradcheck.check_function.

    A gradient that is zero everywhere, and rightly so, is no failure if it is not zero
    at other inputs, or, under @given, in another example. If it is zero at all of them,
    declare it by zero=[name].

    A function that draws random numbers is made pure by giving it a new generator in
    each call. Its mask is drawn for the whole batch, so the batch cannot be split:

        def forward(x):
            return dropout_forward(x, 0.5, np.random.default_rng(seed))

        check_pair_contract(forward, dropout_backward, x, seed=seed, splits=False)
    """
    pair = Pair(forward, backward, inputs, names)
    subject = subject_of(forward)
    if _is_undecided(pair, inputs, subject, seed, gradients, splits, zero, tolerance):
        reject()  # this example counts neither for nor against the pair


def check_layer_contract(
    layer: Any,
    x: Array,
    seed: int = 0,
    gradients: bool = True,
    splits: bool = True,
    zero: Sequence[str] = (),
    tolerance: float | None = None,
    **options: Any,
) -> None:
    """Make all assertions above for a layer with weights, at noisy weights.

    layer: an object with `forward(params, x) -> y, cache` and `backward(dy, cache,
    grads) -> dx`, which adds the gradients of the weights to grads. options are passed
    to forward, as by gradcheck.layer_pair. The rest is as for `check_pair_contract`;
    the input is named "x", and the weights as in `Buffer.names()`.
    """
    forward, backward, names, weights = noisy_pair(layer, seed, **options)
    inputs = [np.asarray(x, np.float64), *weights]
    pair = Pair(forward, backward, inputs, names)
    subject = subject_of(type(layer))
    undecided = _is_undecided(pair, inputs, subject, seed, gradients, splits, zero, tolerance)
    assert_none(overwriting(layer, x, seed, **options))
    if undecided:
        reject()


def _is_undecided(
    pair: Pair,
    inputs: Sequence[Array],
    subject: str,
    seed: int,
    gradients: bool,
    splits: bool,
    zero: Sequence[str],
    tolerance: float | None,
) -> bool:
    """Make all assertions above for a pair. subject: what it is, as by `subject_of`.

    Returns whether a gradient has been zero in every example so far.
    """
    undecided = False
    if gradients:
        functions = pair.to_forward, pair.to_backward
        report = check_function(
            *functions, *inputs, names=pair.names, zero=zero, seed=seed, tolerance=tolerance
        )
        assert without_zeros(report), f"\n{report}"
        for name, count in zero_so_far(pair, report, subject, seed, tolerance).items():
            may_be_right = currently_in_test_context() and count < EXAMPLES
            assert may_be_right, f"\n{report}\n({name}: zero in each of {count} examples)"
            undecided = True
    else:  # check_function checks these, too
        for check in (purity, linearity, reentrancy, layouts):
            assert_none(check(pair, seed))
    assert_none(copies(pair, seed))
    assert_none(dtypes(pair, seed))
    if splits:
        assert_none(batch_splits(pair, seed))
    return undecided
