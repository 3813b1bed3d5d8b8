"""What measuring an ONNX bundle imports."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["bundle_recall", "folder_recall", "match_calibration"])
def test_measuring_an_onnx_bundle_imports_no_torch(module):
    program = f"import sys, image_finder.components.evaluation.{module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
