"""The generator of NVIDIA's stylegan2-ada-pytorch: its pickles, and where our tensors stand in it.

A `.pkl` holds a dict with G, D and G_ema. Each is a call of `_reconstruct_persistent_obj` with the
class's source code and the module's state; the code is neither kept nor looked at here, the state
is what a torch module keeps: `_parameters`, `_buffers`, `_modules` and plain attributes. Layout:

    mapping.fc0 ... fc(M-1)         weight [W, Z or W], bias [W]; mapping.w_avg [W]; with C labels
                                    mapping.embed.{weight [W,C], bias [W]} and fc0 of [W, Z+W]
    synthesis.b4                    const [C,4,4], conv1, torgb
    synthesis.b8 ... bR             conv0 (doubles the side), conv1, torgb
    conv0, conv1                    weight [O,I,3,3], bias [O], affine.{weight [I,W], bias [I]},
                                    noise_const [s,s], noise_strength []
    torgb                           weight [3,I,1,1], bias [3], affine
    resample_filter                 [4,4] in every block and every conv

conv_clamp, an attribute of every conv and torgb, bounds what they give; None does not.

Source: https://github.com/NVlabs/stylegan2-ada-pytorch, whose layout this describes.
"""

import dataclasses
import io
import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from dataset.errors import TrainingError
from models.families.base import MAX_CLAMP
from models.families.stylegan2 import MAPPING_LR
from models.import_stylegan2.safe_unpickle import Refused, plain_makers, read_pickle
from models.import_stylegan2.tensor_table import Found, Row, Table, spec_from
from models.import_stylegan2.torch_file import StoredTensor, storage_from_bytes, tensor_makers
from models.io.safe_io import shown

LAYOUT = "nvidia"
MAX_MODULES = 5_000  # a 1024 px generator has about 80
MAX_NESTING = 8  # synthesis, block, layer, affine: 4
MAX_LABELS = 10_000
NETWORKS_OF_TENSORFLOW = "dnnlib.tflib.network.Network"


@dataclasses.dataclass(frozen=True)
class Module:
    """A network of the file: its class's name and its state; nothing of its code."""

    class_name: str
    state: dict[Any, Any]

    def children(self) -> dict[str, "Module"]:
        """Returns the modules in it by name."""
        found = self._part("_modules")
        return {str(name): one for name, one in found.items() if isinstance(one, Module)}

    def tensors(self) -> dict[str, StoredTensor]:
        """Returns its own parameters and buffers by name."""
        both = {**self._part("_parameters"), **self._part("_buffers")}
        return {str(name): one for name, one in both.items() if isinstance(one, StoredTensor)}

    def _part(self, name: str) -> dict[Any, Any]:
        found = self.state.get(name)
        return found if isinstance(found, dict) else {}


def read_nvidia(content: bytes, *, where: str) -> Found:
    """Understands a `.pkl` of stylegan2-ada-pytorch.

    Raises TrainingError naming what the file asks for beyond tensors and plain values, what it
    holds if that is no generator of this layout, and every tensor that does not fit.
    """
    makers = plain_makers() | tensor_makers()
    makers["torch_utils.persistence._reconstruct_persistent_obj"] = _module
    makers["torch.storage._load_from_bytes"] = storage_from_bytes(where)
    makers[NETWORKS_OF_TENSORFLOW] = _of_tensorflow
    held = read_pickle(io.BytesIO(content), makers, where=where)
    generator = _generator(held, where=where)
    modules = _walked(generator, where=where)
    _check_architecture(modules, where=where)
    tensors = {
        f"{path}.{name}".removeprefix("."): tensor
        for path, module in modules.items()
        for name, tensor in module.tensors().items()
    }
    return _understood(tensors, modules, where=where, size_bytes=len(content))


def _module(*args: Any) -> Module:
    """Stands for NVIDIA's function, which would run the source code in its argument."""
    meta = args[0] if len(args) == 1 else None
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise Refused("rebuilds something else than a class of theirs")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise Refused("rebuilds a class without a name or a state")
    return Module(shown(name), state)


def _of_tensorflow(*_: Any) -> Any:
    raise Refused(
        "holds networks of the TensorFlow version; convert it with that project's legacy.py first"
    )


def _generator(held: Any, *, where: str) -> Module:
    found = held.get("G_ema") if isinstance(held, dict) else held
    if isinstance(found, Module):
        return found
    if isinstance(held, dict) and "G_ema" in held:
        raise TrainingError(
            f"{where}: G_ema is a {type(found).__name__}, a network wanted; pickle the network "
            'itself: {"G_ema": G}'
        )
    if isinstance(held, dict):
        names = ", ".join(shown(str(name)) for name in list(held)[:6])
        raise TrainingError(
            f"{where} holds no generator: G_ema is wanted, it holds {names or 'nothing'}"
        )
    raise TrainingError(f"{where} holds a {type(held).__name__}; a dict with G_ema wanted")


