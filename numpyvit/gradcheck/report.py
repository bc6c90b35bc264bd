"""What a check found: a table for people, JSON for programs, true or false for an assertion."""

import dataclasses
import json
import math
from dataclasses import dataclass

MEANING = {
    "wrong": "backward is not the derivative of forward there",
    "kink": "forward has no derivative there, the slopes to the left and to the right differ: check at other inputs",
    "unclear": "it cannot be known to the tolerance: forward or backward loses digits there; check at other inputs, or at "
    "a scale near 1",
    "zero": "the gradient is zero everywhere: most often something was forgotten; if it is meant to be, say zero=[name]",
}


@dataclass(frozen=True)
class Row:
    """One input or weight. where: the worst of its elements; analytic, numeric: the derivatives there (None where it was
    compared only together with the others); error: norm(analytic - numeric) over the scale of the gradient; estimate: how
    much of that may be the differences' and rounding's; verdict: "ok" or one of MEANING."""

    name: str
    where: str
    analytic: float | None
    numeric: float | None
    error: float | None
    estimate: float | None
    verdict: str


@dataclass(frozen=True)
class Report:
    """True where all is well; prints as a table. faults: what else is wrong, a line each; remarks: how it was compared."""

    rows: tuple[Row, ...]
    faults: tuple[str, ...]
    remarks: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.faults and all(row.verdict == "ok" for row in self.rows)

    @property
    def error(self) -> float:
        """The largest error of all."""
        return max((row.error for row in self.rows if row.error is not None), default=0.0)

    def __str__(self) -> str:
        lines, rows = [], [row for row in self.rows if row.error is not None or row.verdict != "ok"]
        if rows:
            name, where = (
                max(len(text) for text in texts)
                for texts in (
                    ["gradient of", *(row.name for row in rows)],
                    ["worst element", *(row.where for row in rows)],
                )
            )
            lines = [
                f"{'gradient of':{name}}  {'worst element':{where}}{'analytic':>15}{'numeric':>15}{'error':>9}"
                f"{'estimate':>10}  verdict"
            ]
            for row in rows:
                text = "".join(
                    f"{'' if x is None else format(x, form):>{width}}"
                    for x, form, width in (
                        (row.analytic, ".7g", 15),
                        (row.numeric, ".7g", 15),
                        (row.error, ".0e", 9),
                        (row.estimate, ".0e", 10),
                    )
                )
                lines.append(f"{row.name:{name}}  {row.where:{where}}{text}  {row.verdict}")
        if len(rows) < len(self.rows):
            lines.append(f"{len(self.rows) - len(rows)} more are ok, compared together")
        verdicts = {row.verdict for row in rows}
        lines += [
            f"{verdict}: {meaning}" for verdict, meaning in MEANING.items() if verdict in verdicts
        ]
        lines += [f"fault: {fault}" for fault in self.faults]
        if self.faults and not self.rows:
            lines.append("nothing was compared: mend this first")
        return "\n".join([*lines, *(f"({remark})" for remark in self.remarks)])

    def to_json(self) -> str:
        """An object with ok, rows, faults and remarks. Numbers that are not finite are null, as JSON has none."""
        rows = [
            {
                key: None if isinstance(x, float) and not math.isfinite(x) else x
                for key, x in dataclasses.asdict(row).items()
            }
            for row in self.rows
        ]
        return json.dumps(
            {"ok": bool(self), "rows": rows, "faults": self.faults, "remarks": self.remarks},
            indent=1,
        )
