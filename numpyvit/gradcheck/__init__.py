"""Check a backward pass against finite differences of its forward pass.

    from numpyvit.gradcheck import check_function

    report = check_function(forward, backward, x, w)  # forward(x, w) -> y, cache
    print(report)  # a table, with a verdict for each input
    assert report  # true if every verdict is "ok"

`check_layer` and `check_model` do the same for an object with weights.

How it works
------------
The gradients are computed in float64. The differences are taken in longdouble where
that has 80 or 128 bits, otherwise in float64 (also if forward does not support
longdouble), and are extrapolated, which gives both a derivative and an estimate of its
error (differences.py). An element of a gradient is wrong if it differs from the
derivative by more than

    1e-12 scale + 8 (estimated error of the derivative + rounding of the gradient)

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
zero      The gradient is zero everywhere and this was not declared by zero=[name].

Only "ok" passes. Before anything is compared, the contract of the pair is checked: that
it is deterministic, writes to nothing it is given, shares no memory, is linear in dy,
and keeps everything it needs in the cache (contract.py).

The files
---------
check.py         check_function, check_layer, check_model
layer.py         a layer with weights as a pure pair of functions
pair.py          the two functions, with one-line errors for what does not fit
contract.py      what a pair must return and leave unchanged
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
