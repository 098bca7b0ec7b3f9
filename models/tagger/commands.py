"""The commands of `models.tag`: train, evaluate and apply a tagger, and label a home's faces."""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dataset.compute import POOLS, end_with_parent, parse_compute
from dataset.engines import network_engine_of
from dataset.errors import EmptyStageError, OmokageError, UsageError
from dataset.progress import progress
from dataset.schemas import FACES_PATH
from dataset.store import Store, digest_of, open_home
from dataset.vocabulary import appearance
from models.io.entry_point import Report, Stopped, stop_signals
from models.tagger.data import HomeFaces, faces_of, picture_files, read_tags, tag_pictures
from models.tagger.home import (
    MAX_HELD_OUT_ONNX,
    Scored,
    evaluate_at_home,
    stored_scores,
    table,
    trained_tagger,
)
from models.tagger.machine_labels import (
    MachineLabels,
    inputs_digest,
    standing,
    summary_of,
    write_machine_labels,
    write_none,
)
from models.tagger.model import LabelModel, Tagger, TaggerConfig, load, overridden
from models.tagger.onnx import OnnxTagger
from models.tagger.scores import Scores
from models.tagger.train import Progress


def train(options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Trains on the tagged faces of a home; returns the summary."""
    config = overridden(TaggerConfig(), options.set)
    store = open_home(options.home)
    faces = faces_of(store)
    with stop_signals() as stop_signal, _shown(report, stop_signal) as say:
        made = trained_tagger(
            store,
            faces,
            config,
            eval_frac=options.eval_frac,
            threshold=options.threshold,
            on_progress=say,
        )
    _say_scores(made.scores)
    return _of_model(made.model, made.scores) | {"folder": made.folder, "reused": made.reused}


def evaluate(options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Scores a tagger on the held-out faces of a home; returns the summary."""
    store = open_home(options.home)
    faces = faces_of(store)
    model = _model(options, faces.labels)
    folder = options.out or f"taggers/evaluation-{model.digest[:12]}"
    scores = evaluate_at_home(
        store, faces, model, folder, eval_frac=options.eval_frac, threshold=options.threshold
    )
    if scores is None:
        raise EmptyStageError(
            f"no tagged face of {store.url(FACES_PATH)} stands in the eval split "
            f"(eval_frac {options.eval_frac:g}): there is nothing to measure on"
        )
    _say_scores(scores)
    return _of_model(model, scores) | {"folder": folder}


def apply(options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Labels the untagged faces of a home with a given tagger; returns the summary."""
    if not options.home:
        raise UsageError("apply: pictures or --home are wanted; try `apply --help`")
    store = open_home(options.home)
    faces = faces_of(store)
    model = _model(options, faces.labels)
    made, reused = _labelled(
        store, faces, model, {"digest": model.digest}, options=options, report=report
    )
    return _of_table(made, faces) | {"reused": reused}


def label(options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Gives every untagged face of a home its labels, training a tagger if need be."""
    config = overridden(TaggerConfig(), options.set)
    store = open_home(options.home)
    faces = faces_of(store)
    if not faces.untagged.num_rows:
        return _of_table(write_none(store, faces.labels), faces) | {"reused": False}
    if options.onnx:
        made = _scored_onnx(store, faces, options)
    else:
        with stop_signals() as stop_signal, _shown(report, stop_signal) as say:
            made = trained_tagger(
                store,
                faces,
                config,
                eval_frac=options.eval_frac,
                threshold=options.threshold,
                on_progress=say,
            )
    _say_scores(made.scores)
    identity = {"digest": made.model.digest}
    labels, reused = _labelled(store, faces, made.model, identity, options=options, report=report)
    summary = _of_table(labels, faces) | _of_model(made.model, made.scores)
    return summary | {"folder": made.folder, "reused": reused}


def _scored_onnx(store: Store, faces: HomeFaces, options: argparse.Namespace) -> Scored:
    model = _model(options, faces.labels)
    measured = digest_of({"faces": faces.tagged_digest, "eval_frac": options.eval_frac})
    folder = f"taggers/onnx-{model.digest[:12]}-{measured[:12]}"
    scores = stored_scores(store, folder, options.threshold) or evaluate_at_home(
        store,
        faces,
        model,
        folder,
        eval_frac=options.eval_frac,
        threshold=options.threshold,
        at_most=MAX_HELD_OUT_ONNX,
    )
    return Scored(folder, model, scores, reused=False)


def _labelled(
    store: Store,
    faces: HomeFaces,
    model: LabelModel,
    identity: dict[str, Any],
    *,
    options: argparse.Namespace,
    report: Report,
) -> tuple[MachineLabels, bool]:
    """Writes the table unless one of the same faces and tagger stands; tells whether it did."""
    threshold = options.threshold
    inputs = inputs_digest(faces, identity)
    stands = standing(store, faces.labels, inputs=inputs)
    if stands is not None:
        print("already labelled: machine_labels.parquet stands", file=sys.stderr)
        return summary_of(stands, faces.labels, threshold=threshold), True
    count = faces.untagged.num_rows
    # A GPU of this machine is quicker than a cluster's processors.
    where = POOLS[0] if _is_on_gpu(model) else options.compute
    compute = parse_compute(where, workers=os.cpu_count() or 1)
    with (
        stop_signals() as stop_signal,
        network_engine_of(compute) as engine,
        progress("tag", count, unit="faces") as advance,
    ):
        done = 0

        def tick(some: int) -> None:
            nonlocal done
            done += some
            advance(some)
            report({"progress": {"tagged": done, "of_faces": count}})
            _stop_if_asked(stop_signal)

        made = write_machine_labels(
            store, faces, model, inputs=inputs, threshold=threshold, advance=tick, engine=engine
        )
    return made, False


def _is_on_gpu(model: LabelModel) -> bool:
    return isinstance(model, Tagger) and next(model.network.parameters()).is_cuda


@contextlib.contextmanager
def _shown(report: Report, stop_signal: Callable[[], int]) -> Iterator[Progress]:
    """Yields a function that shows a training's progress, passes it on, and ends on a signal."""
    with contextlib.ExitStack() as bars:
        advance: Callable[[int], None] | None = None
        seen = 0

        def say(payload: dict[str, Any]) -> None:
            nonlocal advance, seen
            if advance is None:
                bar = progress("train tagger", payload["of_images"], unit="pictures")
                advance = bars.enter_context(bar)
            advance(payload["images_seen"] - seen)
            seen = payload["images_seen"]
            report({"progress": payload})
            _stop_if_asked(stop_signal)

        yield say


def _stop_if_asked(stop_signal: Callable[[], int]) -> None:
    number = stop_signal()
    if number:
        raise Stopped(number, "stopped; nothing half-made is left, the same command begins again")


def _model(options: argparse.Namespace, labels: tuple[str, ...]) -> LabelModel:
    """The tagger that the options name; its labels must be these, in any order."""
    if options.onnx:
        if not options.tags:
            raise UsageError("--onnx wants --tags too: the model's list of tags, one a row")
        return OnnxTagger(
            Path(options.onnx),
            Path(options.tags),
            labels,
            side_px=options.input_size,
            layout=options.layout,
            range=options.range,
            logits=options.logits,
        )
    if not options.model:
        raise UsageError("a tagger is wanted: --model DIR, or --onnx FILE with --tags FILE")
    model = load(options.model, device=TaggerConfig(device=options.device).torch_device())
    if labels and model.label_names != labels:
        raise UsageError(
            f"{options.model} knows {', '.join(model.label_names)}; the labels of this home are "
            f"{', '.join(labels)}. Train a tagger on it: python -m models.tag train --home …"
        )
    return model


def apply_to_pictures(options: argparse.Namespace) -> int:
    """Prints a line for each picture; returns 0, or 1 if one could not be read."""
    if options.die_with_parent is not None:
        end_with_parent(options.die_with_parent or None)
    unreadable = 0
    try:
        files = picture_files([Path(path) for path in options.paths])
        model = _model(options, _wanted_labels(options))
        for found in tag_pictures(model, files):
            if found.fault is not None:
                unreadable += 1
                print(f"error: {found.fault}", file=sys.stderr)
                continue
            labels = found.labels(options.threshold)
            if options.json:
                line = {"file": found.file, "labels": labels, "probabilities": found.probabilities}
                print(json.dumps(line, ensure_ascii=False), flush=True)
            else:
                shown = (f"{name} {found.probabilities[name]:.2f}" for name in labels)
                print(f"{found.file}\t{', '.join(shown)}", flush=True)
    except OmokageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if unreadable else 0


def _wanted_labels(options: argparse.Namespace) -> tuple[str, ...]:
    """The labels that an ONNX tagger is to give: all appearance tags of its list.

    Empty for a tagger of ours, which knows its own.
    """
    if not (options.onnx and options.tags):
        return ()
    known = appearance().groups
    found = tuple(dict.fromkeys(tag for tag in read_tags(Path(options.tags)) if tag in known))
    if not found:
        raise UsageError(f"{options.tags} holds no appearance tag such as blonde_hair")
    return found


def _of_model(model: LabelModel, scores: Scores | None) -> dict[str, Any]:
    summary: dict[str, Any] = {"tagger": model.digest, "labels": list(model.label_names)}
    return summary | {"scores": None if scores is None else scores.to_json()}


def _of_table(made: MachineLabels, faces: HomeFaces) -> dict[str, Any]:
    summary = dataclasses.asdict(made)
    summary["table_digest"] = summary.pop("digest")
    return summary | {"tagged": faces.tagged.num_rows, "untagged": faces.untagged.num_rows}


def _say_scores(scores: Scores | None) -> None:
    if scores is None:
        print("no tagged face is held out: the tagger was not measured", file=sys.stderr)
    else:
        print(table(scores), file=sys.stderr)
