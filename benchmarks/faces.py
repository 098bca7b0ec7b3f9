"""Pictures a second and core from file to crop, beside a plain script's; recall and false faces.

`python -m benchmarks.faces` reads real pictures ($OMOKAGE_REAL_DATA/illustrations, or --pictures)
and lets three programs crop their faces by turns, picture by picture: the plain script (OpenCV
decodes the whole picture; grey, equalised, detectMultiScale 1.1/5/24; 1.5x crop, resized), and
our own with `fast` and with `thorough`. The clock counts the processor's time of this one thread,
so that what else the machine does weighs little. Writing the crops to files, the same for all, is
left out. The last line on stdout is JSON.

A picture folder may have `face_boxes.csv` (file,x,y,w,h,kind) and `images/`, `no_face/`; then the
found and the false faces are counted as well: a face is found if a box's middle lies in it.
"""

import argparse
import csv
import importlib.resources
import json
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from dataset.cropping import Face, FaceSettings, faces_in
from dataset.decode import UnreadablePicture
from dataset.geometry import Box
from dataset.progress import progress

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PLAIN, FAST, THOROUGH = "plain script", "fast", "thorough"
SIDE_PX = FaceSettings().crop_px
LARGE_PX = 64  # lost: faces at least so large that the plain script finds and the other does not
CLEAR = "clear"

Program = Callable[[Path], list[Box]]


@dataclass(frozen=True)
class Truth:
    """A face that a person has marked."""

    box: Box
    kind: str

    def holds(self, found: Box) -> bool:
        """Whether the centre of a found box is inside it."""
        x, y, box = found.x + found.w / 2, found.y + found.h / 2, self.box
        return box.x <= x <= box.x + box.w and box.y <= y <= box.y + box.h


