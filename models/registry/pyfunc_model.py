"""The registered model's code, one file that MLflow carries along; it imports nothing of ours.

`predict` takes a column "labels" of texts such as "blonde_hair,blue_eyes", a row a request, and
returns uint8 pictures [rows * n, H, W, 3]: picture k of all has the latent of seed + k. An
empty text asks for labels as they come: picture k has the real label row of number seed + k. The
parameter `labels` is a text of the same kind, whose labels every row gets besides its own.
"""

import ast
import difflib
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

CHUNK = 64  # pictures a pass; the trainer's own sampler uses the same, so the bytes are the same
DEFAULTS: dict[str, Any] = {"seed": 0, "psi": 1.0, "n": 1, "labels": ""}
MOST_PICTURES = 10_000


class AvatarGenerator(PythonModel):
    """Draws faces with given labels."""

    def load_context(self, context: Any) -> None:
        """Loads the program and the spec that the model carries; nothing is unpickled."""
        self._spec = json.loads(Path(context.artifacts["spec"]).read_text())
        self._program = torch.export.load(context.artifacts["program"]).module()
        self._known: list[str] = self._spec["labels"]
        typical = json.loads(Path(context.artifacts["typical"]).read_text())
        self._typical = self._rows(typical, where="typical labels, row")
        _raise_for_unknown_params()

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray[Any, Any]:
        """Draws n pictures for each row; raises ValueError naming what is wrong and what is right.

        params: seed (from 0), psi (0 = the mean face, 1 = full variety, up to 2), n (from 1),
        labels (names that every row gets besides its own).
        """
        given = {**DEFAULTS, **(params or {})}
        _check_params(given, rows=len(model_input))
        n, seed, psi = int(given["n"]), int(given["seed"]), torch.tensor(float(given["psi"]))
        everyones = _split(given["labels"])
        self._refuse_unknown_labels(everyones, where="parameter labels")
        names = [[*own, *everyones] for own in _names(model_input)]
        rows = self._rows(names, where="row").repeat(n, axis=0)
        for k in range(len(rows)):
            if not names[k // n]:
                rows[k] = self._typical[(seed + k) % len(self._typical)]
        labels = torch.from_numpy(rows)
        pictures = []
        for start in range(0, len(labels), CHUNK):
            part = labels[start : start + CHUNK]
            z = self._latents(seed + start, len(part))
            with torch.no_grad():
                images = self._program(z, part, psi)
            scaled = images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
            pictures.append(scaled.permute(0, 2, 3, 1).contiguous().numpy())
        return np.concatenate(pictures)

    def _latents(self, seed: int, count: int) -> torch.Tensor:
        draw = torch.randn if self._spec["z_dist"] == "normal" else torch.rand
        rows = [
            draw(self._spec["z_dim"], generator=torch.Generator().manual_seed(seed + k))
            for k in range(count)
        ]
        return torch.stack(rows) * float(self._spec.get("z_std", 1.0))

    def _rows(
        self, wanted: list[list[str]], *, where: str
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        rows = np.zeros((len(wanted), len(self._known)), dtype=np.float32)
        for number, names in enumerate(wanted):
            self._refuse_unknown_labels(names, where=f"{where} {number}")
            for name in names:
                rows[number, self._known.index(name)] = 1
        return rows

    def _refuse_unknown_labels(self, names: list[str], *, where: str) -> None:
        for name in names:
            if name not in self._known:
                raise ValueError(
                    f'{where}: unknown label "{name}"{_nearest(name, self._known)}. '
                    f"Labels: {', '.join(self._known)}."
                )


def _names(model_input: pd.DataFrame) -> list[list[str]]:
    if "labels" not in model_input.columns:
        raise ValueError(
            f'the input has the columns {list(model_input.columns)}; one "labels" is wanted, '
            'with texts such as "blonde_hair,blue_eyes"'
        )
    texts = list(model_input["labels"])
    if not texts:
        raise ValueError("the input has no rows; one row a request is wanted")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"row {number}: labels is {text!r}, a text is wanted")
    return [_split(text) for text in texts]


def _split(text: str) -> list[str]:
    parts = [part.strip().replace(" ", "_") for part in text.split(",")]
    return [name for name in parts if name]


def _check_params(given: dict[str, Any], *, rows: int) -> None:
    _refuse_unknown(name for name in given if name not in DEFAULTS)
    if not isinstance(given["labels"], str):
        raise ValueError(f'labels is {given["labels"]!r}; a text such as "blonde_hair" wanted')
    if not 0 <= float(given["psi"]) <= 2:
        raise ValueError(f"psi is {given['psi']}; 0 (the mean face) to 2 wanted, 1 is full variety")
    if not 0 <= int(given["seed"]) < 2**62:
        raise ValueError(f"seed is {given['seed']}; a whole number from 0 wanted")
    if int(given["n"]) < 1 or int(given["n"]) * rows > MOST_PICTURES:
        raise ValueError(f"n is {given['n']} for {rows} rows; 1 to {MOST_PICTURES} pictures wanted")


def _refuse_unknown(names: Iterable[str]) -> None:
    unknown = sorted(names)
    if unknown:
        quoted = ", ".join(f'"{name}"{_nearest(name, DEFAULTS)}' for name in unknown)
        raise ValueError(f"unknown parameter {quoted}. Parameters: {', '.join(DEFAULTS)}.")


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


class _UnknownParams(logging.Filter):
    """Raises where MLflow only warns.

    MLflow drops unknown parameters before `predict` can see them and logs a warning. A misspelt
    `sead` would then draw the wrong faces without a word, so its warning, if it is about a model
    with exactly our parameters, becomes an error.
    """

    params = tuple(DEFAULTS)  # another version of the model, in the same process, may have others
    pattern = re.compile(r"Unrecognized params (\[.*?\]) are .*Supported params are: (\{.*?\})")

    def filter(self, record: logging.LogRecord) -> bool:
        """Raises ValueError for our unknown parameters; lets every other record through."""
        found = self.pattern.search(record.getMessage())
        if found and ast.literal_eval(found[2]) == set(DEFAULTS):
            _refuse_unknown(ast.literal_eval(found[1]))
        return True


def _raise_for_unknown_params() -> None:
    logger = logging.getLogger("mlflow.models.utils")
    if not any(getattr(one, "params", None) == _UnknownParams.params for one in logger.filters):
        logger.addFilter(_UnknownParams())


set_model(AvatarGenerator())
