"""Write api.json, the list of functions that CuPy has, so that strict.py has no more.

    python tests/standin/make_api.py

Run it where CuPy is installed; no GPU is needed. The list has the parameters of each
function and method: "x" if it is required, "x=" if it has a default, "*" before those that
are passed by keyword only, "*x" for any number of them.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def from_signature(signature: inspect.Signature) -> list[str]:
    """Return the parameters of a signature, as api.json writes them."""
    found: list[Any] = []
    for p in signature.parameters.values():
        if (
            p.kind == p.KEYWORD_ONLY
            and "*" not in found
            and not any(f.startswith("*") for f in found)
        ):
            found.append("*")
        if p.kind == p.VAR_KEYWORD:
            found.append("**")
        elif p.kind == p.VAR_POSITIONAL:
            found.append(f"*{p.name}")
        else:
            found.append(p.name + ("" if p.default is p.empty else "="))
    return found


def from_doc(doc: str) -> list[str]:
    """Return the parameters from the first line of a docstring that Cython writes.

    It looks like "_ndarray_base.sum(self, axis=None, Py_ssize_t n) -> ...".
    """
    inside = re.match(r"[\w.]+\((.*)\)", doc.split("\n")[0])
    if inside is None:
        raise ValueError(f"no parameters in {doc[:60]!r}")
    found = []
    for part in re.sub(r"\([^()]*\)|\[[^\[\]]*\]", "", inside[1]).split(","):
        name, default, _ = part.strip().partition("=")
        name = (name.split(":")[0].split() or [""])[-1]
        if name not in ("", "self", "/"):
            found.append(name + ("=" if default else ""))
    return found


def parameters(f: Any) -> list[str]:
    """Return the parameters of a function or method of CuPy."""
    import cupy

    if isinstance(f, cupy.ufunc):
        return [
            *(f"x{i}" for i in range(1, f.nin + 1)),
            *(f"out{i}=" if f.nout > 1 else "out=" for i in range(f.nout)),
            "*",
            "casting=",
            "dtype=",
        ]
    try:
        return [p for p in from_signature(inspect.signature(f)) if p != "self"]
    except (ValueError, TypeError):
        return from_doc(f.__doc__ or "")


def public(space: Any) -> dict[str, list[str]]:
    """Return the public functions of a module or class, each with its parameters."""
    found = {}
    for name in sorted(dir(space)):
        f = getattr(space, name, None)
        if (
            (name.startswith("_") and not name.startswith("__"))
            or not callable(f)
            or isinstance(f, type)
        ):
            continue
        try:
            found[name] = parameters(f)
        except ValueError:  # some operators have no signature
            if name.startswith("__"):
                found[name] = ["*others"]
    return found


def main() -> None:
    """Write api.json beside this file."""
    import cupy

    attributes = [
        n
        for n in sorted(dir(cupy.ndarray))
        if not n.startswith("_") and not callable(getattr(cupy.ndarray, n))
    ]
    api = {
        "version": cupy.__version__,
        "functions": public(cupy),
        "methods": public(cupy.ndarray),
        "attributes": attributes,
        "ufuncs": sorted(n for n in dir(cupy) if isinstance(getattr(cupy, n, None), cupy.ufunc)),
    }
    api["functions"]["matmul"] = [
        "x1",
        "x2",
        "out=",
        "*",
        "axes=",
        "axis=",
        "keepdims=",
        "casting=",
        "dtype=",
        "signature=",
        "order=",
    ]  # CuPy's signature is only (*args, ...)
    lines = []
    for key, value in api.items():
        rows = (
            ",\n".join(f'  "{k}": {json.dumps(v)}' for k, v in value.items())
            if isinstance(value, dict)
            else ""
        )
        lines.append(f'"{key}": ' + ("{\n" + rows + "\n}" if rows else json.dumps(value)))
    (HERE / "api.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