def _walked(top: Module, *, where: str) -> dict[str, Module]:
    """Returns all modules of a network by path, "" being the network itself."""
    found: dict[str, Module] = {}
    waiting = [("", top)]
    while waiting:
        path, module = waiting.pop()
        found[path] = module
        if len(found) > MAX_MODULES or path.count(".") > MAX_NESTING:
            raise TrainingError(
                f"{where}: more than {MAX_MODULES:,} modules, or nested more than {MAX_NESTING} "
                "deep; refused"
            )
        for name, child in module.children().items():
            if not name or "." in name:
                raise TrainingError(f'{where}: a module is named "{shown(name)}"; refused')
            waiting.append((f"{path}.{name}".removeprefix("."), child))
    return found


def _check_architecture(modules: dict[str, Module], *, where: str) -> None:
    """Raises TrainingError if the network is another than the skip generator of StyleGAN2."""
    top = modules[""].class_name
    if "synthesis.input" in modules or any(name.startswith("synthesis.L0") for name in modules):
        raise TrainingError(
            f"{where} holds an alias-free generator (StyleGAN3); one of StyleGAN2 wanted"
        )
    if "synthesis" not in modules or "mapping" not in modules:
        raise TrainingError(f'{where}: the network "{top}" is no generator of StyleGAN2')
    for path, module in modules.items():
        kind = "resnet" if path.endswith(".skip") else _kind(module.state, "architecture", "skip")
        if kind != "skip":
            raise TrainingError(f'{where}: {path} has the architecture "{kind}", "skip" wanted')
        wanted = "lrelu" if re.search(r"\.(conv\d|fc\d+)$", path) else "linear"
        kind = _kind(module.state, "activation", wanted)
        if kind != wanted:
            raise TrainingError(f'{where}: {path} has the activation "{kind}", "{wanted}" wanted')


def _kind(state: dict[Any, Any], name: str, default: str) -> str:
    found = state.get(name, default)
    return shown(found) if isinstance(found, str) else type(found).__name__


def _understood(
    tensors: dict[str, StoredTensor], modules: dict[str, Module], *, where: str, size_bytes: int
) -> Found:
    table = Table(tensors, where=where, size_bytes=size_bytes)
    sides = _sides(modules, where=where)
    colours = table.shape("synthesis.b4.torgb.weight", dimensions=4)[0]
    if colours != 3:
        raise TrainingError(f"{where}: its pictures have {colours} channels, 3 wanted")
    layers = sum(re.fullmatch(r"mapping\.fc\d+", path) is not None for path in modules)
    w_dim = table.shape("synthesis.b4.conv1.affine.weight", dimensions=2)[1]
    labels = 0
    if "mapping.embed.weight" in tensors:
        labels = table.shape("mapping.embed.weight", dimensions=2)[1]
    z_dim = table.shape("mapping.fc0.weight", dimensions=2)[1] - (w_dim if labels else 0)
    if labels > MAX_LABELS:
        raise TrainingError(f"{where}: it has {labels:,} labels, {MAX_LABELS:,} at most")
    if z_dim < 1:
        raise TrainingError(f"{where}: mapping.fc0.weight leaves no room for a latent")
    widths = {
        side: table.shape(f"synthesis.b{side}.conv1.weight", dimensions=4)[0] for side in sides
    }
    spec = spec_from(
        widths,
        labels=tuple(f"label_{number}" for number in range(labels)),
        z_dim=z_dim,
        w_dim=w_dim,
        mapping_layers=layers,
        where=where,
    )
    spec = dataclasses.replace(spec, conv_clamp=_clamp(modules, where=where))
    filters = [name for name in tensors if name.endswith("resample_filter")]
    table.check_filters(filters, gain=1.0)
    rows = [
        *_mapping_rows(layers, z_dim=z_dim, w_dim=w_dim, labels=labels),
        *_synthesis_rows(widths, w_dim=w_dim),
    ]
    taken = table.taken(rows, ignored=filters)
    _fold_learning_rate(taken, modules, layers=layers, where=where)
    return Found(LAYOUT, spec, taken)


