import torch

from models.augment import flipped, translated

IMAGES = torch.rand(64, 3, 16, 16)


def test_flips_mirror_about_half_and_nothing_else() -> None:
    out = flipped(IMAGES, torch.Generator().manual_seed(0))
    same = (out == IMAGES).flatten(1).all(dim=1)
    mirrored = (out == IMAGES.flip(3)).flatten(1).all(dim=1)
    assert bool((same | mirrored).all())
    assert 16 < int(mirrored.sum()) < 48


def test_translation_keeps_the_middle_up_to_a_shift() -> None:
    out = translated(IMAGES, 2, torch.Generator().manual_seed(0))
    assert out.shape == IMAGES.shape
    for image, moved in zip(IMAGES, out, strict=True):
        shifts = [
            torch.equal(moved[:, 2:-2, 2:-2], image[:, 2 + y : 14 + y, 2 + x : 14 + x])
            for y in range(-2, 3)
            for x in range(-2, 3)
        ]
        assert any(shifts)


def test_translation_lets_gradients_through_and_zero_is_identity() -> None:
    images = IMAGES.clone().requires_grad_()
    total = translated(images, 2, torch.Generator().manual_seed(0)).sum()
    (gradient,) = torch.autograd.grad(total, images)
    assert gradient.sum().item() == images.numel()  # each pixel drawn came from one pixel
    assert translated(images, 0, torch.Generator()) is images
