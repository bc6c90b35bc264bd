"""Check a backward pass against finite differences of its forward pass.

    from numpyvit.gradcheck import check_function

    report = check_function(forward, backward, x, w)  # forward(x, w) -> y, cache
    print(report)  # a table, with a verdict for each input
    assert report  # true if every verdict is "ok"

`check_layer` does the same for a layer or model, an object with weights (`check_model`
is another name for it).

Functions of PyTorch and JAX
----------------------------
The functions are given arrays of NumPy, and may return tensors. A function `f` of
PyTorch, for example the `apply` of a torch.autograd.Function of your own:

    def forward(*inputs):
        tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
        y = f(*tensors)
        return y.detach(), (y, tensors)

    def backward(dy, cache):
        y, tensors = cache
        return torch.autograd.grad(y, tensors, torch.tensor(dy), retain_graph=True)

and a function `f` of JAX, for example one with a jax.custom_vjp:

    jax.config.update("jax_enable_x64", True)  # float64, which is off by default

    def forward(*inputs):
        return jax.vjp(f, *inputs)  # y, and a function from dy to the gradients

    def backward(dy, vjp):
        return vjp(jax.numpy.asarray(dy))

How it works
------------
The gradients are computed in float64. The differences are taken in longdouble where
that has 80 or 128 bits, otherwise in float64 (also if forward does not support
longdouble), and are extrapolated, which gives both a derivative and an estimate of its
error (differences.py). An element of a gradient is wrong if it differs from the
derivative by more than

    1e-12 scale + 8 (estimated error of the derivative + rounding of the gradient)

The columns "error" and "estimate" of a report are this difference and the two estimates,
as norms over all elements and as fractions of the scale.

The scale is the norm of the gradient of that input plus a thousandth of the norm of all
gradients (`Comparison.scales`). An input whose true gradient is zero, such as the bias
of attention's keys, is thus judged by its neighbours. The rounding of the gradient is
measured: it is how much the gradient moves if last digits change (rounding.py).

The verdicts
------------
ok        The gradient is right.
wrong     The gradient is not the derivative.
kink      There is no derivative at this point, such as that of |x| at 0.
unclear   The error cannot be known to `tolerance` times the scale.
zero      The gradient is zero everywhere, or too small to be told from rounding, and
          this was not declared by zero=[name].

Only "ok" passes. Before anything is compared, the contract of the pair is checked: that
it is deterministic, writes to nothing it is given, shares no memory, is linear in dy,
keeps everything it needs in the cache, and does not depend on the order of elements in
memory (contract.py). A layer must also add its gradients to `grads` and not overwrite
what is there. One thing cannot be checked: a cache may hold y itself, as that of a
softmax does, so whoever calls forward must not write to y before backward.

The files
---------
check.py         check_function, check_layer, check_model
layer.py         a layer with weights as a pure pair of functions, which adds to grads
pair.py          the two functions, with one-line errors for what does not fit
contract.py      what a pair must return and leave unchanged
properties.py    what numpyvit.testing checks as well: parts of a batch, other dtypes...
elsewhere.py     ... and whether a zero gradient is zero at other inputs
rounding.py      how much rounding moves gradients
differences.py   derivatives by extrapolated differences
comparison.py    gradients against differences, and the verdict
jacobian.py      ... for every element of the inputs and of y
directions.py    ... along random directions, with a search where one fails
report.py        the result as a table and as JSON
values.py        small functions on arrays
suite.py         the checks that `numpyvit gradcheck` runs
"""

from .check import SHARP, check_function, check_layer, check_model
from .layer import layer_pair, noisy, noisy_pair
from .pair import Backward, Forward
from .report import Report, Row

__all__ = [
    "SHARP",
    "Backward",
    "Forward",
    "Report",
    "Row",
    "check_function",
    "check_layer",
    "check_model",
    "layer_pair",
    "noisy",
    "noisy_pair",
]
