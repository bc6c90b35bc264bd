"""A trace as text: each array in the order of computation, with its line of source."""

from collections.abc import Iterator

from ..params import Buffer
from .trace import Step, Trace


def layers_of(recorded: Trace) -> list[str]:
    """Return the names of the layers that have steps, and of the layers around them."""
    names: dict[str, None] = {}
    for step in recorded.steps:
        parts = step.layer.split(".")
        names |= dict.fromkeys(".".join(parts[: i + 1]) for i in range(len(parts)))
    return [name for name in names if name]


def walk(recorded: Trace, layer: str = "") -> Iterator[str]:
    """Yield the lines of a trace, forward and then backward.

    layer: only this layer and the layers inside it. Arguments, and arrays that are only
    passed on from one function to another, are left out; the trace must have formulas.
    """
    passes = (("forward", 0, recorded.forward), ("backward", recorded.forward, len(recorded.steps)))
    for name, start, end in passes:
        yield f"{name} pass"
        header = ""
        for step in recorded.steps[start:end]:
            is_inside = not layer or f"{step.layer}.".startswith(f"{layer}.")
            if not is_inside or not is_computed(step):
                continue
            if header != (header := f"{step.layer or 'model'}  {step.function}  ({step.file})"):
                yield f"  {header}"
            yield f"    {describe(step)}"


def is_computed(step: Step) -> bool:
    """Return whether a step is not just an argument or an array that is passed on."""
    return bool(step.source) and (step.formula is None or step.formula["op"] != "step")


def describe(step: Step) -> str:
    """Return a step as a line: name, shape, mean, standard deviation, statement."""
    x = step.value
    shape = " x ".join(map(str, x.shape))
    numbers = f"{x.mean():11.4g} {x.std():11.4g}" if x.size else " " * 23
    source = step.source.partition("  #")[0]
    return f"{step.variable:10} {shape:20} {numbers}  {step.line:4}: {source}"


def weights_of_layers(params: Buffer) -> dict[str, int]:
    """Return the number of weights of each layer that has weights itself."""
    counts: dict[str, int] = {}
    for name, x in params.items():
        layer = name.rpartition(".")[0]
        counts[layer] = counts.get(layer, 0) + x.size
    return counts
