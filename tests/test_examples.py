"""The examples that need no data run, and print what they are meant to show."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_check_your_own_layer(capsys):
    runpy.run_path(str(EXAMPLES / "check_your_own_layer.py"), run_name="__main__")
    bug, fixed, layer, properties = capsys.readouterr().out.strip().split("\n\n")
    assert [line.split()[-1] for line in bug.splitlines()[2:4]] == ["wrong", "ok"]
    assert [line.split()[-1] for line in fixed.splitlines()[2:4]] == ["ok", "ok"]
    assert [line.split()[-1] for line in layer.splitlines()[2:4]] == ["ok", "ok"]
    assert properties.splitlines()[1].startswith("all pass")
