"""Count the wrong backwards that gradient checkers catch, and the right ones they fail.

    python benchmarks/gradcheck.py [--seeds N]

The wrong and the right backwards are those of tests/gradcheck/, each checked at N
random inputs. A wrong one counts as caught only if it is caught at all of them, and a
right one as passed only if it passes at all of them. The checkers are:

    numpyvit   numpyvit.gradcheck.check_function
    torch      torch.autograd.gradcheck with its defaults (float64, step 1e-6,
               tolerances 1e-3 relative and 1e-5 absolute), with the pair as a
               torch.autograd.Function; skipped if torch is not installed
    plain      the check that most people write: central differences in float64, with
               the step 1e-6, of sum(dy * y) for a random dy; an input passes if
               norm(a - n) / (norm(a) + norm(n)) < 1e-5
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "gradcheck"))
from awkward import AWKWARD
from mutants import MUTANTS

from numpyvit.errors import UserError
from numpyvit.gradcheck import check_function
from numpyvit.gradcheck.values import normal, random_dy

STEP = 1e-6
Checker = Callable[..., bool]  # (forward, backward, inputs, zero, seed) -> whether they pass


def numpyvit_check(forward: Any, backward: Any, inputs: list, zero: list, seed: int) -> bool:
    """Return whether numpyvit's checker passes the pair."""
    return bool(check_function(forward, backward, *inputs, zero=zero, seed=seed))


def plain_check(forward: Any, backward: Any, inputs: list, zero: list, seed: int) -> bool:
    """Return whether the pair passes the check that most people write."""
    y, cache = forward(*inputs)
    dy = random_dy(np.shape(y), seed)
    found = backward(dy, cache)
    grads = found if isinstance(found, tuple) else (found,)
    for i, (x, g) in enumerate(zip(inputs, grads, strict=True)):

        def loss(x: Any, i: int = i) -> Any:
            moved_inputs = [*inputs[:i], x, *inputs[i + 1 :]]
            return np.sum(forward(*moved_inputs)[0] * dy)

        numeric = central_differences(loss, x)
        if np.shape(g) != x.shape:
            return False
        size = np.linalg.norm(g) + np.linalg.norm(numeric)
        if size and not np.linalg.norm(g - numeric) / size < 1e-5:
            return False
    return True


def central_differences(loss: Callable[[Any], Any], x: Any) -> Any:
    """Return the derivative of loss(x) by each element of x."""
    numeric = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        values = []
        for step in (STEP, -STEP):
            moved = x.copy()
            moved[index] += step
            values.append(loss(moved))
        numeric[index] = (values[0] - values[1]) / (2 * STEP)
    return numeric


def torch_checker() -> Checker | None:
    """Return torch's checker, or None if torch is not installed."""
    try:
        import torch
    except ImportError:
        return None

    def check(forward: Any, backward: Any, inputs: list, zero: list, seed: int) -> bool:
        class Function(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *xs: Any) -> Any:
                y, ctx.cache = forward(*(x.detach().numpy() for x in xs))
                return torch.from_numpy(np.array(y))

            @staticmethod
            def backward(ctx: Any, dy: Any) -> Any:
                found = backward(dy.numpy(), ctx.cache)
                grads = found if isinstance(found, tuple) else (found,)
                return tuple(torch.from_numpy(np.array(g)) for g in grads)

        tensors = [torch.from_numpy(x).requires_grad_() for x in inputs]
        return bool(torch.autograd.gradcheck(Function.apply, tensors, raise_exception=False))

    return check


def passes(
    checker: Checker, forward: Any, backward: Any, inputs: list, zero: list, seed: int
) -> bool:
    """Return whether the checker passes the pair; an exception means no."""
    copies = [np.array(x) for x in inputs]
    try:
        with np.errstate(all="ignore"):
            return checker(forward, backward, copies, zero, seed)
    except (UserError, ValueError, RuntimeError, TypeError, IndexError):
        return False


def normals(shapes: tuple) -> Callable[[int], list]:
    """Return a function from a seed to normally distributed inputs of these shapes."""
    return lambda seed: [normal(shape, seed + i) for i, shape in enumerate(shapes)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run three gradient checkers on wrong and on right backwards."
    )
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="inputs for each")
    seeds = parser.parse_args().seeds
    checkers: dict[str, Checker] = {"numpyvit": numpyvit_check}
    torch = "torch not installed"
    if torch_check := torch_checker():
        checkers["torch"] = torch_check
        torch = f"torch {sys.modules['torch'].__version__}"
    checkers["plain"] = plain_check
    print(f"{seeds} seeds each; numpy {np.__version__}, {torch}")

    wrong: dict[str, Any] = {
        name: (forward, backward, normals(shapes), [])
        for name, (forward, backward, shapes) in MUTANTS.items()
    }
    run("wrong backwards that passed, of how many seeds", checkers, wrong, seeds, wanted=0)
    run("right ones that did not pass", checkers, AWKWARD, seeds, wanted=seeds)


def run(
    title: str, checkers: dict[str, Checker], pairs: dict[str, tuple], seeds: int, wanted: int
) -> None:
    """Print at how many of the seeds each checker misjudges each pair, and the totals.

    pairs: {name: (forward, backward, function from a seed to inputs, zero)}. wanted:
    the number of seeds at which a pair should pass, all or none. Pairs that every
    checker judges rightly are not listed.
    """
    right = dict.fromkeys(checkers, 0)
    seconds = dict.fromkeys(checkers, 0.0)
    print(f"\n{title:52}" + "".join(f"{which:>10}" for which in checkers))
    for name, (forward, backward, make, zero) in pairs.items():
        failures = {}
        for which, checker in checkers.items():
            began = time.perf_counter()
            passed = sum(
                passes(checker, forward, backward, make(seed), zero, seed) for seed in range(seeds)
            )
            seconds[which] += time.perf_counter() - began
            failures[which] = abs(passed - wanted)
            right[which] += failures[which] == 0
        if any(failures.values()):
            counts = "".join(f"{count or '':>10}" for count in failures.values())
            print(f"{name.replace('_', ' '):52}" + counts)
    totals = f"right about, of {len(pairs)}"
    print(f"{totals:52}" + "".join(f"{count:10}" for count in right.values()))
    print(f"{'seconds':52}" + "".join(f"{s:10.1f}" for s in seconds.values()))


if __name__ == "__main__":
    main()
