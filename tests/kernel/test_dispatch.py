import os
import subprocess
import sys

import pytest
from twins import NATIVE

import mover.kernel

CODE = "import mover.kernel as k; print(k.NATIVE, k.palf_walk.__module__, k.ob_crc64(b'123456789'))"


@pytest.mark.parametrize(
    ("pure", "expected"),
    [
        ("1", f"False mover.kernel._palf_py {0x58E3FA20}"),
        ("0", f"True mover._native.palf {0x58E3FA20}"),
        ("", f"True mover._native.palf {0x58E3FA20}"),
    ],
)
def test_the_environment_picks_the_kernel(pure, expected):
    if pure != "1" and NATIVE is None:
        pytest.skip("the extension is not built")
    environment = os.environ | {"MOVER_PURE": pure}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_all_names_are_there_and_documented():
    for name in mover.kernel.__all__:
        assert hasattr(mover.kernel, name)
    assert sorted(mover.kernel.__all__) == sorted(set(mover.kernel.__all__))
