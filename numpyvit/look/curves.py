"""Curves, drawn by matplotlib: training, attention distance, and gradient-check errors.

matplotlib is an optional dependency: pip install 'numpyvit[pictures]'. Each function
returns a Pillow image.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from ..gradcheck import Report

if TYPE_CHECKING:
    from PIL.Image import Image

# Okabe and Ito's colours, which can be told apart with any form of colour blindness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = "os^Dv<>Pp*"
DPI = 120


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure of this size in inches and its axes, without a window system.

    Raises UserError if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "curves are drawn by matplotlib, which is not installed: pip install "
            "'numpyvit[pictures]'"
        ) from None
    figure: Any = Figure((width, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.grid(color="#dddddd", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def to_image(figure: Any) -> "Image":
    """Render a figure."""
    from PIL import Image

    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def training_figure(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Any:
    """Return the figure of training_picture."""
    figure, (loss, accuracy) = new_figure(11, 4.6, 2)
    has_val = False
    few = max(len(rows) for rows in runs.values()) <= 20
    for i, (name, rows) in enumerate(runs.items()):
        colour = COLOURS[i % len(COLOURS)]
        style: dict[str, Any] = {"color": colour, "markersize": 4}
        if few or len(runs) > len(COLOURS):
            style["marker"] = MARKERS[i // len(COLOURS) % len(MARKERS)]
            style["markevery"] = max(1, len(rows) // 20)
        epochs = [row["epoch"] for row in rows]
        loss.plot(epochs, [row["train_loss"] for row in rows], "--", **style)
        loss.plot(epochs, [row["test_loss"] for row in rows], "-", **style)
        test = [100 * row["test_accuracy"] for row in rows]
        accuracy.plot(epochs, test, "-", label=name, **style)
        if rows and "val_accuracy" in rows[0]:
            has_val = True
            loss.plot(epochs, [row["val_loss"] for row in rows], ":", **style)
            accuracy.plot(epochs, [100 * row["val_accuracy"] for row in rows], ":", **style)
    lines = {"training": "--", "test": "-"} | ({"validation": ":"} if has_val else {})
    for words, line in lines.items():
        loss.plot([], [], line, color="#444444", label=words)
    loss.set(xlabel="epoch", ylabel="loss")
    accuracy.set(xlabel="epoch", ylabel="accuracy in %")
    for ax in (loss, accuracy):
        ax.xaxis.get_major_locator().set_params(integer=True)
    loss.legend(frameon=False)
    accuracy.legend(frameon=False, fontsize="small" if len(runs) > 8 else "medium")
    return figure


def training_picture(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> "Image":
    """Draw losses and accuracies by epoch; runs maps a name to the rows of metrics.jsonl.

    Raises UserError if there is nothing to draw.
    """
    for name, rows in runs.items():
        if not rows:
            raise UserError(f"{name} has no finished epoch yet: there is nothing to draw")
    return to_image(training_figure({shortened(name): rows for name, rows in runs.items()}))


def distance_figure(distances: Array, images: int) -> Any:
    """Return the figure of distance_picture."""
    L, h = distances.shape
    figure, (ax,) = new_figure(7, 4.6)
    blocks = np.repeat(np.arange(L), h)
    ax.plot(blocks, distances.ravel(), "o", color=COLOURS[0], alpha=0.7, label="a head")
    ax.plot(np.arange(L), distances.mean(1), color="#D55E00", label="mean of the heads")
    ax.set(xlabel="block", ylabel="mean attention distance in pixels")
    ax.set_ylim(0, 1.2 * max(distances.max(), 1e-3))
    ax.set_xlim(-0.5, L - 0.5)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, loc="upper right", ncols=2)
    many = f"{images:,} images" if images > 1 else "one image"
    ax.set_title(f"Averaged over {many}", fontsize="medium")
    return figure


def distance_picture(distances: Array, images: int) -> "Image":
    """Draw the mean attention distance (L, h) of each head by depth; `images` went into it."""
    return to_image(distance_figure(distances, images))


def gradcheck_figure(reports: Mapping[str, Report], tolerance: float) -> Any:
    """Return the figure of gradcheck_picture."""
    figure, (ax,) = new_figure(8, 1.2 + 0.24 * len(reports))
    names = list(reports)
    low = 1e-18  # where an error of exactly zero is drawn
    errors = [1.0 if report.faults else max(report.error, low) for report in reports.values()]
    is_right = [bool(report) for report in reports.values()]
    for right, colour, words in ((True, COLOURS[0], "right"), (False, "#D55E00", "not right")):
        chosen = [i for i in range(len(names)) if is_right[i] == right]
        if chosen:
            lengths = [errors[i] - low for i in chosen]
            ax.barh(chosen, lengths, left=low, color=colour, label=words)
    ax.axvline(tolerance, color="#444444", linestyle="--", label="tolerance")
    ax.set_xscale("log")
    ax.set_xlim(low, max(1e-10, 3 * max(errors)))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel(f"largest relative error of a gradient (no bar: below {low:.0e})")
    ax.grid(visible=False, axis="y")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure


def gradcheck_picture(reports: Mapping[str, Report], tolerance: float) -> "Image":
    """Draw the error of each check as a bar on a logarithmic scale."""
    return to_image(gradcheck_figure(reports, tolerance))


def shortened(name: str, length: int = 40) -> str:
    """Return at most `length` characters, of which the last are kept."""
    return name if len(name) <= length else "…" + name[1 - length :]
