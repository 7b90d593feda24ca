"""Rows of the table of faults that tests of several folders share."""

import pytest

HOSTILE = pytest.mark.row(
    19, "pickle, bombs, 2^60, truncated, symlink, ../, %2e, NUL, 4 KB names: refused, nothing run, nothing outside"
)
