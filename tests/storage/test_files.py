import sys

import pytest

from numpyvit import UserError
from numpyvit.storage.files import exclusive_lock


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_a_lock_is_exclusive_and_is_released(tmp_path):
    path = tmp_path / "file"
    with (
        open(path, "w") as f,
        exclusive_lock(f, "in use"),
        open(path) as other,
        pytest.raises(UserError, match="in use"),
        exclusive_lock(other, "in use"),
    ):
        pass
    with open(path) as f, exclusive_lock(f, "in use"):
        pass