@dataclass
class Tally:
    """What one program did on all pictures."""

    seconds: list[float] = field(default_factory=list)  # of each run, over all pictures
    boxes: dict[str, list[Box]] = field(default_factory=dict)  # by file


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit code."""
    options = _options(arguments)
    folder = Path(options.pictures)
    files = sorted(path for path in _files(folder) if path.suffix.lower() in _SUFFIXES)
    if not files:
        print(f"benchmark: {folder}: no pictures there; --pictures names them", file=sys.stderr)
        return 1
    tallies = _measure(files, options.runs)
    truth = _truth(folder)
    speed = _print_speed(tallies, len(files))
    counts = {name: _counts(tally, truth) for name, tally in tallies.items()} if truth else {}
    for name, row in counts.items():
        row["lost"] = len(_large(tallies[PLAIN], truth) - _large(tallies[name], truth))
    if counts:
        _print_counts(counts)
    print(json.dumps(_result(speed, counts, pictures=len(files), runs=options.runs)), flush=True)
    return 0


_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif"}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    real = Path(os.environ.get("OMOKAGE_REAL_DATA", REAL_DATA))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faces", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--pictures",
        default=str(real / "illustrations"),
        metavar="DIR",
        help="a folder of pictures (default: $OMOKAGE_REAL_DATA/illustrations)",
    )
    parser.add_argument(
        "--runs", type=int, default=3, metavar="N", help="times over all pictures (default: 3)"
    )
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error(f"--runs is {options.runs}; expected at least 1")
    return options


def _files(folder: Path) -> Iterator[Path]:
    parts = [folder / "images", folder / "no_face"]
    for part in parts if (folder / "images").is_dir() else [folder]:
        if part.is_dir():
            yield from (path for path in part.iterdir() if path.is_file())


def _measure(files: list[Path], runs: int) -> dict[str, Tally]:
    cv2.setNumThreads(1)
    programs: dict[str, Program] = {
        PLAIN: plain_script(),
        FAST: _ours(FaceSettings(mode="fast", min_sharpness=0)),
        THOROUGH: _ours(FaceSettings(mode="thorough", min_sharpness=0)),
    }
    for program in programs.values():
        program(files[0])  # warm up: libraries and cascades are loaded
    tallies = {name: Tally() for name in programs}
    with progress("benchmark", runs * len(files), unit="pictures") as advance:
        for _ in range(runs):
            seconds = dict.fromkeys(programs, 0.0)
            for path in files:
                for name, program in programs.items():
                    began = time.thread_time()
                    boxes = program(path)
                    seconds[name] += time.thread_time() - began
                    tallies[name].boxes[path.name] = boxes
                advance(1)
            for name, tally in tallies.items():
                tally.seconds.append(seconds[name])
    return tallies


def plain_script() -> Program:
    """Returns the script that one would write first."""
    resource = importlib.resources.files("danbooru") / "lbpcascade_animeface.xml"
    cascade = cv2.CascadeClassifier(str(resource))

    def crop(path: Path) -> list[Box]:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            return []
        grey = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
        found = cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(24, 24))
        boxes = [Box(*(int(value) for value in row)) for row in found]
        for box in boxes:
            reach = 0.75 * box.w
            x, y = box.x + box.w / 2, box.y + box.h / 2
            part = picture[
                max(0, round(y - reach)) : round(y + reach),
                max(0, round(x - reach)) : round(x + reach),
            ]
            cv2.resize(part, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        return boxes

    return crop


def _ours(settings: FaceSettings) -> Program:
    def crop(path: Path) -> list[Box]:
        try:
            faces = faces_in(path.read_bytes(), "0" * 64, settings, where=path.name)
        except UnreadablePicture:
            return []
        return [_box_of(face) for face in faces]

    return crop


def _box_of(face: Face) -> Box:
    return Box(*(face.row[name] for name in "xywh"))


def _truth(folder: Path) -> dict[str, list[Truth]]:
    listed = folder / "face_boxes.csv"
    truth: dict[str, list[Truth]] = defaultdict(list)
    if listed.is_file():
        with listed.open(newline="") as file:
            for row in csv.DictReader(file):
                box = Box(*(round(float(row[name])) for name in "xywh"))
                truth[row["file"]].append(Truth(box, row["kind"]))
    return truth


def _counts(tally: Tally, truth: dict[str, list[Truth]]) -> dict[str, int]:
    """Faces found by kind, and boxes on none."""
    counts = dict.fromkeys(("clear", "clear_of", "all", "all_of", "false", "boxes"), 0)
    for name, boxes in tally.boxes.items():
        faces = truth.get(name, [])
        counts["boxes"] += len(boxes)
        counts["false"] += sum(not any(face.holds(box) for face in faces) for box in boxes)
        for face in faces:
            hit = any(face.holds(box) for box in boxes)
            counts["all"] += hit
            counts["all_of"] += 1
            counts["clear"] += hit and face.kind == CLEAR
            counts["clear_of"] += face.kind == CLEAR
    return counts


def _large(tally: Tally, truth: dict[str, list[Truth]]) -> set[tuple[str, Box]]:
    """The faces of at least LARGE_PX that were found, by file and box."""
    return {
        (name, face.box)
        for name, boxes in tally.boxes.items()
        for face in truth.get(name, [])
        if min(face.box.w, face.box.h) >= LARGE_PX and any(face.holds(box) for box in boxes)
    }


def _print_speed(tallies: dict[str, Tally], pictures: int) -> dict[str, dict[str, float]]:
    """Prints and returns, by program: pictures/s and core, its deviation, the ratio to plain."""
    speed = {}
    for name, tally in tallies.items():
        rates = [pictures / seconds for seconds in tally.seconds]
        ratios = [
            plain / own for plain, own in zip(tallies[PLAIN].seconds, tally.seconds, strict=True)
        ]
        speed[name] = {
            "pictures_per_s": round(statistics.median(rates), 2),
            "stdev": round(statistics.stdev(rates), 2) if len(rates) > 1 else 0.0,
            "ratio": round(statistics.median(ratios), 2),
        }
    print(f"{'':14}{'pictures/s and core':>21}{'to the plain script':>21}")
    for name, row in speed.items():
        print(f"{name:14}{row['pictures_per_s']:>21.1f}{row['ratio']:>20.1f}x")
    return speed


def _print_counts(counts: dict[str, dict[str, int]]) -> None:
    print(f"\n{'':14}{'clear faces':>16}{'all faces':>16}{'false':>14}{'lost':>6}")
    for name, row in counts.items():
        clear, whole = f"{row['clear']} of {row['clear_of']}", f"{row['all']} of {row['all_of']}"
        print(
            f"{name:14}{clear:>16}{whole:>16}{row['false']:>7} of {row['boxes']:>3}{row['lost']:>6}"
        )


def _result(
    speed: dict[str, dict[str, float]],
    counts: dict[str, dict[str, int]],
    *,
    pictures: int,
    runs: int,
) -> dict[str, object]:
    return {
        "benchmark": "faces",
        "value": speed[FAST]["pictures_per_s"],
        "unit": "pictures/s/core",
        "stdev": speed[FAST]["stdev"],
        "ratios": {name: speed[name]["ratio"] for name in (FAST, THOROUGH)},
        "speed": speed,
        "found": counts,
        "pictures": pictures,
        "runs": runs,
        "device": f"cpu x1 of {os.cpu_count()} ({platform.machine()}), OpenCV {cv2.__version__}",
    }


if __name__ == "__main__":
    sys.exit(main())
