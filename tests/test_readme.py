"""The README's Python runs, and what it says about itself is so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_runs_and_prints_what_the_readme_says(code, capsys):
    exec(code, {})
    out = capsys.readouterr().out
    if "check_function" in code:
        assert f"```\n{out}```" in README
    else:
        assert float(out) > 0.85  # ten epochs


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target.partition("#")[0]).exists(), target
