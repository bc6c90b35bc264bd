"""The clock of a training, its progress bar, and when to save."""

import sys
import time
from collections.abc import Callable
from typing import Any

from ..backend.device import to_float
from ..errors import say
from .run import Run

# Within an epoch, save at most once a minute, and spend under 2 % of the time saving.
SAVE_EVERY = 60.0
SAVE_COST = 50.0
SYNCHRONISE_EVERY = 1.0  # seconds between two looks at what a GPU has computed


class Progress:
    """Measures and shows how far a run is. Use it as a context manager.

    say: receives a line for each epoch. bar: show a progress bar if stderr is a
    terminal.
    """

    def __init__(self, run: Run, say: Callable[[str], None] = say, bar: bool = False) -> None:
        from tqdm import tqdm

        self.run = run
        self.say = say
        disable = None if bar and sys.stderr else True  # None: unless stderr is a terminal
        self.bar: Any = tqdm(
            total=run.steps, initial=run.step, unit="step", disable=disable, leave=False
        )
        now = time.perf_counter()
        self.start = now - run.seconds  # when the run would have begun, had it never stopped
        self.step_start = now
        self.synchronised = 0.0
        self.saved = now
        self.save_seconds = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def seconds(self) -> float:
        """Return the time of the whole run so far."""
        return time.perf_counter() - self.start

    def count_step(self, loss: Any) -> None:
        """Show the step that was just counted, and add its time to the run's."""
        run = self.run
        now = time.perf_counter()
        overdue = now - self.synchronised > SYNCHRONISE_EVERY
        if run.epoch_ended or run.device == "cpu" or overdue:
            run.synchronise()  # waits for a GPU
            self.bar.set_postfix(loss=f"{to_float(loss):.3f}", refresh=False)
            self.synchronised = time.perf_counter()
        self.bar.update()
        now = time.perf_counter()
        run.train_seconds += now - self.step_start
        run.seconds = now - self.start

    def line(self, text: str) -> None:
        """Say a line, without mixing it with the progress bar."""
        from tqdm import tqdm

        with tqdm.external_write_mode():
            self.say(text)
        self.saved = time.perf_counter()  # the end of an epoch saves

    def time_to_save(self) -> bool:
        """Return whether the last checkpoint is old enough for a new one."""
        interval = max(SAVE_EVERY, SAVE_COST * self.save_seconds)
        return time.perf_counter() - self.saved > interval

    def save(self) -> None:
        """Save the run, and measure how long that takes."""
        start = time.perf_counter()
        self.run.save()
        self.saved = time.perf_counter()
        self.save_seconds = self.saved - start

    def start_step(self) -> None:
        """Start the clock of the next step."""
        self.step_start = time.perf_counter()
