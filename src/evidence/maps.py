"""Where one net of a recipe looks in one file, by the kinds of maps that it can show."""

from typing import NamedTuple

from src.evidence.closer import Input, jpeg
from src.evidence.evidence import NetMap
from src.explain.checked import check_maps
from src.explain.maps import usual_kinds, why_not
from src.explain.overlay import overlay
from src.inference.loaded import LoadedRecipe

GRADIENTS = ("hirescam",)  # of the family that nearly every net can show
SIDE = 480  # px of a map that is shown


class DrawnMaps(NamedTuple):
    """The maps of a file."""

    maps: tuple[NetMap, ...]
    pictures: dict[str, bytes]
    absent: dict[str, str]  # kind -> why the net cannot show it, of those that all others can


class Explainer:
    """Draws and checks maps of the first fold of a recipe's heaviest member.

    Args:
        loaded: the recipe.
    """

    def __init__(self, loaded: LoadedRecipe) -> None:
        self.part, self.model = loaded.classifier(loaded.heaviest(loaded.nets).part.model)
        self.name = f"{self.part.model} fold {self.part.fold}"
        self.kinds = usual_kinds(self.model, self.name)
        reasons = {kind: why_not(self.model, self.name, kind) for kind in GRADIENTS}
        self.absent = {kind: why for kind, why in reasons.items() if why}

    def draw(self, shown: Input, pred: int) -> DrawnMaps:
        """Return the checked maps of what the net was shown, for a verdict 0/1."""
        pixels = shown.pixels[None]
        checked = check_maps(self.model, self.name, pixels, self.kinds, fake=[pred == 1])[0]
        pictures: dict[str, bytes] = {}
        maps = []
        for one in checked:
            name = "" if one.withheld else f"map_{one.kind}"
            if name:
                pictures[name] = jpeg(overlay(shown.pixels, one.where), SIDE, least=SIDE)
            record = one.record()
            random = record["random"]
            maps.append(
                NetMap(
                    self.part.model, str(self.part.fold), one.kind, one.withheld, record["lost"],
                    None if random is None else sum(random) / len(random), record["beats"], name,
                    shown.person, shown.second,
                )
            )  # fmt: skip
        return DrawnMaps(tuple(maps), pictures, self.absent)
