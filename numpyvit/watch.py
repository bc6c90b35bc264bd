"""Observe the layers of a model while they run, by a hook for all of their calls.

    def hook(call):
        began = time.perf_counter()
        result = call()  # run the real method
        print(call.name, call.method, time.perf_counter() - began)
        return result

    with watch(model, hook):
        model.forward(params, images)

The hook can time, count, look at or record a call. It sees the layers in the order in
which they are called; the call of an outer layer contains the calls of its inner
layers. Outside the `with` block the model is unchanged, so watching costs nothing
there.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .errors import UserError

METHODS = ("forward", "backward")


@dataclass(frozen=True)
class Call:
    """One call of a layer's forward or backward; `call()` runs it.

    name: the layer's name, such as "blocks.0.attention", "" for the outermost layer.
    method: "forward" or "backward". layer: the layer itself. args, kwargs: the
    arguments of the call. function: the method as it was before `watch` replaced it.
    """

    name: str
    method: str
    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    function: Callable[..., Any]

    def __call__(self) -> Any:
        """Run the method with its arguments and return its result."""
        return self.function(*self.args, **self.kwargs)


Hook = Callable[[Call], Any]


def is_layer(item: object) -> bool:
    """Return whether `item` is an object, and not a class, with a forward method."""
    return not isinstance(item, type) and callable(getattr(item, "forward", None))


def named_layers(layer: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("blocks.0.attention", layer) for every layer inside `layer`, then itself.

    A layer is any object with a `forward` method. Layers are looked for among a layer's
    attributes and in its lists, tuples and dicts. Inner layers come before the layer
    that holds them, and the outermost layer comes last, under `name`. A layer that
    occurs twice is yielded once, under the first of its names.
    """
    yield from _walk(layer, name, seen=set())


def _walk(item: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    children: dict[Any, Any] = {}
    if isinstance(item, list | tuple):
        children = dict(enumerate(item))
    elif isinstance(item, dict):
        children = item
    elif is_layer(item):
        children = getattr(item, "__dict__", {})
    else:
        return
    if id(item) in seen:
        return
    seen.add(id(item))
    for key, child in children.items():
        yield from _walk(child, f"{name}.{key}" if name else str(key), seen)
    if is_layer(item):
        yield name, item


@contextmanager
def watch(layer: Any, hook: Hook) -> Iterator[None]:
    """Pass every forward and backward of every layer to `hook`, inside a `with` block.

    `hook(call)` runs the method by `call()` and must return its result. The layers are
    those of `named_layers(layer)`. On leaving the block, also by an exception, their
    attributes are again exactly what they were. Watching may be nested: the inner hook
    then sees a call first.

    Entering and leaving change the layer objects, so no other thread may use the layers
    at that time. Inside the block several threads may run them if the hook allows it.

    Raises UserError if the methods of a layer cannot be replaced because its class has
    __slots__ and no __dict__; nothing has been changed then.
    """
    watched = list(named_layers(layer))
    for name, part in watched:
        if not hasattr(part, "__dict__"):
            raise UserError(
                f"{name or 'the layer'} is a {type(part).__name__} with __slots__, whose methods "
                "cannot be watched: remove __slots__ from its class"
            )
    undo: list[tuple[dict[str, Any], str, bool, Any]] = []
    try:
        for name, part in watched:
            for method in METHODS:
                function = getattr(part, method, None)
                if callable(function):
                    attributes = vars(part)
                    undo.append((attributes, method, method in attributes, function))
                    attributes[method] = _observed(name, method, part, function, hook)
        yield
    finally:
        for attributes, method, was_attribute, function in undo:
            if was_attribute:
                attributes[method] = function
            else:
                del attributes[method]


def _observed(
    name: str, method: str, layer: Any, function: Callable[..., Any], hook: Hook
) -> Callable[..., Any]:
    """Return a function that passes each call of `function` to the hook."""

    @functools.wraps(function)  # so that inspect.signature still sees the real arguments
    def observed(*args: Any, **kwargs: Any) -> Any:
        return hook(Call(name, method, layer, args, kwargs, function))

    return observed
