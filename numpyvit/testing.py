"""Property tests for layers, ours and yours: Hypothesis strategies and assertions.

The strategies draw shapes and seeds. Arrays are then filled by a generator from a drawn
seed, since Hypothesis' own arrays() fills most of an array with one constant.

The assertions take a pure pair: `forward(*inputs) -> y, cache` and `backward(dy, cache)
-> a gradient for each input`. `check_pair_contract` makes all of them.
`check_layer_contract` does so for a layer with weights:

    @given(shapes_BND(), seeds)
    def test_my_norm(shape, seed):
        check_layer_contract(MyNorm(shape[-1]), normal(shape, seed), seed)

A drawn shape may be as small as (1, 1, 1). If the gradient of an input is zero
everywhere at such a shape, as that of a norm over one feature, declare it by
zero=["x"], or draw larger shapes.
"""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .backend.arrays import Array
from .config import GELU, POOLING, POSITIONS, ViTConfig
from .gradcheck import Backward, Forward, check_function, noisy_pair
from .gradcheck.contract import linearity, purity, reentrancy
from .gradcheck.pair import Pair
from .gradcheck.values import close, host, normal, random_dy

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
    """Assert that a second forward before a backward does not change its bits."""
    assert_none(reentrancy(Pair(forward, backward, inputs), seed))


def assert_batch_splits(
    forward: Forward, backward: Backward, x: Array, *weights: Array, seed: int = 0
) -> None:
    """Assert that a batch can be computed in two parts, wherever it is cut.

    The y and dx of the parts, one of which may be empty, are those of the whole batch,
    and the gradients of the weights add up to those of the whole batch.
    """
    pair = Pair(forward, backward, [x, *weights])

    def run(part: slice) -> tuple[Array, list[Array]]:
        y, cache = pair.forward([pair.inputs[0][part], *pair.inputs[1:]])
        return y, [host(g) for g in pair.backward(dy[part], cache)]

    dy = random_dy(pair.forward(pair.inputs)[0].shape, seed)
    y, whole = run(slice(None))
    for cut in range(len(x) + 1):
        y1, first = run(slice(None, cut))
        y2, second = run(slice(cut, None))
        for y_part, wanted in ((y1, y[:cut]), (y2, y[cut:])):
            assert close(y_part, wanted), f"y of a part (cut at {cut}) is not that part of y"
        dx = np.concatenate([first[0], second[0]])
        assert close(dx, whole[0]), f"dx of the parts (cut at {cut}) is not dx of the batch"
        for name, a, b, g in zip(pair.names[1:], first[1:], second[1:], whole[1:], strict=True):
            assert close(a + b, g), (
                f"the gradients of {name} of the parts (cut at {cut}) do not add up"
            )


def assert_pure(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """Assert that nothing but the return values tells that the functions were called.

    They write to none of their arguments, the cache included, and gradients share no
    memory. Inputs that are read-only and not contiguous give the same results, and so
    does a cache that was pickled.
    """
    pair = Pair(forward, backward, inputs)
    assert_none(purity(pair, seed))
    y, cache = pair.forward(pair.inputs)
    dy = random_dy(y.shape, seed)
    before = pickle.dumps(cache)
    grads = [host(g) for g in pair.backward(dy, cache)]
    assert pickle.dumps(cache) == before, "backward changed its cache"

    y_strided, cache_strided = pair.forward([strided(x) for x in pair.inputs])
    assert close(y_strided, y), "y differs for non-contiguous inputs"
    copied = pickle.loads(before)  # pickling also makes views contiguous
    for how, other_dy, other_cache in (
        ("for non-contiguous inputs", strided(dy), cache_strided),
        ("when the cache is pickled", dy, copied),
    ):
        others = pair.backward(other_dy, other_cache)
        for name, found, wanted in zip(pair.names, others, grads, strict=True):
            assert close(host(found), wanted), f"the gradient of {name} differs {how}"


def strided(x: Array) -> Array:
    """Return a read-only array with the values of x and gaps in memory between them."""
    wide = np.full((*x.shape, 2), np.nan, x.dtype)
    wide[..., 0] = x
    wide.flags.writeable = False
    return wide[..., 0]


def assert_dtype_kept(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """Assert that y and the gradients have the dtype of the inputs.

    The dtypes are float32, float64 and longdouble.
    """
    pair = Pair(forward, backward, inputs)
    for dtype in (np.float32, np.float64, np.longdouble):
        y, cache = pair.forward([x.astype(dtype) for x in pair.inputs])
        assert y.dtype == dtype, f"y is {y.dtype} for {np.dtype(dtype)} inputs"
        grads = pair.backward(random_dy(y.shape, seed, dtype), cache)
        for name, g in zip(pair.names, grads, strict=True):
            assert g.dtype == dtype, (
                f"the gradient of {name} is {g.dtype} for {np.dtype(dtype)} inputs"
            )


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

    A function that draws random numbers is made pure by giving it a new generator in
    each call. Its mask is drawn for the whole batch, so the batch cannot be split:

        def forward(x):
            return dropout_forward(x, 0.5, np.random.default_rng(seed))

        check_pair_contract(forward, dropout_backward, x, seed=seed, splits=False)
    """
    if gradients:
        assert_gradients(
            forward, backward, *inputs, names=names, zero=zero, seed=seed, tolerance=tolerance
        )
    assert_linear_backward(forward, backward, *inputs, seed=seed)
    assert_pure(forward, backward, *inputs, seed=seed)
    assert_dtype_kept(forward, backward, *inputs, seed=seed)
    assert_reentrant(forward, backward, *inputs, seed=seed)
    if splits:
        assert_batch_splits(forward, backward, *inputs, seed=seed)


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
    grads) -> dx`. options are passed to forward, as by gradcheck.layer_pair. The rest
    is as for `check_pair_contract`; the input is named "x", and the weights as in
    `Buffer.names()`.
    """
    forward, backward, names, weights = noisy_pair(layer, seed, **options)
    check_pair_contract(
        forward,
        backward,
        np.asarray(x, np.float64),
        *weights,
        seed=seed,
        gradients=gradients,
        splits=splits,
        names=names,
        zero=zero,
        tolerance=tolerance,
    )
