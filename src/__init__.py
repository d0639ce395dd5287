"""Real-vs-fake competitions: manifest -> folds -> checkpoints + oof -> recipe -> submission."""

import os

from src import paths

# albumentations 2.0.8 asks the package index for its newest version at import unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# OpenMP threads that wait by spinning starve each other where cores are shared with other work:
# measured 9 times slower training on two busy cores. Must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A second wall behind `src.data.pixels.decode.MAX_PIXELS`; OpenCV reads it when it is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
# torch makes this folder as soon as it is trained with, and would make it in /tmp.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(paths.cache_dir() / "inductor"))
