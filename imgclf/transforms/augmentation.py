"""Augmentation of training batches, drawn anew for every image, on the batch's device."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from imgclf.transforms.geometry import rotation, warp

ERASED_AREA = (0.02, 1 / 3)  # share of the image, as Zhong et al. 2020 have it
ERASED_ASPECT = 3.3
ELASTIC_POINTS = 5  # along each side, moved at random; bicubic in between


class Augmentation:
    """Random geometry, light, erasing and mixing; by default each is off, and images pass unchanged.

    Geometry is one bilinear warp, ``shift`` apart; around an image its outermost pixels are repeated. Values stay in
    [0, 1].

    Args:
        degrees: rotation, uniform in [-degrees, degrees].
        translate: shift along each axis, uniform, as a fraction of the side: [-translate, translate].
        shift: shift along each axis by a whole number of pixels, uniform in [-shift, shift]: nothing is interpolated,
            so that noise stays as it is.
        scale: zoom along each axis, log-uniform in [1 / (1 + scale), 1 + scale].
        shear: horizontal shear, uniform in [-shear, shear] (tangent of the angle).
        elastic: smooth random displacement (Simard et al. 2003): its deviation as a fraction of the side, at 5x5
            points; four fifths of that in between.
        flip: probability of a horizontal flip.
        crop: least area of a random crop, as a share of the image, uniform in [crop, 1]; it is scaled to full size.
        thickness: strokes of light ink made thicker or thinner: share of a 3x3 maximum or minimum, in [-thickness,
            thickness].
        blur: deviation of a Gaussian blur, in pixels, uniform in [0, blur].
        brightness: added to all values of an image, uniform in [-brightness, brightness].
        contrast: factor about each channel's mean, log-uniform in [1 / (1 + contrast), 1 + contrast].
        gamma: exponent of all values, log-uniform in [1 / (1 + gamma), 1 + gamma].
        erase: probability that a rectangle is painted over with one random value (Zhong et al. 2020).
        mixup: probability that an image is blended with another, each with a uniform share (Zhang et al. 2018).
        cutmix: probability that a rectangle, of a uniform share, is another image's (Yun et al. 2019).

    Raises:
        ValueError: a strength is negative or not a number, ``shift`` no whole number, or a probability or share not
            in [0, 1].
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        shift: int = 0,
        scale: float = 0.0,
        shear: float = 0.0,
        elastic: float = 0.0,
        flip: float = 0.0,
        crop: float = 1.0,
        thickness: float = 0.0,
        blur: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        gamma: float = 0.0,
        erase: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        strengths = {"degrees": degrees, "translate": translate, "scale": scale, "shear": shear, "elastic": elastic}
        strengths |= {"blur": blur, "brightness": brightness, "contrast": contrast, "gamma": gamma}
        for name, value in strengths.items():
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"augmentation.{name}={value}: give a number from 0 (off) up")
        if not isinstance(shift, int) or shift < 0:
            raise ValueError(f"augmentation.shift={shift}: give a whole number of pixels, from 0 (off) up")
        shares = {"flip": flip, "crop": crop, "thickness": thickness, "erase": erase, "mixup": mixup, "cutmix": cutmix}
        for name, value in shares.items():
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"augmentation.{name}={value}: give a number between 0 and 1")
        if mixup + cutmix > 1:
            raise ValueError(
                f"augmentation.mixup={mixup} and cutmix={cutmix}: an image gets one of them, give at most 1 in sum"
            )
        self.degrees, self.translate, self.scale, self.shear, self.elastic = degrees, translate, scale, shear, elastic
        self.shift, self.flip, self.crop, self.thickness, self.erase = shift, flip, crop, thickness, erase
        self.blur, self.brightness, self.contrast, self.gamma = blur, brightness, contrast, gamma
        self.mixup, self.cutmix = mixup, cutmix
        self._on = any({**strengths, **shares, "crop": 1 - crop, "shift": shift}.values())

    def __bool__(self) -> bool:
        """Whether anything is on."""
        return self._on

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float images (N, C, H, W) in [0, 1] in, the same shape out; ``generator`` lives on the images' device."""
        if self.degrees or self.translate or self.scale or self.shear or self.elastic or self.crop < 1:
            images = self._warp(images, generator)
        elif self.flip:
            flipped = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < self.flip
            images = torch.where(flipped, images.flip(-1), images)
        if self.shift:
            images = self._shift(images, generator)
        if self.thickness:
            images = self._pen(images, generator)
        if self.blur:
            images = self._blur(images, generator)
        if self.brightness or self.contrast or self.gamma:
            images = self._light(images, generator)
        return self._erase(images, generator) if self.erase else images

    def mix(self, images: Tensor, labels: Tensor, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mixup or CutMix of a batch with itself, after everything else.

        Args:
            images: float (N, C, H, W).
            labels: int64 (N,).
            classes: how many there are.
            generator: on the images' device.

        Returns:
            The images, and labels as float (N, classes) whose rows sum to 1; both unchanged if neither is on.
        """
        if not (self.mixup or self.cutmix):
            return images, labels
        count, _, height, width = images.shape
        draw = torch.rand(4, count, 1, 1, 1, generator=generator, device=images.device)
        partner = torch.randperm(count, generator=generator, device=images.device)
        inside = torch.ones(count, 1, height, width, dtype=torch.bool, device=images.device)
        for axis, length, place in ((-2, height, draw[2]), (-1, width, draw[3])):
            # The rectangle has the image's aspect and is cut off at its borders, as in the paper.
            position = (torch.arange(length, device=images.device) + 0.5).view(-1, 1 if axis == -2 else length) / length
            inside = inside & ((position - place).abs() < draw[1].sqrt() / 2)
        share = torch.where(draw[0] < self.mixup, draw[1], inside.to(images.dtype))
        share = share * (draw[0] < self.mixup + self.cutmix)
        own = F.one_hot(labels, classes).to(images.dtype)
        return images.lerp(images[partner], share), own.lerp(own[partner], share.mean((1, 2, 3))[:, None])

    def _warp(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draw = torch.rand(10, len(images), generator=generator, device=images.device) * 2 - 1
        zoom = torch.exp(draw[:2] * math.log1p(self.scale))
        matrices = rotation(draw[2] * math.radians(self.degrees))
        matrices[:, :, :2] /= zoom.T[:, None, :]
        matrices[:, :, 1] += matrices[:, :, 0] * (draw[3] * self.shear)[:, None]
        side = (self.crop + (1 - self.crop) * (draw[6] + 1) / 2).sqrt()  # of the crop; the image spans 2
        matrices[:, :, :2] *= side[:, None, None]
        matrices[:, :, 2] = draw[4:6].T * 2 * self.translate + draw[7:9].T * (1 - side)[:, None]
        matrices[:, :, 0] *= torch.where((draw[9] + 1) / 2 < self.flip, -1.0, 1.0)[:, None]
        field = None
        if self.elastic:
            size = (len(images), 2, ELASTIC_POINTS, ELASTIC_POINTS)
            points = torch.randn(size, generator=generator, device=images.device) * 2 * self.elastic
            rows, columns = (_bicubic(length, images.device) for length in images.shape[-2:])
            field = (rows @ points @ columns.T).permute(0, 2, 3, 1)
        return warp(images, matrices, outside="border", displacement=field)

    def _shift(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = images.shape
        size = (2, count, 1)
        steps = torch.randint(-self.shift, self.shift + 1, size, generator=generator, device=images.device)
        rows, columns = (
            (torch.arange(length, device=images.device) + step).clamp(0, length - 1)
            for length, step in zip((height, width), steps, strict=True)
        )
        images = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
        return images.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))

    def _pen(self, images: Tensor, generator: torch.Generator) -> Tensor:
        amount = (torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) * 2 - 1) * self.thickness
        thick, thin = (_of_neighbours(images, choose) for choose in (torch.maximum, torch.minimum))
        return images.lerp(torch.where(amount > 0, thick, thin), amount.abs())

    def _blur(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = images.shape
        reach = math.ceil(2 * self.blur)
        deviation = torch.rand(count, 1, generator=generator, device=images.device) * self.blur
        offsets = torch.arange(-reach, reach + 1, device=images.device)
        kernel = torch.exp(-0.5 * (offsets / deviation.clamp_min(1e-3)) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
        # One image a group, so that each has a kernel of its own; rows first, then columns.
        images = F.pad(images.reshape(1, -1, height, width), (reach,) * 4, mode="replicate")
        images = F.conv2d(images, kernel[:, None, None, :], groups=count * channels)
        images = F.conv2d(images, kernel[:, None, :, None], groups=count * channels)
        return images.view(count, channels, height, width)

    def _light(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draw = torch.rand(3, len(images), 1, 1, 1, generator=generator, device=images.device) * 2 - 1
        if self.gamma:
            images = images.clamp_min(1e-4) ** torch.exp(draw[0] * math.log1p(self.gamma))
        mean = images.mean((2, 3), keepdim=True)
        factor = torch.exp(draw[1] * math.log1p(self.contrast))
        return ((images - mean) * factor + mean + draw[2] * self.brightness).clamp(0, 1)

    def _erase(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draw = torch.rand(6, len(images), 1, 1, 1, generator=generator, device=images.device)
        low, high = ERASED_AREA
        area, aspect = low + (high - low) * draw[0], torch.exp((draw[1] * 2 - 1) * math.log(ERASED_ASPECT))
        inside = draw[2] < self.erase
        for axis, size, place in ((-2, (area * aspect).sqrt(), draw[3]), (-1, (area / aspect).sqrt(), draw[4])):
            length = images.shape[axis]
            position = torch.arange(length, device=images.device).view(-1, 1 if axis == -2 else length) + 0.5
            start = place * (1 - size.clamp_max(1)) * length
            inside = inside & (position >= start) & (position < start + size * length)
        return torch.where(inside, draw[5], images)


def _bicubic(length: int, device: torch.device) -> Tensor:
    """float (length, ELASTIC_POINTS): the weights of F.interpolate, which takes three times as long to apply them."""
    points = torch.eye(ELASTIC_POINTS, device=device)[None, None]
    return F.interpolate(points, (length, ELASTIC_POINTS), mode="bicubic", align_corners=True)[0, 0]


def _of_neighbours(images: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The maximum or minimum of every pixel's 3x3 neighbourhood; max_pool2d takes ten times as long on a CPU."""
    images = F.pad(images, (1, 1, 1, 1), mode="replicate")
    for axis in (-2, -1):
        before, here, after = (images.narrow(axis, start, images.shape[axis] - 2) for start in range(3))
        images = choose(choose(before, here), after)
    return images
