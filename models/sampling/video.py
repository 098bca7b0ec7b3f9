"""Writes clips as MP4 (H.264) and GIF, a frame at a time, whole or not at all, always the same.

Nothing in the files depends on the time, the machine's name or the number of cores: the same
frames give the same bytes.
"""

import contextlib
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import GifImagePlugin, Image

from dataset.errors import StoreError, UsageError
from dataset.progress import progress
from dataset.store import Store
from models.sampling.clips import Clip, Frame

Plane = npt.NDArray[np.uint8]
WriteFrame = Callable[[Frame], None]

FPS_MAX = {".mp4": 60, ".gif": 50}  # a GIF counts in hundredths of a second and wants two at least
SIDE_MAX_PX = 4096  # more is beyond what browsers' H.264 decoders take
CRF = "16"  # x264's quality: 0 is lossless, 51 the worst; at 16 no artefact is seen in flat colours
PALETTE_FRAMES = 12  # frames that a GIF's colours are chosen from
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_BT709 = 1  # as matrix, primaries and transfer curve in H.264's tables


def write_clip(
    clip: Clip, outs: Sequence[Path], *, fps: int, facts: Mapping[str, str] | None = None
) -> None:
    """Draws each frame once and writes it to every file of `outs`, by their ends .mp4 and .gif.

    A file appears when it is whole. facts go into its comment. Raises UsageError for another end,
    a frame that is too large or an fps that the format cannot show, or if PyAV is wanted and not
    installed; StoreError if a file cannot be written.
    """
    for out in outs:
        _check(out, clip.size, fps)
    comment = "\n".join(f"{name}: {text}" for name, text in (facts or {}).items())
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(_writer(clip, out, fps, comment=comment)) for out in outs]
        with progress("draw", len(clip.times), unit="frames") as advance:
            for frame in clip.frames():
                for write in writers:
                    write(frame)
                advance(1)


@contextlib.contextmanager
def mp4_writer(
    path: Path, size: tuple[int, int], fps: int, *, comment: str = ""
) -> Iterator[WriteFrame]:
    """Yields a function that adds a frame [H,W,3] to the H.264 video at `path`.

    size is (width, height); an odd one gains a row or column, as yuv420p wants even sides. The
    index stands at the file's start (faststart), so that a browser plays it while it loads.
    """
    av = _pyav(path)
    width, height = (side + side % 2 for side in size)
    try:
        with av.open(
            str(path), "w", format="mp4", options={"movflags": "faststart", "fflags": "+bitexact"}
        ) as container:
            if comment:
                container.metadata["comment"] = comment
            stream = container.add_stream("libx264", rate=Fraction(fps))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            # One thread, and the ways that all processors have: x264's result depends on both, and
            # the quickest way of some depended on what lay in memory before, 1 time in 100.
            stream.options = {
                "crf": CRF,
                "preset": "medium",
                "threads": "1",
                "x264-params": "cpu-independent=1",
            }
            stream.codec_context.thread_count = 1
            stream.codec_context.colorspace = _BT709
            stream.codec_context.color_primaries = _BT709
            stream.codec_context.color_trc = _BT709

            def write(frame: Frame) -> None:
                even = np.pad(
                    frame,
                    ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)),
                    mode="edge",
                )
                picture = av.VideoFrame(width, height, "yuv420p")
                picture.colorspace = _BT709
                for plane, values in zip(picture.planes, yuv420p(even), strict=True):
                    # The encoder also reads what lies behind a row: else bytes of other work.
                    rows = np.pad(values, ((0, 0), (0, plane.line_size - plane.width)), mode="edge")
                    plane.update(rows)
                container.mux(stream.encode(picture))

            yield write
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise StoreError(f"{path.name} cannot be encoded: {error}") from error


def yuv420p(frame: Frame) -> tuple[Plane, Plane, Plane]:
    """Turns RGB [H,W,3] of even sides into Y [H,W], Cb and Cr [H/2,W/2], video range.

    Source: ITU-R BT.709-6, items 3.2 to 3.5; colours are means of 2x2 pixels.
    """
    height, width, _ = frame.shape
    rgb = frame.astype(np.float32) / 255
    mean = rgb.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
    bright = mean @ _LUMA
    blue, red = (mean[..., 2] - bright) / 1.8556, (mean[..., 0] - bright) / 1.5748
    return _plane(16 + 219 * (rgb @ _LUMA)), _plane(128 + 224 * blue), _plane(128 + 224 * red)


