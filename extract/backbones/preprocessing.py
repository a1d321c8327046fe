"""What a network wants its input values to be, under the names that recipes and `--preprocessing` use."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...errors import UnknownNameError
from ..kinds import find_kind


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """(x / divisor - mean) / std per channel, channels in `order`."""

    order: str  # RGB, BGR, or xy for the flow stack x0, y0, x1, y1, ...
    divisor: float  # 255 for values 0..1, 1 for 0..255
    mean: tuple[float, ...]  # in `order`, after the division; one value = the same for every channel
    std: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a recipe."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


IMAGENET = Preprocessing(order="RGB", divisor=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""torchvision's ImageNet networks."""
PREPROCESSINGS = {
    "imagenet": IMAGENET,
    # torchvision's GoogLeNet and Inception v3, whose weights come from TensorFlow
    "symmetric": Preprocessing(order="RGB", divisor=255.0, mean=(0.5,), std=(0.5,)),
    # Caffe's VGG-16 (Simonyan & Zisserman's own release): BGR 0..255 minus the ImageNet channel means
    "caffe-vgg": Preprocessing(order="BGR", divisor=1.0, mean=(103.939, 116.779, 123.68), std=(1.0,) * 3),
    # Caffe's SqueezeNet and GoogLeNet releases: rounded means
    "caffe": Preprocessing(order="BGR", divisor=1.0, mean=(104.0, 117.0, 123.0), std=(1.0,) * 3),
    # C3D's own release: channel means of its mean cube, which fits no crop but the centred one of 112 pixels
    "sports1m": Preprocessing(order="BGR", divisor=1.0, mean=(90.25, 97.66, 101.41), std=(1.0,) * 3),
    # what mmaction2 fine-tunes C3D with; not what its Sports-1M file was trained on
    "mmaction2-c3d": Preprocessing(order="RGB", divisor=1.0, mean=(104.0, 117.0, 128.0), std=(1.0,) * 3),
    # torchvision's video ResNets and S3D
    "kinetics": Preprocessing(
        order="RGB", divisor=255.0, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989)
    ),
    "kinetics-mvit": Preprocessing(order="RGB", divisor=255.0, mean=(0.45,) * 3, std=(0.225,) * 3),
    # TSN in PyTorch: the mean of ImageNet's three deviations
    "flow-tsn": Preprocessing(order="xy", divisor=255.0, mean=(0.5,), std=(0.226,)),
    # TSN in Caffe: only the level of no motion is taken off
    "flow-caffe": Preprocessing(order="xy", divisor=1.0, mean=(128.0,), std=(1.0,)),
}


def preprocessing_names(kind: str) -> list[str]:
    """Return the names that fit a kind of stream: `flow`, or `rgb` and `clip`."""
    return [name for name, rules in PREPROCESSINGS.items() if (rules.order == "xy") == find_kind(kind).displacement]


def check_preprocessing(name: str, kind: str) -> None:
    """Refuse a name that is unknown or made for another kind of stream.

    Raises
    ------
    UnknownNameError
    """
    if name not in preprocessing_names(kind):
        raise UnknownNameError(f"preprocessing of {kind} streams", name, preprocessing_names(kind))
