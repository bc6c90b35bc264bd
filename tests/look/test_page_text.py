"""The page as a text: one file, with everything that it needs in it."""

import re

from numpyvit.look.page import SCRIPTS, page_html


def test_the_page_needs_no_other_file():
    page = page_html("abc")
    assert not re.search(r"@[A-Z]+@", page)
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count('nonce="abc"') == 3  # the style, the data and the script
    assert page.count('"use strict";') == len(SCRIPTS)


def test_data_cannot_end_the_script_that_holds_them():
    page = page_html("abc", {"classes": ["</script><script>alert(1)</script>"]})
    assert "</script><script>alert" not in page
    assert page.count("<script") == 2
