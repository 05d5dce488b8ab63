"""Camera pictures to a feature map of stride 16. Knows torch and torchvision; knows nothing about LiDAR or driving."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet, ResNet18_Weights
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FrozenBatchNorm2d

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDE = 16
GROUP_CHANNELS = 8


class GroupNorm(nn.GroupNorm):
    """Group normalisation in float32, whatever autocast says: torch's bfloat16 kernels take 4 to 6 times as long."""

    @staticmethod
    def of(channels: int) -> GroupNorm:
        """With 8 channels a group: no batch statistics, so a sample is the same in any batch."""
        return GroupNorm(max(1, channels // GROUP_CHANNELS), channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps)


class CameraEncoder(ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet of basic blocks up to its third stage: one network for all cameras, whatever their size.

    Pictures (B, H, W, 3) uint8 RGB go in, features (B, 4 * width, ceil(H / 16), ceil(W / 16)) come out.

    Args:
        width: channels of the first stage, a multiple of 8; 64 is ResNet-18's own.
        blocks: basic blocks per stage; 2 is ResNet-18's own.
        imagenet: frozen statistics in place of group normalisation, as `load_imagenet` needs.

    Raises:
        ValueError: `imagenet` with another shape than ResNet-18's.
    """

    def __init__(self, width: int, blocks: int, imagenet: bool = False) -> None:
        if imagenet and (width, blocks) != (64, 2):
            raise ValueError(f"ImageNet weights need width 64 and 2 blocks, got width {width} and {blocks} blocks")
        norm: Callable[[int], nn.Module] = FrozenBatchNorm2d if imagenet else GroupNorm.of
        super().__init__(BasicBlock, [blocks, blocks, blocks, 1], norm_layer=norm)
        if width != 64:
            self.inplanes = width
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
            self.bn1 = norm(width)
            self.layer1 = self._make_layer(BasicBlock, width, blocks)
            self.layer2 = self._make_layer(BasicBlock, 2 * width, blocks, stride=2)
            self.layer3 = self._make_layer(BasicBlock, 4 * width, blocks, stride=2)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        del self.layer4, self.avgpool, self.fc
        self.out_channels = 4 * width
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255, persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load_imagenet(self) -> None:
        """Take over ResNet-18's ImageNet weights, which torchvision downloads once."""
        weights = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        self.load_state_dict({k: v for k, v in weights.items() if not k.startswith(("layer4", "fc"))})

    def forward(self, pictures: Tensor) -> Tensor:
        """Features (B, 4 * width, H / 16, W / 16) of pictures (B, H, W, 3) uint8."""
        x = pictures.permute(0, 3, 1, 2)  # the bytes already lie as channels_last
        x = (x.float() - self.mean) / self.std
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer3(self.layer2(self.layer1(x)))  # type: ignore[no-any-return]


def feature_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Rows and columns of the features of a picture: four halvings, each rounded up."""
    for _ in range(4):
        height_px, width_px = (height_px + 1) // 2, (width_px + 1) // 2
    return height_px, width_px
