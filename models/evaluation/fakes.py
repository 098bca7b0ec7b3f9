"""The fakes of an evaluation: drawn and measured chunk by chunk, and never drawn twice.

`EvalProgress` counts them: a bar for people, messages for the orchestrator, and the stop.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dataset.errors import TrainingError
from dataset.progress import Advance, progress
from dataset.store import LocalFolder, Store, digest_of, file_lock
from models.evaluation.feature_rows import FeatureRows, RowExtractor, RowFile
from models.families.base import GeneratorNet
from models.io.entry_point import Report, Stopped
from models.labels import Rows
from models.sampling.draw import CHUNK, Pictures, draw
from models.training.run_folder import code_version

REPORT_EVERY_S = 3.0


class EvalProgress:
    """Counts pictures over the whole evaluation; each call may raise Stopped."""

    def __init__(
        self, total: int, *, report: Report, advance: Advance, stop_signal: Callable[[], int]
    ) -> None:
        self._total, self._done, self._stage = total, 0, ""
        self._report, self._advance, self._stop_signal = report, advance, stop_signal
        self._reported = time.monotonic()

    def stage(self, name: str) -> None:
        """Says what is being done from now on."""
        self._stage = name
        self._send({})
        self.check()

    def report_facts(self, **facts: Any) -> None:
        """Says what the present stage found."""
        self._send(facts)

    def advance(self, count: int) -> None:
        """Counts pictures that are done, and safe on disk."""
        self._done += count
        self._advance(count)
        if time.monotonic() - self._reported >= REPORT_EVERY_S:
            self._send({})
        self.check()

    def check(self) -> None:
        """Raises Stopped if a signal asks for it."""
        if signum := self._stop_signal():
            raise Stopped(
                signum,
                f"stopped at {self._done:,} of {self._total:,} pictures; the same command goes on",
            )

    def _send(self, facts: dict[str, Any]) -> None:
        self._reported = time.monotonic()
        done = {"stage": self._stage, "done": self._done, "of": self._total}
        self._report({"progress": {**done, **facts}})


@contextlib.contextmanager
def eval_progress(
    total: int, *, report: Report, stop_signal: Callable[[], int]
) -> Iterator[EvalProgress]:
    """Yields the counter of an evaluation of `total` pictures."""
    with progress("evaluate", total, unit="pictures") as advance:
        yield EvalProgress(total, report=report, advance=advance, stop_signal=stop_signal)


WORK = "evaluating"
STATE = "state.json"


@dataclasses.dataclass(frozen=True, eq=False)
class FakeSet:
    """Pictures to draw: labels [N,L] in the generator's order, N seeds, and psi."""

    name: str
    labels: Rows
    seeds: Sequence[int]
    psi: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, generator: GeneratorNet, start: int, stop: int) -> Pictures:
        """Draws the pictures from `start` to before `stop`."""
        return draw(generator, self.labels[start:stop], self.seeds[start:stop], psi=self.psi)


class WorkFolder:
    """The rows of fakes on disk while an evaluation is not finished."""

    def __init__(self, scratch: LocalFolder, path: str) -> None:
        self._scratch, self._path = scratch, path
        self._folder: Path = scratch.make_folder(path)

    def feature_rows(
        self,
        fakes: FakeSet,
        generator: GeneratorNet,
        extract: RowExtractor,
        *,
        progress: EvalProgress,
    ) -> FeatureRows:
        """Returns the rows of a set, after drawing and measuring the chunks that are missing."""
        path = self._folder / f"{fakes.name}.f32"
        file = RowFile(path, len(fakes), extract.width, chunk=CHUNK)
        progress.advance(file.done)
        while file.done < file.rows:
            start, stop = file.done, min(file.done + CHUNK, file.rows)
            with finite(generator):
                pictures = fakes.draw(generator, start, stop)
            file.append(extract(pictures))
            progress.advance(stop - start)
        return extract.read(file)

    def remove(self) -> None:
        """Takes the folder away, once the numbers are written."""
        self._scratch.remove(self._path)


@contextlib.contextmanager
def work_folder(store: Store, out: str, identity: Mapping[str, Any]) -> Iterator[WorkFolder]:
    """Yields the work folder of the evaluation that is written to `out`, alone.

    What an interrupted evaluation left is kept if it was of the same identity by the same code,
    else it is begun again. Another process with the same evaluation is waited for.
    """
    local = store.scratch
    path = f"{WORK}/{digest_of(store.url(out))[:24]}"
    with file_lock(local.local(f"{path}.lock")):
        wanted = {**identity, "code": code_version()}
        state = f"{path}/{STATE}"
        if not local.exists(state) or local.read_json(state) != wanted:
            local.remove(path)
            local.write_json(state, wanted)
        yield WorkFolder(local, path)


@contextlib.contextmanager
def finite(generator: GeneratorNet) -> Iterator[None]:
    """Raises TrainingError if the generator draws anything that is no number."""

    def check(_network: torch.nn.Module, _given: Any, images: torch.Tensor) -> None:
        if not bool(torch.isfinite(images).all()):
            bad = int((~torch.isfinite(images)).flatten(1).any(dim=1).sum())
            raise TrainingError(
                f"{bad} of {len(images)} pictures hold values that are not finite: the generator's "
                "weights are broken, or its training has run away. Take an earlier checkpoint."
            )

    hook = generator.register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()
