"""PNG files that say from what they were drawn: the same picture and facts give the same bytes."""

import io
from collections.abc import Mapping, Sequence

from PIL import Image, PngImagePlugin

from models.families.base import GeneratorNet
from models.io.generators import generator_digest

SOFTWARE = "Omokage"
AS_THEY_COME = "as they come"


def drawing_facts(
    generator: GeneratorNet,
    *,
    tool: str,
    seeds: Sequence[int],
    labels: Sequence[str],
    psi: float,
    noise: str,
    **more: object,
) -> dict[str, str]:
    """Returns what a drawing was made from, as texts by name; `more` are the tool's own options.

    Neither time nor path is among them, so that the same drawing has the same bytes.
    """
    spec = generator.spec
    facts = {
        "generator": generator_digest(generator),
        "family": f"{spec.family}, {spec.resolution_px} px",
        "tool": tool,
        "seeds": shortened(seeds),
        "labels": "; ".join(labels) if any(labels) else AS_THEY_COME,
        "psi": f"{psi:g}",
        "noise": noise,
        **{name: str(value) for name, value in more.items()},
    }
    return {"Software": SOFTWARE, **{f"omokage {name}": text for name, text in facts.items()}}


def png_bytes(picture: Image.Image, facts: Mapping[str, str]) -> bytes:
    """Returns the picture as a PNG with the facts as text chunks (tEXt; iTXt beyond Latin-1)."""
    chunks = PngImagePlugin.PngInfo()
    for name, text in facts.items():
        chunks.add_text(name, text)
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def shortened(seeds: Sequence[int]) -> str:
    """Returns `0-15,20` for the seeds 0 to 15 and 20."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)
