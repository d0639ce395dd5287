"""Real-vs-fake competitions: manifest -> folds -> checkpoints + oof -> recipe -> submission."""

import os

# albumentations 2.0.8 asks the package index for its newest version at import unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
