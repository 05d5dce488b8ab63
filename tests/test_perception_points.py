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


def test_the_maximum_and_its_gradient_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    local = torch.randn((200, 4), generator=generator)
    weight = torch.randn((5, 4), generator=generator).requires_grad_()
    pillar = torch.cat([torch.arange(20), torch.randint(0, 20, (180,), generator=generator)])
    wanted = torch.rand((20, 5), generator=generator)
    rows = local @ weight.T
    theirs = torch.full((20, 5), -torch.inf).scatter_reduce(0, pillar[:, None].expand_as(rows), rows, "amax")
    ours = _PillarMax.apply(weight, local, pillar.int(), 20)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    expected = torch.autograd.grad((theirs * wanted).sum(), weight)[0]
    torch.testing.assert_close(torch.autograd.grad((ours * wanted).sum(), weight)[0], expected, rtol=1e-5, atol=1e-5)


def test_of_equal_points_the_first_one_has_the_gradient() -> None:
    weight = torch.tensor([[1.0, 0.0, 0.0, 0.0]], requires_grad=True)
    local = torch.tensor([[2.0, 7.0, 0.0, 0.0], [2.0, 9.0, 0.0, 0.0]])
    highest = _PillarMax.apply(weight, local, torch.zeros(2, dtype=torch.int32), 1)
    assert highest.tolist() == [[2.0]]
    assert torch.autograd.grad(highest.sum(), weight)[0].tolist() == [[2.0, 7.0, 0.0, 0.0]]


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
