from __future__ import annotations

import os

import pytest
import SimpleITK as sitk

from DiffuSAMLib.itk_messages import quiet_itk


def test_blocks_of_two_threads_give_stderr_back_in_any_order(capfd: pytest.CaptureFixture[str]) -> None:
    first, second = quiet_itk(), quiet_itk()
    first.__enter__()
    second.__enter__()
    os.write(2, b"of both\n")
    first.__exit__(None, None, None)
    os.write(2, b"of the second\n")
    assert not sitk.ProcessObject.GetGlobalWarningDisplay()
    second.__exit__(None, None, None)
    os.write(2, b"of nobody\n")
    assert capfd.readouterr().err == "of nobody\n"
    assert sitk.ProcessObject.GetGlobalWarningDisplay()
