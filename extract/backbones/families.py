"""What torchvision's architectures have in common: where their last grid is, and in which form they give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..kinds import CLIP
from .forms import CHANNELS_LAST, MAP, OutputForm, tokens


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture; a model belongs to the first family of FAMILIES that knows its name's beginning."""

    models: tuple[str, ...]  # beginnings of torchvision's names
    node: str  # the last one with a grid
    form: OutputForm = MAP
    others: Mapping[str, OutputForm] = field(default_factory=dict)  # nodes (and those inside) of another form
    takes_size: bool = False  # as `image_size`: its position embedding belongs to one side of the input
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the constructor

    def form_of(self, node: str) -> OutputForm:
        """Return the declared form of a node's output."""
        inside = (form for name, form in self.others.items() if node == name or node.startswith(name + "."))
        return next(inside, self.form)


# GoogLeNet and Inception warn and spend minutes on a truncated-normal draw unless told what to do
_WITH_AUXILIARY = {"init_weights": True, "aux_logits": True}
FAMILIES = (
    Family(
        models=("vit_",), node="encoder", form=tokens(prefix=1), others={"conv_proj": MAP}, takes_size=True
    ),  # the class token comes first
    Family(
        models=("swin3d_",), node="norm", form=CHANNELS_LAST,
        others={"patch_embed.proj": MAP, "permute": MAP, "avgpool": MAP},
    ),
    Family(
        models=("swin_",), node="norm", form=CHANNELS_LAST,
        others={"features.0.0": MAP, "permute": MAP, "avgpool": MAP},
    ),
    Family(
        models=("mvit_",),
        node="norm",
        form=tokens(prefix=1, time_steps=CLIP.window_frames // 2),
        others={"conv_proj": MAP},
    ),  # its first convolution halves time, nothing behind it does
    Family(models=("googlenet",), node="inception5b", settings=_WITH_AUXILIARY),
    Family(models=("inception_v3",), node="Mixed_7c", settings=_WITH_AUXILIARY),
    Family(models=("shufflenet_",), node="conv5"),
    Family(models=("regnet_",), node="trunk_output"),
    Family(models=("maxvit_",), node="blocks"),
    Family(models=("mnasnet",), node="layers"),
    Family(models=("resnet", "resnext", "wide_resnet", "r3d_", "mc3_", "r2plus1d_"), node="layer4"),
    Family(
        models=("alexnet", "vgg", "squeezenet", "densenet", "mobilenet", "efficientnet", "convnext", "s3d"),
        node="features",
    ),
)  # fmt: skip
_OTHERS = Family(models=("",), node="")


def family_of(network: str) -> Family:
    """Return the family of one of torchvision's models; of what none knows, one with maps and no default node."""
    name = network.removeprefix("quantized_")
    return next((family for family in FAMILIES if name.startswith(family.models)), _OTHERS)
