"""Files have the rights that the user's umask leaves."""

import subprocess
import sys

import pytest

from tests.conftest import REPO

WRITE = "import sys; from pathlib import Path; from src.artifacts.files import write_text\n"
WRITE += "write_text(Path(sys.argv[1]), 'x')"


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664)])
def test_artefacts_honour_the_umask(tmp_path, umask, mode):
    path = tmp_path / "x.txt"
    subprocess.run([sys.executable, "-c", WRITE, path], cwd=REPO, umask=umask, check=True)
    assert path.stat().st_mode & 0o777 == mode
