"""Property tests for layers, ours and yours: Hypothesis strategies that draw shapes and seeds, and assertions.

The assertions take a pure pair: `forward(*inputs) -> y, cache` and `backward(dy, cache) -> a gradient for each input`; a
layer with weights becomes one by gradcheck.layer_pair, and check_layer_contract runs all of them on it. Arrays are
filled by a generator from a drawn seed: Hypothesis' own arrays() fills most of an array with one constant.

    @given(shapes_BND(), seeds)
    def test_my_norm(shape, seed):
        check_layer_contract(MyNorm(shape[-1]), normal(shape, seed), seed)
"""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .backend.arrays import Array
from .gradcheck import Backward, Forward, check_function, noisy_pair
from .gradcheck.contract import Pair, close, host, linearity, normal, purity, random_dy, reentrancy
from .vit import ViTConfig

__all__ = [
    "assert_batch_splits",
    "assert_dtype_kept",
    "assert_gradients",
    "assert_linear_backward",
    "assert_pure",
    "assert_reentrant",
    "check_layer_contract",
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
    """(images, tokens, width), each from 1."""
    return st.tuples(st.integers(1, max_B), st.integers(1, max_N), st.integers(1, max_D))


def shapes_BNhE(
    max_B: int = 3, max_N: int = 4, max_h: int = 3, max_E: int = 3
) -> st.SearchStrategy[tuple[int, ...]]:
    """(images, tokens, heads, width of a head), each from 1."""
    return st.tuples(
        st.integers(1, max_B), st.integers(1, max_N), st.integers(1, max_h), st.integers(1, max_E)
    )


@st.composite
def shapes_BHWC(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """((images, height, width, channels), (patch height, patch width)), the image a whole number of patches."""
    B, C, p1, p2, rows, columns = draw(st.tuples(*[st.integers(1, 3)] * 6))
    return (B, rows * p1, columns * p2, C), (p1, p2)


@st.composite
def linear_args_BIO(
    draw: st.DrawFn, max_B: int = 3, max_I: int = 4, max_O: int = 4
) -> tuple[Array, Array, Array]:
    """x (B, I), w (I, O), b (O,)."""
    B, I, O, seed = draw(
        st.tuples(st.integers(1, max_B), st.integers(1, max_I), st.integers(1, max_O), seeds)
    )
    return normal((B, I), seed), normal((I, O), seed + 1), normal((O,), seed + 2)


@st.composite
def vit_configs(draw: st.DrawFn, dropout: bool = False) -> ViTConfig:
    """Tiny models in every option; with dropout=True, in every kind of dropout too. norm_eps is large: over two or three
    features, which are often nearly equal, a layernorm without it is all but a step."""
    (_, H, W, C), patch = draw(shapes_BHWC())
    heads, positions = (
        draw(st.integers(1, 2)),
        draw(st.sampled_from(["learned", "sinusoidal", "rotary", "none"])),
    )
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
        pooling=draw(st.sampled_from(["cls", "mean"])),
        positions=positions,
        gelu=draw(st.sampled_from(["tanh", "erf"])),
        head_hidden=draw(st.sampled_from([0, 3])),
        qkv_bias=draw(st.booleans()),
        norm_eps=0.1,
        dropout=draw(p),
        attention_dropout=draw(p),
        drop_path=draw(p),
        patch_dropout=draw(p),
        patch_overlap=draw(st.integers(0, min(patch))),
    )


def assert_gradients(forward: Forward, backward: Backward, *inputs: Array, **options: Any) -> None:
    """The gradients are right; options as for gradcheck.check_function."""
    report = check_function(forward, backward, *inputs, **options)
    assert report, f"\n{report}"


def assert_none(faults: list[str]) -> None:
    assert not faults, "; ".join(faults)


def assert_linear_backward(
    forward: Forward, backward: Backward, *inputs: Array, seed: int = 0
) -> None:
    """backward(2 a - 3 b) = 2 backward(a) - 3 backward(b), and the same dy twice gives the same bits."""
    assert_none(linearity(Pair(forward, backward, inputs), seed))


def assert_reentrant(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """Two forwards, then their backwards in the same order: each as if it had been alone."""
    assert_none(reentrancy(Pair(forward, backward, inputs), seed))


def assert_batch_splits(
    forward: Forward, backward: Backward, x: Array, *weights: Array, seed: int = 0
) -> None:
    """A batch cut in two (an empty part included) gives the same y and dx, and weight gradients that add up to the whole."""
    pair = Pair(forward, backward, [x, *weights])

    def run(part: slice) -> tuple[Array, list[Array]]:
        y, cache = pair.forward([pair.inputs[0][part], *pair.inputs[1:]])
        return y, [host(g) for g in pair.backward(dy[part], cache)]

    dy = random_dy(pair.forward(pair.inputs)[0].shape, seed)
    y, whole = run(slice(None))
    for cut in range(len(x) + 1):
        (y1, first), (y2, second) = run(slice(None, cut)), run(slice(cut, None))
        for y_part, wanted in ((y1, y[:cut]), (y2, y[cut:])):
            assert close(y_part, wanted), f"y of a part (cut at {cut}) is not that part of y"
        assert close(np.concatenate([first[0], second[0]]), whole[0]), (
            f"dx of the parts (cut at {cut}) is not dx"
        )
        for name, a, b, g in zip(pair.names[1:], first[1:], second[1:], whole[1:], strict=True):
            assert close(a + b, g), (
                f"the gradients of {name} of the parts (cut at {cut}) do not add up"
            )


def assert_pure(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """Nothing given is written to; gradients share no memory; read-only and non-contiguous inputs do as well; the cache is
    left as it was, and survives pickling."""
    pair = Pair(forward, backward, inputs)
    assert_none(purity(pair, seed))
    y, cache = pair.forward(pair.inputs)
    dy, before = random_dy(y.shape, seed), pickle.dumps(cache)
    grads = [host(g) for g in pair.backward(dy, cache)]
    assert pickle.dumps(cache) == before, "backward changed its cache"

    def strided(x: Array) -> Array:  # same values, gaps between, read-only
        wide = np.full((*x.shape, 2), np.nan, x.dtype)
        wide[..., 0] = x
        wide.flags.writeable = False
        return wide[..., 0]

    y_strided, cache_strided = pair.forward([strided(x) for x in pair.inputs])
    assert close(y_strided, y), "y differs for non-contiguous inputs"
    copied = pickle.loads(before)  # which makes views contiguous
    for how, d, c in (
        ("for non-contiguous inputs", strided(dy), cache_strided),
        ("when the cache is pickled", dy, copied),
    ):
        for name, a, b in zip(pair.names, pair.backward(d, c), grads, strict=True):
            assert close(host(a), b), f"the gradient of {name} differs {how}"


def assert_dtype_kept(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """float32, float64 and longdouble in: the same out, in y and in every gradient."""
    pair = Pair(forward, backward, inputs)
    for dtype in (np.float32, np.float64, np.longdouble):
        y, cache = pair.forward([x.astype(dtype) for x in pair.inputs])
        assert y.dtype == dtype, f"y is {y.dtype} for {np.dtype(dtype)} inputs"
        for name, g in zip(
            pair.names, pair.backward(random_dy(y.shape, seed, dtype), cache), strict=True
        ):
            assert g.dtype == dtype, (
                f"the gradient of {name} is {g.dtype} for {np.dtype(dtype)} inputs"
            )


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
    """All of the above, for a layer with `forward(params, x)` and `backward(dy, cache, grads)`, at noisy weights.

    splits=False where an image's output depends on the others in the batch (dropout's mask does). zero: weights whose
    gradient is meant to vanish. tolerance: as for gradcheck.check_function. options: to forward, as for layer_pair.
    """
    forward, backward, names, weights = noisy_pair(layer, seed, **options)
    inputs = [np.asarray(x, np.float64), *weights]
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
