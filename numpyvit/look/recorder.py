"""Follow the layers line by line while they run, and see every array that they compute.

Python reports each line of the recorded files (sys.settrace), and every array that a
line has assigned or changed becomes a step. Steps are numbered from 0. For one model
and one mode (`ops.textbook`), and without dropout, their numbers are the same for every
image.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np

from ..backend.arrays import Array
from .statements import Statement, assigned_arrays, is_recorded, statements


@dataclass
class Running:
    """A function that is running.

    layer: the name of its layer. line: the line that runs now. known: the latest step
    of each of its arrays, by name. before: its variables before this line. returned:
    what the functions that this line has called returned.
    """

    layer: str
    line: int
    known: dict[str, int] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    returned: list[Any] = field(default_factory=list)


class Recorder:
    """Counts the steps and passes each of them to `on_step(number, array)`.

    on_step receives the array itself and may change it; what runs afterwards uses the
    changed values. names: the name of each layer by its id, for a derived class that
    needs them (trace.py).
    """

    def __init__(
        self,
        on_step: Callable[[int, Array], None] | None = None,
        names: dict[int, str] | None = None,
    ) -> None:
        self.on_step = on_step
        self.names = names or {}
        self.count = 0
        self.running = [Running("", 0)]  # the innermost function last

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what this thread runs inside a `with` block.

        Another trace function, such as a debugger's, is paused and set again at the
        end.
        """
        previous = sys.gettrace()
        sys.settrace(self.on_event)
        try:
            yield
        finally:
            sys.settrace(previous)

    def on_event(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Handle what Python reports: a call, a line that is about to run, a return."""
        if event == "call":
            if not is_recorded(frame.f_code):
                return None
            layer = self.names.get(id(frame.f_locals.get("self")), self.running[-1].layer)
            self.running.append(Running(layer, frame.f_lineno))
            variables = frame.f_locals.items()
            arguments = {name: x for name, x in variables if isinstance(x, np.ndarray)}
            self.add(frame, None, arguments)
        elif event == "line":
            self.finish_line(frame)
        elif event == "return":
            self.finish_line(frame, arg)
            self.running.pop()
            self.running[-1].returned.append(arg)
        return self.on_event

    def finish_line(self, frame: FrameType, result: Any = None) -> None:
        """Record the arrays that the line which has just run assigned or returned."""
        now = self.running[-1]
        statement = statements(frame.f_code.co_filename).get(now.line)
        if statement and (statement.targets or statement.returns):
            found = assigned_arrays(statement, frame, result)
            if statement.reserves:  # it holds whatever was in memory before
                for x in found.values():
                    x.fill(0)
            self.add(frame, statement, found)
        now.line = frame.f_lineno
        now.returned.clear()

    def add(self, frame: FrameType, statement: Statement | None, found: dict[str, Array]) -> None:
        """Add a step for each array. Without a statement they are arguments."""
        for x in found.values():
            number = self.count
            self.count += 1
            if self.on_step:
                self.on_step(number, x)
