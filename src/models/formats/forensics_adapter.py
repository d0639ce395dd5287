"""The published checkpoint of ForensicsAdapter (Cui et al., CVPR 2025), whole."""

import re

from torch import nn

from src.models.formats import (
    FORMATS,
    Foreign,
    Renames,
    WeightsFile,
    logit_of_two,
    new_name,
    prefix_of,
    tower_of,
    under,
)
from src.models.formats.clip import CLIP_SCALE, clip

ANCHORS = (
    *("adapter.query_embed", "adapter.vit_model.pos_embed", "adapter.patch_conv.weight"),
    *("clip_post_process.second_process.0.weight", "masked_xray_post_process.process.0.weight"),
)
CLASSES = "clip_post_process.second_process.4"  # real, fake
TOWER = "clip_model."
# Layers of an MLP are numbered without the ReLUs between them there.
RENAMES: Renames = (
    (r"^adapter\.query_embed$", "side.query"),
    (r"^adapter\.query_pos_embed$", "side.query_position"),
    (r"^adapter\.vit_model\.pos_embed$", "side.position"),
    (r"^adapter\.patch_conv\.", "side.patch."),
    (r"^adapter\.ln_pre\.", "side.norm."),
    (r"^adapter\.vit_model\.blocks\.", "side.blocks."),
    (r"^adapter\.mask_decoder\.query_mlp\.", "decoder.of_query."),
    (r"^adapter\.mask_decoder\.xray_mlp\.", "decoder.of_map."),
    (r"^adapter\.mask_decoder\.attn_mlp\.", "decoder.of_bias."),
    (r"^adapter\.mask_decoder\.bias_scaling\.", "decoder.scale."),
    (r"^(decoder\.\w+)\.layers\.1\.", r"\1.2."),
    (r"^(decoder\.\w+)\.layers\.2\.", r"\1.4."),
    (r"^(decoder\.\w+)\.layers\.0\.", r"\1.0."),
    (r"^rec_attn_clip\.clip_intra_blocks\.0\.conv_first\.", "bottleneck.0."),
    (r"^rec_attn_clip\.clip_intra_blocks\.0\.conv_second\.", "bottleneck.2."),
    (r"^masked_xray_post_process\.process\.", "boundary."),
    (r"^clip_post_process\.first_process\.", "pool."),
    (r"^clip_post_process\.second_process\.", "mlp."),
)
FLAT = re.compile(r"(decoder|bottleneck)\..*weight")  # convolutions of one pixel there


@FORMATS.register("forensics_adapter")
def forensics_adapter(source: WeightsFile, net: nn.Module) -> Foreign | None:
    """Read tower, side network, decoder, heads; the last layer (real, fake) becomes one logit.

    Its fusion layers are not in the file: that code draws them anew in each forward. They stay at
    zero, the mean of what it draws. Dropped: the text tower, a second copy of the image tower, and
    what that code keeps and never calls (timm's own patch embedding, blocks behind the last).
    """
    tower = tower_of(net)
    prefix = None if tower is None else prefix_of(source.tensors, ANCHORS, source.path)
    if tower is None or prefix is None:
        return None
    tensors = under(source.tensors, prefix)
    of_tower = clip(WeightsFile(source.path, under(tensors, TOWER)), tower)
    tower_tensors = {} if of_tower is None else of_tower.tensors
    found = {f"tower.{key}": value for key, value in tower_tensors.items()}
    own, taken = net.state_dict(), {f"{CLASSES}.weight", f"{CLASSES}.bias"}
    for key, value in tensors.items():
        name = new_name(key, RENAMES)
        if name != key and name in own and key not in taken:
            found[name] = value.flatten(1) if FLAT.fullmatch(name) else value
            taken.add(key)
    unread = [] if of_tower is None else [f"{TOWER}{key}" for key in of_tower.dropped]
    rest = {key for key in tensors if not key.startswith(TOWER) and key not in taken}
    dropped = {prefix + key for key in rest | set(unread)}
    dropped |= {key for key in source.tensors if not key.startswith(prefix)}
    mean, std = CLIP_SCALE
    return Foreign(
        found,
        sorted(dropped),
        logit_of_two(tensors, CLASSES, fake=1),
        mean,
        std,
        note="its fusion layers are drawn anew in each forward of its code, and are left at zero",
        fake=1,
        fresh=net.fresh,  # type: ignore[arg-type]
    )
