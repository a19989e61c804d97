"""Warnings of other libraries are not printed."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import SimpleITK as sitk

from leakloc.core.quiet import quiet_libraries


def test_warnings_are_suppressed_and_restored(
    recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    displayed = sitk.ProcessObject.GetGlobalWarningDisplay()
    with quiet_libraries():
        warnings.warn("from pydicom", UserWarning, stacklevel=1)
        np.float32(1e300 * np.ones(1))
        logging.getLogger("nibabel.global").warning("from nibabel")
        logging.getLogger("pydicom").error("from pydicom")
        assert not sitk.ProcessObject.GetGlobalWarningDisplay()
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == displayed
    assert logging.getLogger("pydicom").level < logging.CRITICAL
    with pytest.warns(UserWarning, match="later"):
        warnings.warn("later", UserWarning, stacklevel=1)