def _sides(modules: dict[str, Module], *, where: str) -> list[int]:
    matches = [re.fullmatch(r"synthesis\.b(\d{1,5})", path) for path in modules]
    sides = sorted(int(match[1]) for match in matches if match)
    if 4 not in sides:
        raise TrainingError(f"{where}: the generator has no block synthesis.b4")
    return sides


def _fold_learning_rate(
    tensors: dict[str, Tensor], modules: dict[str, Module], *, layers: int, where: str
) -> None:
    """Multiplies the mapping's weights by what their rate differs from ours, which is 0.01.

    Their layers keep the rate as `bias_gain`; it scales weight and bias alike.
    """
    for at in range(layers):
        rate = modules[f"mapping.fc{at}"].state.get("bias_gain", MAPPING_LR)
        if type(rate) not in (int, float) or not 1e-6 <= rate <= 100:
            raise TrainingError(
                f"{where}: mapping.fc{at} has an odd learning rate; 0.01 or another number wanted"
            )
        if rate != MAPPING_LR:
            for part in ("weight", "bias"):
                tensors[f"mapping.layers.{at}.{part}"] *= rate / MAPPING_LR


def _clamp(modules: dict[str, Module], *, where: str) -> float:
    """Returns what the convolutions' outputs are clamped to, 0 for nothing; it must be one for all.

    Their `SynthesisNetwork` hands one number to all of them, which its training sets to 256.
    """
    found: dict[float | None, str] = {}  # the first layer of each clamp
    for path, module in modules.items():
        if not re.search(r"\.(conv\d|torgb)$", path):
            continue
        clamp = module.state.get("conv_clamp")
        if clamp is not None and not (type(clamp) in (int, float) and 0 < clamp <= MAX_CLAMP):
            raise TrainingError(
                f"{where}: {path} has an odd conv_clamp; None or a number above 0 and up to "
                f"{MAX_CLAMP:,} wanted"
            )
        found.setdefault(clamp, path)
    if len(found) > 1:
        different = " and ".join(f"{clamp} in {path}" for clamp, path in found.items())
        raise TrainingError(f"{where}: conv_clamp is {different}; one for all layers wanted")
    return float(next(iter(found), None) or 0)


def _mapping_rows(layers: int, *, z_dim: int, w_dim: int, labels: int) -> Iterator[Row]:
    yield Row("w_avg", "mapping.w_avg", (w_dim,))
    if labels:
        yield Row("mapping.embed.weight", "mapping.embed.weight", (w_dim, labels))
        yield Row("mapping.embed.bias", "mapping.embed.bias", (w_dim,))
    inputs = z_dim + (w_dim if labels else 0)
    for at in range(layers):
        shape = (w_dim, w_dim if at else inputs)
        yield Row(f"mapping.layers.{at}.weight", f"mapping.fc{at}.weight", shape)
        yield Row(f"mapping.layers.{at}.bias", f"mapping.fc{at}.bias", (w_dim,))


def _synthesis_rows(widths: dict[int, int], *, w_dim: int) -> Iterator[Row]:
    yield Row("const", "synthesis.b4.const", (widths[4], 4, 4))
    for at, side in enumerate(sorted(widths)):
        block, count = f"synthesis.b{side}", widths[side]
        if at:
            before = widths[side // 2]
            yield from _conv(2 * at - 1, f"{block}.conv0", before, count, side=side, w_dim=w_dim)
        yield from _conv(2 * at, f"{block}.conv1", count, count, side=side, w_dim=w_dim)
        yield Row(f"rgbs.{at}.weight", f"{block}.torgb.weight", (3, count, 1, 1))
        yield Row(f"rgbs.{at}.bias", f"{block}.torgb.bias", (3,))
        yield from _affine(f"rgbs.{at}", f"{block}.torgb", count, w_dim=w_dim)


def _conv(
    at: int, theirs: str, inputs: int, outputs: int, *, side: int, w_dim: int
) -> Iterator[Row]:
    ours = f"convs.{at}"
    yield Row(f"{ours}.weight", f"{theirs}.weight", (outputs, inputs, 3, 3))
    yield Row(f"{ours}.bias", f"{theirs}.bias", (outputs,))
    yield Row(f"{ours}.noise_strength", f"{theirs}.noise_strength", ())
    yield Row(f"{ours}.noise_const", f"{theirs}.noise_const", (side, side))
    yield from _affine(ours, theirs, inputs, w_dim=w_dim)


def _affine(ours: str, theirs: str, inputs: int, *, w_dim: int) -> Iterator[Row]:
    yield Row(f"{ours}.affine.weight", f"{theirs}.affine.weight", (inputs, w_dim))
    yield Row(f"{ours}.affine.bias", f"{theirs}.affine.bias", (inputs,))
