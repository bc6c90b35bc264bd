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


def test_the_backward_that_it_shows_is_that_of_the_page():
    page = (ROOT / "numpyvit" / "layers" / "layernorm.py").read_text()
    blocks = re.findall(r"```\n(    xhat, rstd.*?)```", README, re.S)
    assert len(blocks) == 1
    assert blocks[0] in page


def test_it_fits_the_length_that_a_reader_has_patience_for():
    assert len(README.splitlines()) <= 200
