"""The readers of the field's data sets, and which of them fits a folder."""

from collections.abc import Callable
from pathlib import Path

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.listing import Listing
from src.data.published import (
    antispoofing,
    artifact_set,
    deepfakebench,
    dfdc_preview,
    faceforensics,
    generators,
)
from src.data.published.reading import Reading
from src.errors import UserError, unknown_name

Reader = Callable[[Path, Listing, DatasetConfig], Reading | None]
FOLDERS = "folders"
READERS: dict[str, Reader] = {
    deepfakebench.NAME: deepfakebench.read,
    faceforensics.FACEFORENSICS_NAME: faceforensics.read_faceforensics,
    faceforensics.CELEB_DF_NAME: faceforensics.read_celeb_df,
    dfdc_preview.NAME: dfdc_preview.read,
    artifact_set.NAME: artifact_set.read,
    antispoofing.NAME: antispoofing.read,
    generators.NAME: generators.read,
}


def read_field(
    root: Path, listing: Listing, config: DatasetConfig, *, has_sample: bool
) -> Reading | None:
    """Read a folder by the first layout of the field that fits it.

    Args:
        root, listing, config: of the data set.
        has_sample: a sample submission lies there, so it is a competition's.

    Returns:
        What was understood; None if it is a competition's folders and tables.

    Raises:
        UserError: see the readers; `layout:` of dataset.yaml is unknown or does not fit.
    """
    wanted = config.layout
    if wanted is None and config.json:
        wanted = deepfakebench.NAME
    if wanted == FOLDERS or (wanted is None and has_sample):
        return None
    if wanted is None:
        found = (read(root, listing, config) for read in READERS.values())
        return next((reading for reading in found if reading is not None), None)
    if wanted not in READERS:
        raise unknown_name(f"layout in {root / 'dataset.yaml'}:", wanted, [*READERS, FOLDERS])
    reading = READERS[wanted](root, listing, config)
    if reading is None:
        raise UserError(
            f"{root}: nothing there has the layout {wanted} that dataset.yaml names (docs/"
            "datasets.md shows it)"
        )
    return reading
