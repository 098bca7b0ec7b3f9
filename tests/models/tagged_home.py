"""A home of drawn heads, some of them of posts without tags, made by the stages themselves."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from dataset.cropping import FaceSettings
from dataset.faces import crop_shards
from dataset.labels import LabelSettings, choose_labels
from dataset.store import Store
from tests.dataset.home import Home
from tests.models.drawn_heads import LABELS, drawn_heads


def make_home(root: Path, *, tagged: int, untagged: int, side_px: int = 48) -> Store:
    """Makes posts, faces and labels: the first `tagged` posts have tags, the others none."""
    images, labels = drawn_heads(tagged + untagged, seed=7, side_px=side_px)
    home = Home(Store(str(root)))
    for row, (image, has) in enumerate(zip(images, labels, strict=True)):
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        tags = ["solo", *(name for name, one in zip(LABELS, has, strict=True) if one)]
        home.add(content.getvalue(), tags=tags if row < tagged else ())
    home.write()
    # Drawn heads are all alike: none may fall for the others' sake.
    settings = FaceSettings(
        cropped=True, min_side_px=24, min_sharpness=0, phash_distance=0, thumb_rms_max=0
    )
    with ThreadPoolExecutor(2) as executor:
        crop_shards(home.store, settings, executor)
    choose_labels(home.store, LabelSettings(min_frac=0.02, max_frac=0.9))
    return home.store
