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

from .backend import Array
from .gradcheck import Backward, Forward, as_tuple, check_function, noisy_pair
from .vit import ViTConfig

seeds = st.integers(0, 2**32 - 1)


def shapes_BND(max_B: int = 3, max_N: int = 4, max_D: int = 6) -> st.SearchStrategy[tuple[int, int, int]]:
    """(images, tokens, width), each from 1."""
    return st.tuples(st.integers(1, max_B), st.integers(1, max_N), st.integers(1, max_D))


def shapes_BNhE(max_B: int = 3, max_N: int = 4, max_h: int = 3, max_E: int = 3) -> st.SearchStrategy[tuple[int, ...]]:
    """(images, tokens, heads, width of a head), each from 1."""
    return st.tuples(st.integers(1, max_B), st.integers(1, max_N), st.integers(1, max_h), st.integers(1, max_E))


@st.composite
def shapes_BHWC(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """((images, height, width, channels), (patch height, patch width)), the image a whole number of patches."""
    B, C, p1, p2, rows, columns = draw(st.tuples(*[st.integers(1, 3)] * 6))
    return (B, rows * p1, columns * p2, C), (p1, p2)


@st.composite
def vit_configs(draw: st.DrawFn, dropout: bool = False) -> ViTConfig:
    """Tiny models in every option; with dropout=True, in every kind of dropout too. norm_eps is large: over two or three
    features, which are often nearly equal, a layernorm without it is all but a step."""
    (_, H, W, C), patch = draw(shapes_BHWC())
    heads = draw(st.integers(1, 2))
    p = st.sampled_from([0.0, 0.3]) if dropout else st.just(0.0)
    return ViTConfig(
        (H, W), patch, C, classes=draw(st.integers(1, 4)), width=heads * draw(st.integers(1, 3)), heads=heads,
        depth=draw(st.integers(1, 2)), mlp_width=draw(st.integers(1, 4)), pooling=draw(st.sampled_from(["cls", "mean"])),
        positions=draw(st.sampled_from(["learned", "sinusoidal", "none"])), gelu=draw(st.sampled_from(["tanh", "erf"])),
        head_hidden=draw(st.sampled_from([0, 3])), qkv_bias=draw(st.booleans()), norm_eps=0.1, dropout=draw(p),
        attention_dropout=draw(p), drop_path=draw(p))


def normal(shape: Sequence[int], seed: int, dtype: Any = np.float64) -> Array:
    """Random values from the seed."""
    return np.random.default_rng((seed, 3)).normal(size=shape).astype(dtype)


def close(a: Array, b: Array, tolerance: float = 1e-12) -> bool:
    """Whether a and b agree to within `tolerance` of their largest value."""
    return a.shape == b.shape and bool(np.all(abs(a - b) <= tolerance * (1 + abs(b).max(initial=0))))


def assert_gradients(forward: Forward, backward: Backward, *inputs: Array, **options: Any) -> None:
    """The full Jacobian is right; options as for gradcheck.check_function."""
    report = check_function(forward, backward, *inputs, **options)
    assert report, f"\n{report}"


def assert_linear_backward(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """backward(2 a - 3 b) = 2 backward(a) - 3 backward(b), and the same dy twice gives the same bits."""
    y, cache = forward(*inputs)
    a, b = normal(y.shape, seed, y.dtype), normal(y.shape, seed + 1, y.dtype)
    ga, gb, mixed, again = (as_tuple(backward(dy, cache)) for dy in (a, b, 2 * a - 3 * b, a))
    for i, (p, q, m, r) in enumerate(zip(ga, gb, mixed, again, strict=True)):
        assert close(m, 2 * p - 3 * q), f"gradient {i} is not linear in dy"
        assert np.array_equal(p, r), f"gradient {i} differs at the second call of backward"


def assert_batch_splits(forward: Forward, backward: Backward, x: Array, *weights: Array, seed: int = 0) -> None:
    """A batch cut in two (an empty part included) gives the same y and dx, and weight gradients that add up to the whole."""
    y, cache = forward(x, *weights)
    dy = normal(y.shape, seed, y.dtype)
    whole = as_tuple(backward(dy, cache))
    for cut in range(len(x) + 1):
        parts = []
        for part in (slice(None, cut), slice(cut, None)):
            y_part, cache = forward(x[part], *weights)
            assert close(y_part, y[part]), f"y of a part (cut at {cut}) is not that part of y"
            parts.append(as_tuple(backward(dy[part], cache)))
        assert close(np.concatenate([parts[0][0], parts[1][0]]), whole[0]), f"dx of the parts (cut at {cut}) is not dx"
        for i in range(1, len(whole)):
            assert close(parts[0][i] + parts[1][i], whole[i]), f"gradient {i} of the parts (cut at {cut}) does not add up"


def assert_pure(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """Read-only and non-contiguous inputs do as well; nothing given is written to; the cache survives pickling; gradients
    share no memory with each other or with the inputs."""
    inputs = tuple(x.copy() for x in inputs)
    given = [x.copy() for x in inputs]
    y, cache = forward(*inputs)
    dy = normal(y.shape, seed, y.dtype)
    dy_given, before = dy.copy(), pickle.dumps(cache)
    grads = as_tuple(backward(dy, cache))
    assert pickle.dumps(cache) == before, "backward changed its cache"
    assert np.array_equal(dy, dy_given), "backward changed dy"
    for i, (x, was) in enumerate(zip(inputs, given, strict=True)):
        assert np.array_equal(x, was), f"input {i} was changed"

    def strided(x: Array) -> Array:                                      # same values, gaps between, read-only
        wide = np.full((*x.shape, 2), np.nan, x.dtype)
        wide[..., 0] = x
        wide.flags.writeable = False
        return wide[..., 0]

    y_strided, cache = forward(*map(strided, inputs))
    assert close(y_strided, y), "y differs for non-contiguous inputs"
    for i, (a, b) in enumerate(zip(as_tuple(backward(strided(dy), cache)), grads, strict=True)):
        assert close(a, b), f"gradient {i} differs for non-contiguous inputs"
    for i, (a, b) in enumerate(zip(as_tuple(backward(dy, pickle.loads(before))), grads, strict=True)):
        assert close(a, b), f"gradient {i} differs when the cache went through pickle"     # which makes views contiguous
    for i, g in enumerate(grads):
        for j, other in enumerate((*grads[i + 1:], *inputs)):
            assert not np.shares_memory(g, other), f"gradient {i} shares memory with another gradient or input ({j})"


def assert_dtype_kept(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """float32, float64 and longdouble in: the same out, in y and in every gradient."""
    for dtype in (np.float32, np.float64, np.longdouble):
        y, cache = forward(*(x.astype(dtype) for x in inputs))
        assert y.dtype == dtype, f"y is {y.dtype} for {np.dtype(dtype)} inputs"
        for i, g in enumerate(as_tuple(backward(normal(y.shape, seed, dtype), cache))):
            assert g.dtype == dtype, f"gradient {i} is {g.dtype} for {np.dtype(dtype)} inputs"


def assert_reentrant(forward: Forward, backward: Backward, *inputs: Array, seed: int = 0) -> None:
    """Two forwards, then their backwards in the same order: each as if it had been alone."""
    others = [x + normal(x.shape, seed + i, x.dtype) for i, x in enumerate(inputs)]
    y1, cache1 = forward(*inputs)
    dy = normal(y1.shape, seed, y1.dtype)
    alone = as_tuple(backward(dy, cache1))
    y1, cache1 = forward(*inputs)
    y2, cache2 = forward(*others)
    for a, b in zip(as_tuple(backward(dy, cache1)), alone, strict=True):
        assert np.array_equal(a, b), "a second forward changes the first one's gradients"
    backward(normal(y2.shape, seed, y2.dtype), cache2)


def check_layer_contract(layer: Any, x: Array, seed: int = 0, gradients: bool = True, splits: bool = True,
                         zero: Sequence[str] = (), **options: Any) -> None:
    """All of the above, for a layer with `forward(params, x)` and `backward(dy, cache, grads)`, at noisy weights.

    splits=False where an image's output depends on the others in the batch (dropout's mask does). zero: weights whose
    gradient is known to vanish. options: to forward, as for gradcheck.layer_pair.
    """
    forward, backward, names, weights = noisy_pair(layer, seed, **options)
    inputs = [np.asarray(x, np.float64), *weights]
    if gradients:
        assert_gradients(forward, backward, *inputs, names=names, zero=zero)
    assert_linear_backward(forward, backward, *inputs, seed=seed)
    assert_pure(forward, backward, *inputs, seed=seed)
    assert_dtype_kept(forward, backward, *inputs, seed=seed)
    assert_reentrant(forward, backward, *inputs, seed=seed)
    if splits:
        assert_batch_splits(forward, backward, *inputs, seed=seed)
