"""What the profile of a network of images may say, as pydantic reads it. Only `load` imports this module, when a profile is read."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, StrictBool

from foretrain.fields import words_of
from foretrain.models.networks.alexnet import AlexNet
from foretrain.models.networks.densenet import DenseNet
from foretrain.models.networks.googlenet import GoogLeNet
from foretrain.models.networks.inception3 import Inception3
from foretrain.models.networks.inception4 import Inception4
from foretrain.models.networks.lenet import LeNet
from foretrain.models.networks.mobilenet import MobileNet2
from foretrain.models.networks.resnet import ResNet
from foretrain.models.networks.retinanet import RetinaNet
from foretrain.models.networks.shufflenet import ShuffleNet2
from foretrain.models.networks.ssd import Ssd
from foretrain.models.networks.unet3d import UNet3d
from foretrain.models.networks.vgg import Vgg
from foretrain.models.schema import ArchitectureFile
from foretrain.quantity import one_of

Size = Annotated[int, Field(strict=True, gt=0, le=1_000_000)]
Sizes = Annotated[tuple[Size, ...], Field(min_length=1, max_length=16)]


class NetworkFile(ArchitectureFile):
    """A network; `KIND` are its dimensions as the builder takes them."""

    KIND: ClassVar[type[Any]]

    def spec(self, key: str) -> Any:
        """Return the dimensions as the builder takes them.

        Raises:
            ModelError: where they do not go together.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields if name in self.KIND.__slots__}
        return self.KIND(**{**fields, "key": key})


class ImageFile(NetworkFile):
    """A network of square images that tells `classes` apart."""

    image_size: Size
    classes: Size


class LeNetFile(ImageFile):
    """See `LeNet`."""

    KIND = LeNet


class AlexNetFile(ImageFile):
    """See `AlexNet`."""

    KIND = AlexNet
    towers: Size = 1


class VggFile(ImageFile):
    """See `Vgg`."""

    KIND = Vgg
    layers: Sizes
    batch_norm: StrictBool = False


class GoogLeNetFile(ImageFile):
    """See `GoogLeNet`."""

    KIND = GoogLeNet
    batch_norm: StrictBool = False
    wide_kernel: Size = 5


class Inception3File(ImageFile):
    """See `Inception3`."""

    KIND = Inception3


class Inception4File(ImageFile):
    """See `Inception4`."""

    KIND = Inception4


class ResNetFile(ImageFile):
    """See `ResNet`."""

    KIND = ResNet
    layers: Sizes
    bottleneck: StrictBool
    groups: Size = 1
    group_width: Size = 64
    stride_in: one_of(*words_of("stride_in")) = "3x3"  # type: ignore[valid-type]
    squeeze: StrictBool = False
    dropout: StrictBool = False


class DenseNetFile(ImageFile):
    """See `DenseNet`."""

    KIND = DenseNet
    layers: Sizes
    growth: Size
    stem_width: Size


class MobileNet2File(ImageFile):
    """See `MobileNet2`."""

    KIND = MobileNet2


class ShuffleNet2File(ImageFile):
    """See `ShuffleNet2`."""

    KIND = ShuffleNet2
    layers: Sizes
    widths: Sizes


class RetinaNetFile(ImageFile):
    """See `RetinaNet`."""

    KIND = RetinaNet
    layers: Annotated[tuple[Size, ...], Field(min_length=4, max_length=4)]
    groups: Size
    group_width: Size
    frozen: Annotated[int, Field(strict=True, ge=0, le=5)] = 2


class SsdFile(ImageFile):
    """See `Ssd`."""

    KIND = Ssd
    layers: Annotated[tuple[Size, ...], Field(min_length=3, max_length=3)]
    bottleneck: StrictBool
    batch_norm: StrictBool = False


class UNet3dFile(ImageFile):
    """See `UNet3d`."""

    KIND = UNet3d
    widths: Sizes
