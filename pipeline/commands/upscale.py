"""`omokage upscale`: pictures made 2x or 4x larger, into PNGs that say from what they were made."""

import dataclasses
from pathlib import Path

import click

from dataset.progress import progress
from pipeline.commands.picture_files import (
    Changed,
    Source,
    change_pictures,
    inputs_argument,
    into_option,
    out_option,
)
from studio.png_metadata import PREFIX, Facts, made_from_facts, upscale_text
from studio.recipe import Recipe
from studio.upscaling import DENOISE, FACTORS, UPSCALERS, check_upscale, tile_count
from studio.upscaling import upscale as made_larger

_SOURCE, _UPSCALE = f"{PREFIX}source", f"{PREFIX}upscale"
_LONG_TILES = 100  # some seconds' work: from here on, progress is shown


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be done to every picture; the fields are the arguments of `studio.upscaling`."""

    factor: int
    denoise: int
    model: str

    @property
    def text(self) -> str:
        """For people: "2x, denoise 1, by cunet"."""
        by = "" if self.model == UPSCALERS[0] else f", by {self.model}"
        return upscale_text(self.factor, self.denoise) + by


@click.command()
@inputs_argument
@click.option(
    "--factor",
    default="2",
    show_default=True,
    type=click.Choice([str(factor) for factor in FACTORS]),
    help="How many times as long the sides become; 4 is twice 2.",
)
@click.option(
    "--denoise",
    default=-1,
    show_default=True,
    type=click.IntRange(DENOISE[0], DENOISE[-1]),
    help="Take traces of JPEG away: 0 (a little) to 3 (much); -1 leaves all.",
)
@click.option(
    "--model",
    default=UPSCALERS[0],
    show_default=True,
    type=click.Choice(UPSCALERS),
    help="anime: drawings; photo: photographs; cunet: drawings, another network, 3x slower.",
)
@out_option
@into_option
def upscale(
    inputs: tuple[Path, ...], factor: str, denoise: int, model: str, out: str, into: str
) -> None:
    """Make pictures 2x or 4x larger, on one core and without a GPU.

    A picture that says what it was drawn from goes on saying so. A result that stands already,
    from the same file with the same options, is not made again.

    \b
    Examples:
      omokage upscale face.png --factor 4 --out large.png
      omokage upscale faces/*.jpg --denoise 1 --into large
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    asked = Asked(int(factor), denoise, model)

    def is_done(content: bytes, facts: Facts) -> bool:
        wanted = made_from_facts(content, upscale=asked.text)
        return all(facts.get(name) == wanted[name] for name in (_SOURCE, _UPSCALE))

    change_pictures(
        inputs, lambda source: _upscaled(source, asked), out=out, into=into, is_done=is_done
    )


def _upscaled(source: Source, asked: Asked) -> Changed:
    options = dataclasses.asdict(asked)
    check_upscale(source.picture, **options)
    height, width = source.picture.shape[:2]
    count = tile_count(height, width, asked.factor, model=asked.model)
    if count < _LONG_TILES:
        larger = made_larger(source.picture, **options)
    else:
        with progress(f"upscale {source.path.name}", count, unit="tiles") as advance:
            larger = made_larger(source.picture, **options, advance=advance)
    done = {"upscale": asked.text}
    # By these a result is known again, also where its recipe alone would say how it was made.
    facts = made_from_facts(source.content, **done)
    more = {name: facts[name] for name in (_SOURCE, _UPSCALE)}
    return Changed(larger, _recipe(source.recipe, asked), done, more)


def _recipe(drawn: Recipe | None, asked: Asked) -> Recipe | None:
    """Returns the recipe of the larger picture; None if no recipe says how it was made.

    A recipe upscales by the first upscaler, once, before its edits.
    """
    is_plain = drawn is not None and drawn.upscale == 1 and drawn.edits.is_identity
    if drawn is None or not is_plain or asked.model != UPSCALERS[0]:
        return None
    return dataclasses.replace(drawn, upscale=asked.factor, denoise=asked.denoise)
