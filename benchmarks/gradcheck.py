"""How many wrong backwards does a checker catch, and how many right ones does it call wrong?

    python benchmarks/gradcheck.py [--seeds N]

The wrong and the right ones are those of tests/gradcheck/, each at N random inputs (a wrong one counts as caught where it is
at every one of them, a right one as passed likewise), for three checkers:

    numpyvit   numpyvit.gradcheck.check_function
    torch      torch.autograd.gradcheck with its defaults (float64, step 1e-6, tolerance 1e-3 relative and 1e-5 absolute),
               forward and backward in a torch.autograd.Function; skipped where torch is not installed
    plain      what most people write: central differences in float64 at 1e-6 of sum(dy * y), dy random, and
               norm(a - n) / (norm(a) + norm(n)) below 1e-5 for each input
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
from numpyvit.gradcheck.contract import normal, random_dy

Checker = Callable[..., bool]


def ours(forward: Any, backward: Any, inputs: list, zero: list, seed: int) -> bool:
    return bool(check_function(forward, backward, *inputs, zero=zero, seed=seed))


def plain(forward: Any, backward: Any, inputs: list, zero: list, seed: int) -> bool:
    y, cache = forward(*inputs)
    dy = random_dy(np.shape(y), seed)
    found = backward(dy, cache)
    for i, (x, g) in enumerate(
        zip(inputs, found if isinstance(found, tuple) else (found,), strict=True)
    ):
        numeric = np.zeros(x.shape)
        for at in np.ndindex(x.shape):
            around = []
            for h in (1e-6, -1e-6):
                moved = x.copy()
                moved[at] += h
                around.append(np.sum(forward(*inputs[:i], moved, *inputs[i + 1 :])[0] * dy))
            numeric[at] = (around[0] - around[1]) / 2e-6
        if np.shape(g) != x.shape:
            return False
        size = np.linalg.norm(g) + np.linalg.norm(numeric)
        if not (size == 0 or np.linalg.norm(g - numeric) / size < 1e-5):
            return False
    return True


def torch_checker() -> Checker | None:
    try:
        import torch
    except ImportError:
        return None

    def check(forward: Any, backward: Any, inputs: list, zero: list, seed: int) -> bool:
        class Function(torch.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, *xs: Any) -> Any:
                y, ctx.cache = forward(*(x.detach().numpy() for x in xs))
                return torch.from_numpy(np.array(y))

            @staticmethod
            def backward(ctx: Any, dy: Any) -> Any:
                found = backward(dy.numpy(), ctx.cache)
                return tuple(
                    torch.from_numpy(np.array(g))
                    for g in (found if isinstance(found, tuple) else (found,))
                )

        return bool(
            torch.autograd.gradcheck(
                Function.apply,
                [torch.from_numpy(x).requires_grad_() for x in inputs],
                raise_exception=False,
            )
        )

    return check


def passes(
    checker: Checker, forward: Any, backward: Any, inputs: list, zero: list, seed: int
) -> bool:
    """A checker that ends in an exception has found something, whatever it calls it."""
    try:
        with np.errstate(all="ignore"):
            return checker(forward, backward, [np.array(x) for x in inputs], zero, seed)
    except (UserError, ValueError, RuntimeError, TypeError, IndexError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Wrong and right backwards, before three checkers."
    )
    parser.add_argument("--seeds", type=int, default=20)
    n = parser.parse_args().seeds
    torch = torch_checker()
    checkers: dict[str, Checker] = {
        "numpyvit": ours,
        **({"torch": torch} if torch else {}),
        "plain": plain,
    }
    print(
        f"{n} seeds each; numpy {np.__version__}",
        f"torch {sys.modules['torch'].__version__}" if torch else "torch not installed",
        sep=", ",
    )
    compare(
        "wrong backwards that passed, of how many seeds",
        checkers,
        n,
        0,
        {
            name: (
                forward,
                backward,
                lambda s, shapes=shapes: [normal(x, s + i) for i, x in enumerate(shapes)],
                [],
            )
            for name, (forward, backward, shapes) in MUTANTS.items()
        },
    )
    compare("right ones that did not pass", checkers, n, n, AWKWARD)


def compare(
    title: str, checkers: dict[str, Checker], n: int, wanted: int, table: dict[str, tuple]
) -> None:
    """Print how often each checker lets each pair pass, where that is not `wanted`."""
    right, seconds = dict.fromkeys(checkers, 0), dict.fromkeys(checkers, 0.0)
    print(f"\n{title:52}" + "".join(f"{which:>10}" for which in checkers))
    for name, (forward, backward, make, zero) in table.items():
        failures = {}
        for which, checker in checkers.items():
            began = time.perf_counter()
            passed = sum(
                passes(checker, forward, backward, make(seed), zero, seed) for seed in range(n)
            )
            seconds[which] += time.perf_counter() - began
            failures[which] = abs(passed - wanted)
            right[which] += failures[which] == 0
        if any(failures.values()):
            print(
                f"{name.replace('_', ' '):52}"
                + "".join(f"{count or '':>10}" for count in failures.values())
            )
    print(
        f"{f'right about, of {len(table)}':52}" + "".join(f"{count:10}" for count in right.values())
    )
    print(f"{'seconds':52}" + "".join(f"{s:10.1f}" for s in seconds.values()))


if __name__ == "__main__":
    main()
