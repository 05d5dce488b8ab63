"""Pillars: against the nine features of the paper written out, and what must not change them."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.points import HEIGHT_SCALE_M, BevGrid, PointEncoder, _PillarMax


def cloud(batch: int, points: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    xyzi = torch.rand((batch, points, 4), generator=generator)
    xyzi = xyzi * torch.tensor([60.0, 60.0, 4.0, 1.0]) - torch.tensor([25.0, 30.0, 1.0, 0.0])
    count = torch.randint(points // 2, points, (batch, 1), generator=generator, dtype=torch.int32)
    return xyzi, count


def written_out(encoder: PointEncoder, points: Tensor, count: Tensor) -> Tensor:
    """Pillars by a loop over cells: linear map of all nine features, then the maximum."""
    grid = encoder.grid
    image = torch.zeros(len(points), encoder.width, grid.rows, grid.columns)
    weight = torch.cat([encoder.point.weight, encoder.pillar.weight], dim=1)
    for b in range(len(points)):
        real = points[b, : int(count[b])]
        rows = torch.floor((real[:, 0] - grid.x_min_m) / grid.cell_m).long()
        columns = torch.floor((real[:, 1] - grid.y_min_m) / grid.cell_m).long()
        for r, c in {(int(r), int(c)) for r, c in zip(rows, columns, strict=True)}:
            if not (0 <= r < grid.rows and 0 <= c < grid.columns):
                continue
            inside = real[(rows == r) & (columns == c)]
            center = torch.tensor([grid.x_min_m + (r + 0.5) * grid.cell_m, grid.y_min_m + (c + 0.5) * grid.cell_m])
            offset = (inside[:, :2] - center) / grid.cell_m
            local = torch.cat([offset, inside[:, 2:3] / HEIGHT_SCALE_M], dim=1)
            place = torch.tensor([2 * (r + 0.5) / grid.rows - 1, 2 * (c + 0.5) / grid.columns - 1])
            ones = torch.ones(len(inside), 1)
            nine = torch.cat([local, inside[:, 3:], ones * local.mean(0), ones * place], dim=1)
            highest = (nine @ weight.T + encoder.pillar.bias).amax(0)
            image[b, :, r, c] = encoder.pillar_norm(highest).relu()
    return image


def test_pillars_are_the_maximum_over_nine_features_of_every_point() -> None:
    torch.manual_seed(0)
    encoder = PointEncoder(8, 1)
    points, count = cloud(2, 600)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.pillars(points, count), written_out(encoder, points, count), rtol=1e-4, atol=1e-5
        )


def test_the_gradient_of_the_maximum_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 4, (200, 5), generator=generator).double().requires_grad_()  # many equal rows
    pillar = torch.cat([torch.arange(20), torch.randint(0, 20, (180,), generator=generator)])
    wanted = torch.rand((20, 5), generator=generator, dtype=torch.float64)
    lowest = torch.full((20, 5), -torch.inf, dtype=torch.float64)
    theirs = lowest.scatter_reduce(0, pillar[:, None].expand_as(rows), rows, "amax")
    ours = _PillarMax.apply(rows, pillar, 20)
    assert torch.equal(ours, theirs)
    expected = torch.autograd.grad((theirs * wanted).sum(), rows)[0]
    assert torch.allclose(torch.autograd.grad((ours * wanted).sum(), rows)[0], expected)


def test_order_padding_and_points_outside_the_grid_change_nothing() -> None:
    torch.manual_seed(0)
    encoder = PointEncoder(16, 1)
    points, count = cloud(1, 800, seed=3)
    real = points[:, : int(count)]
    far = torch.tensor([[[500.0, 0.0, 1.0, 0.5], [0.0, -24.01, 1.0, 0.5], [32.0, 0.0, 0.0, 0.0]]])
    shuffled = real[:, torch.randperm(real.shape[1])]
    padded = torch.cat([far, shuffled, torch.full((1, 50, 4), 3.0)], dim=1)
    with torch.no_grad():
        before = encoder.pillars(points, count)
        after = encoder.pillars(padded, count + 3)
    assert before.abs().max() > 0
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_point_lands_in_the_cell_that_holds_it() -> None:
    grid = BevGrid.of_cells(48)
    encoder = PointEncoder(8, 1, grid)
    with torch.no_grad():
        image = encoder.pillars(torch.tensor([[[10.2, -3.7, 0.5, 0.3]]]), torch.tensor([[1]]))
    rows, columns = image.abs().sum((0, 1)).nonzero(as_tuple=True)
    assert [(int(rows), int(columns))] == [(26, 20)]  # x -16 + 26..27, y -24 + 20..21
    assert encoder(torch.zeros(2, 5, 4), torch.zeros(2, 1)).shape == (2, 32, 6, 6)
    assert PointEncoder(8, 1)(torch.zeros(2, 5, 4), torch.zeros(2)).shape == (2, 32, 12, 12)