def _plane(values: npt.NDArray[np.floating[Any]]) -> Plane:
    return np.ascontiguousarray(np.rint(values).astype(np.uint8))


def gif_writer(
    file: IO[bytes],
    size: tuple[int, int],
    fps: int,
    *,
    palette: Image.Image,
    comment: str = "",
) -> WriteFrame:
    """Writes a GIF's head to `file` and returns a function that adds a frame [H,W,3].

    The GIF plays for ever. palette is shared by all frames (mode P, as `shared_palette` makes it).
    Call `end_gif` after the last frame. Each frame is shown for a whole number of hundredths of a
    second, chosen so that the clip keeps its length.
    """
    colours = bytes(palette.getpalette("RGB") or b"")
    file.write(b"GIF89a" + struct.pack("<HHBBB", *size, 0xF7, 0, 0))  # 256 colours of 8 bits
    file.write(colours.ljust(768, b"\0"))
    file.write(b"\x21\xff\x0bNETSCAPE2.0" + struct.pack("<BBHB", 3, 1, 0, 0))  # 0: for ever
    if comment:
        text = comment.encode()
        file.write(b"\x21\xfe")
        for start in range(0, len(text), 255):
            part = text[start : start + 255]
            file.write(bytes([len(part)]) + part)
        file.write(b"\0")
    shown = 0

    def write(frame: Frame) -> None:
        nonlocal shown
        delay_cs = round(100 * (shown + 1) / fps) - round(100 * shown / fps)
        shown += 1
        # Without dithering: its grain would flicker from frame to frame, and cost twice the bytes.
        picture = Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for part in GifImagePlugin.getdata(picture, duration=10 * delay_cs):
            file.write(part)

    return write


def end_gif(file: IO[bytes]) -> None:
    """Writes a GIF's end."""
    file.write(b";")


def shared_palette(frames: Sequence[Frame]) -> Image.Image:
    """Returns a picture whose palette has the 256 colours that suit all of these frames best."""
    beside = Image.fromarray(np.concatenate(frames, axis=1))
    return beside.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1)


@contextlib.contextmanager
def _writer(clip: Clip, out: Path, fps: int, *, comment: str) -> Iterator[WriteFrame]:
    with contextlib.ExitStack() as stack:
        # First of all, so that a folder that may not be written is found out before any drawing.
        target = stack.enter_context(Store(out.parent).writing(out.name, durable=False))
        if out.suffix.lower() == ".gif":
            step = -(-len(clip.times) // PALETTE_FRAMES)
            thin = 1 + max(clip.size) // 512  # every so many pixels tell the colours well enough
            chosen = clip.frames_at(clip.times[::step])
            palette = shared_palette([frame[::thin, ::thin].copy() for frame in chosen])
            yield gif_writer(target, clip.size, fps, palette=palette, comment=comment)
            end_gif(target)
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="omokage-video-"))
        unfinished = Path(folder) / "clip.mp4"  # faststart writes the file, then moves its index
        with mp4_writer(unfinished, clip.size, fps, comment=comment) as write:
            yield write
        with unfinished.open("rb") as made:
            shutil.copyfileobj(made, target)


def _check(out: Path, size: tuple[int, int], fps: int) -> None:
    most = FPS_MAX.get(out.suffix.lower())
    if most is None:
        raise UsageError(f'{out.name} ends in "{out.suffix}"; .mp4 or .gif wanted')
    if not 1 <= fps <= most:
        raise UsageError(f"{out.name}: {fps} frames a second; 1 to {most} wanted")
    if max(size) > SIDE_MAX_PX:
        raise UsageError(
            f"{out.name} would be {size[0]} x {size[1]} px, at most {SIDE_MAX_PX} wanted: ask for "
            "a smaller --size, fewer cells or other --columns"
        )
    if out.suffix.lower() == ".mp4":
        _pyav(out)


def _pyav(out: Path) -> ModuleType:
    try:
        import av  # only videos need it, and a machine that only trains may lack it
    except ImportError as error:
        raise UsageError(
            f'{out.name} needs the package "av" (PyAV), which is not installed: '
            "pip install av, or write a .gif"
        ) from error
    module: ModuleType = av
    return module
