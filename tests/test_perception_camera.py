"""The camera encoder against torchvision's own ResNet-18, and its independence of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights, resnet18

from perception.camera import CameraEncoder, feature_size


def pictures(batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)


def test_with_imagenet_weights_it_is_torchvisions_resnet18_up_to_layer3(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    theirs = resnet18(weights=None).train()
    with torch.no_grad():  # statistics as a trained network has them, not 0 and 1
        theirs(torch.randn(4, 3, 64, 64) * 2 + 1)
    theirs.eval()

    def no_download(self: Any, **_: Any) -> dict[str, Tensor]:
        return theirs.state_dict()  # type: ignore[no-any-return]

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", no_download)
    ours = CameraEncoder(64, 2, imagenet=True)
    ours.load_imagenet()
    given = pictures(2, 48, 80)
    normalised = ResNet18_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (normalised.mean, normalised.std))
    x = (given.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        expected = theirs.layer3(theirs.layer2(theirs.layer1(x)))
        torch.testing.assert_close(ours(given), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(48, 96), (32, 64), (33, 47), (16, 16)])
def test_features_have_stride_16_and_do_not_depend_on_the_batch(height: int, width: int) -> None:
    torch.manual_seed(0)
    encoder = CameraEncoder(16, 1)
    given = pictures(3, height, width)
    with torch.no_grad():
        together = encoder(given)
        alone = torch.cat([encoder(picture[None]) for picture in given])
    assert together.shape == (3, 64, *feature_size(height, width))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert together.std() > 0.01


def test_imagenet_weights_need_resnet18s_shape() -> None:
    with pytest.raises(ValueError, match="width 64 and 2 blocks, got width 32"):
        CameraEncoder(32, 2, imagenet=True)
