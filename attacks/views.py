"""What transfer attacks make of images and gradients: random smaller copies, and blur."""

import torch
from torch import Tensor
from torch.nn import functional

from attacks.errors import AttackInputError
from attacks.oracle import View
from attacks.randomness import uniform

# Standard deviations from the middle of a blurring Gaussian to its edge.
BLUR_REACH = 3.0


def check_images(x: Tensor, who: str) -> None:
    """Refuse inputs that have no plane to move or blur in."""
    if x.dim() != 4:
        raise AttackInputError(
            f"{who} work on images of shape (channels, height, width), but the inputs have shape "
            f"{tuple(x.shape[1:])}. Reshape them and let the model undo it, or switch these "
            "options off."
        )


def shrunk(keys: Tensor, probability: float, smallest: float) -> View:
    """A view that shows some samples as a smaller copy at a random place, zero around it.

    Args:
        keys: shape (batch,), int64; each sample's key decides its own copy.
        probability: of a sample being changed at all.
        smallest: the least side of the copy, as a share of the image's; uniform up to 1.

    Returns:
        From images (batch, channels, height, width) to the like, differentiable.

    Source:
        Xie et al. 2019, arXiv:1803.06978; the copy is interpolated bilinearly and its size is
        continuous, so that each sample can have its own within one batch.
    """
    draws = uniform(keys, 4)
    side = smallest + (1 - smallest) * draws[:, 1]
    changed = draws[:, 0] < probability
    side = torch.where(changed, side, 1.0)
    # In coordinates of the output, -1 to 1, the copy's middle is anywhere that keeps it inside.
    middle = (2 * draws[:, 2:4] - 1) * (1 - side)[:, None]
    theta = torch.zeros(len(keys), 2, 3, dtype=torch.float64, device=keys.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / side
    theta[:, :, 2] = -middle / side[:, None]

    def view(x: Tensor) -> Tensor:
        grid = functional.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=False)
        seen = functional.grid_sample(x, grid, align_corners=False)
        return torch.where(changed[:, None, None, None], seen, x)

    return view


def blur(slope: Tensor, size: int) -> Tensor:
    """Gradients of images smoothed by a Gaussian, `size` pixels wide; zero beyond the edges.

    Source:
        Dong et al. 2019, arXiv:1904.02884: the gradient over small shifts of the image.
    """
    place = torch.linspace(-BLUR_REACH, BLUR_REACH, size) if size > 1 else torch.zeros(1)
    line = torch.exp(-place.double().square() / 2)
    line = (line / line.sum()).to(slope)
    planes = slope.flatten(0, 1)[:, None]
    half = size // 2
    planes = functional.conv2d(planes, line[None, None, :, None], padding=(half, 0))
    planes = functional.conv2d(planes, line[None, None, None, :], padding=(0, half))
    return planes.view_as(slope)
