"""Text of errors of other libraries."""

from __future__ import annotations

from pathlib import Path

import pytest

from leakloc.core.errors import neutral_names, reason_of


def test_the_file_name_of_a_system_error_is_omitted():
    error = FileNotFoundError(2, "No such file or directory", "/data/doe.nii")
    assert reason_of(error) == "FileNotFoundError: No such file or directory"


@pytest.mark.parametrize(
    ("text", "path", "shown"),
    [
        ("data type 7777", Path("doe.nii"), "ValueError: data type 7777"),
        ("cannot read doe.nii", Path("doe.nii"), "ValueError"),
        ("cannot read /data/doe.raw", Path("doe.mhd"), "ValueError"),
        ("invalid name Doe", None, "ValueError"),
    ],
)
def test_neutral_messages_contain_no_file_names_or_header_values(text, path, shown):
    with neutral_names(lambda _: "the file"):
        assert reason_of(ValueError(text), path) == shown
