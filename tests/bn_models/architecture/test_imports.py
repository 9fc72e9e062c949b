import subprocess
import sys


def test_architecture_and_randomness_load_no_torch():
    code = "import bn_models.architecture, bn_models.randomness, sys; sys.exit('torch' in sys.modules)"

    finished = subprocess.run([sys.executable, "-c", code], check=False)

    assert finished.returncode == 0
