"""The result of a check, as a table, as JSON, and as true or false."""

import dataclasses
import json
import math
from dataclasses import dataclass

MEANING = {
    "wrong": "backward is not the derivative of forward there",
    "kink": "forward has no derivative there, the slopes to the left and to the right differ: "
    "check at other inputs",
    "unclear": "the error cannot be known to the tolerance, since forward or backward loses digits "
    "there: check at other inputs, or at a scale near 1",
    "zero": "the gradient is zero everywhere, or cannot be told from rounding. Most often "
    "something was forgotten: if it is meant to be zero, pass zero=[name]",
}
COLUMNS = (
    "error: analytic - numeric, relative to the whole gradient; estimate: how uncertain that is"
)
SHORT = 220  # characters of a repr; pytest shows 240


@dataclass(frozen=True)
class Row:
    """The result for one input or weight, or for "all together", in random directions.

    where: its worst element. analytic, numeric: the derivatives there, by backward and
    by differences; None if it was compared only together with the others. error:
    norm(analytic - numeric) as a fraction of the gradient's scale. estimate: how much
    of that may come from the differences and from rounding. verdict: "ok" or a key of
    MEANING.
    """

    name: str
    where: str
    analytic: float | None
    numeric: float | None
    error: float | None
    estimate: float | None
    verdict: str

    def __str__(self) -> str:
        where = f" {self.where}" if self.where else ""
        if self.analytic is None or self.numeric is None:
            return f"{self.name}{where} is {self.verdict}"
        numbers = f"{self.analytic:.7g} by backward, {self.numeric:.7g} by differences"
        return f"{self.name}{where} is {self.verdict} ({numbers})"


@dataclass(frozen=True, repr=False)
class Report:
    """The result of a check: true if everything is right, and a table when printed.

    faults: breaches of the contract, a line each; if there are any, most often nothing
    was compared, and there are no rows. remarks: how it was compared.

    str(report) is the table, and repr(report) one line that says what is wrong, which
    is what a failing `assert check_function(...)` shows.
    """

    rows: tuple[Row, ...]
    faults: tuple[str, ...]
    remarks: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.faults and all(row.verdict == "ok" for row in self.rows)

    @property
    def error(self) -> float:
        """The largest error of all rows, 0 if there is none."""
        return max((row.error for row in self.rows if row.error is not None), default=0.0)

    def __repr__(self) -> str:
        bad = [row for row in self.rows if row.verdict != "ok"]
        found = [*self.faults, *(str(row) for row in bad)] or ["all gradients are ok"]
        text = "; ".join(found)
        return f"<Report: {text if len(text) <= SHORT else text[:SHORT] + '...'}>"

    def __str__(self) -> str:
        shown = [row for row in self.rows if row.error is not None or row.verdict != "ok"]
        lines = table(shown) if shown else []
        if len(shown) < len(self.rows):
            count = len(self.rows) - len(shown)
            lines.append(
                f"{count} more, which were compared all together, {'are' if count > 1 else 'is'} ok"
            )
        verdicts = {row.verdict for row in shown}
        if verdicts - {"ok"}:
            lines.append(COLUMNS)
        lines += [
            f"{verdict}: {meaning}" for verdict, meaning in MEANING.items() if verdict in verdicts
        ]
        lines += [f"fault: {fault}" for fault in self.faults]
        if self.faults and not self.rows:
            lines.append("nothing was compared: fix this first")
        lines += [f"({remark})" for remark in self.remarks]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return a JSON object with ok, rows, faults and remarks.

        Numbers that are not finite become null, since JSON has no NaN and no infinity.
        """
        rows = [
            {key: finite_or_none(value) for key, value in dataclasses.asdict(row).items()}
            for row in self.rows
        ]
        return json.dumps(
            {"ok": bool(self), "rows": rows, "faults": self.faults, "remarks": self.remarks},
            indent=1,
        )


def table(rows: list[Row]) -> list[str]:
    """Return the lines of the table: a heading and a line for each row."""
    name_width = max(len(text) for text in ["gradient of", *(row.name for row in rows)])
    where_width = max(len(text) for text in ["worst element", *(row.where for row in rows)])
    heading = (
        f"{'gradient of':{name_width}}  {'worst element':{where_width}}"
        f"{'analytic':>15}{'numeric':>15}{'error':>9}{'estimate':>10}  verdict"
    )
    lines = [heading]
    for row in rows:
        numbers = (
            cell(row.analytic, ".7g", 15)
            + cell(row.numeric, ".7g", 15)
            + cell(row.error, ".0e", 9)
            + cell(row.estimate, ".0e", 10)
        )
        lines.append(f"{row.name:{name_width}}  {row.where:{where_width}}{numbers}  {row.verdict}")
    return lines


def cell(value: float | None, form: str, width: int) -> str:
    """Return the number right-aligned in `width` columns, and spaces for None."""
    text = "" if value is None else format(value, form)
    return f"{text:>{width}}"


def finite_or_none(value: object) -> object:
    """Return None for a float that is not finite, and any other value as it is."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
