"""Files that mean harm, or are no weights: refused by name, and nothing of them is ever run."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset.errors import OmokageError, TrainingError
from models.import_stylegan2 import safe_unpickle
from models.import_stylegan2.importer import import_weights, read_weights
from models.import_stylegan2.safe_unpickle import plain_makers, read_pickle
from models.import_stylegan2.tensor_table import Found
from tests.hypothesis_profiles import examples
from tests.models.import_stylegan2 import nvidia_reference as nvidia
from tests.models.import_stylegan2 import rosinality_reference as rosinality

CANARY = "canary"


class Calls:
    """Pickles as a call of a function with arguments, which a plain unpickler makes at once."""

    def __init__(self, called: Callable[..., Any], *args: Any) -> None:
        self.called = called
        self.args = args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called, self.args


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Returns a path that stays free as long as nothing of a file is run."""
    return tmp_path / CANARY


def refusal(file: Path) -> str:
    with pytest.raises(OmokageError) as raised:
        import_weights(file, file.parent / "out")
    left = sorted(path.name for path in file.parent.iterdir())
    assert left == [file.name], "nothing was run and nothing was left behind"
    assert str(raised.value).startswith(str(file))
    return str(raised.value)


def pickled(tmp_path: Path, held: Any, protocol: int = 4) -> Path:
    file = tmp_path / "g.pkl"
    file.write_bytes(pickle.dumps(held, protocol))
    return file


def system(canary: Path) -> Calls:
    return Calls(os.system, f"touch {canary}")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_call_of_the_shell_is_refused(tmp_path: Path, canary: Path, protocol: int) -> None:
    message = refusal(pickled(tmp_path, {"G_ema": system(canary)}, protocol))
    assert "asks for posix.system, which is no tensor and no plain value; refused" in message


@pytest.mark.parametrize(
    ("called", "name"),
    [
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
        (__import__, "builtins.__import__"),
        (getattr, "builtins.getattr"),
        (open, "io.open"),
        (torch.load, "torch.serialization.load"),
        (torch.hub.load, "torch.hub.load"),
        (torch.storage._load_from_bytes, None),
        (pickle.loads, "_pickle.loads"),
    ],
)
def test_each_gadget_is_refused_by_its_name(
    tmp_path: Path, canary: Path, called: Callable[..., Any], name: str | None
) -> None:
    message = refusal(pickled(tmp_path, {"G_ema": Calls(called, f"open({str(canary)!r}, 'w')")}))
    if name is not None:
        assert f"asks for {name}, which is no tensor and no plain value; refused" in message


def test_the_same_call_in_torchs_own_formats_is_refused(tmp_path: Path, canary: Path) -> None:
    for old in (False, True):
        file = rosinality.save(tmp_path / "g.pt", {"g_ema": system(canary)}, old=old)
        message = refusal(file)
        assert "asks for posix.system, which is no tensor and no plain value; refused" in message


def test_a_whole_pickled_network_is_refused_by_its_class(tmp_path: Path) -> None:
    message = refusal(rosinality.save(tmp_path / "g.pt", torch.nn.Linear(2, 2)))
    assert "asks for torch.nn.modules.linear.Linear, which is no tensor" in message


def test_code_in_a_storages_bytes_is_refused(tmp_path: Path, canary: Path) -> None:
    inner = io.BytesIO()
    torch.save(system(canary), inner, _use_new_zipfile_serialization=False)
    message = refusal(
        pickled(tmp_path, {"G_ema": Calls(torch.storage._load_from_bytes, inner.getvalue())})
    )
    assert "a storage in it asks for posix.system" in message


def test_a_storage_that_is_a_bare_pickle_is_refused(tmp_path: Path, canary: Path) -> None:
    content = pickle.dumps(system(canary))
    message = refusal(pickled(tmp_path, {"G_ema": Calls(torch.storage._load_from_bytes, content)}))
    assert "has a storage that is none of torch's; refused" in message


def test_storages_do_not_nest(tmp_path: Path) -> None:
    inner = io.BytesIO()
    torch.save(
        Calls(torch.storage._load_from_bytes, b""), inner, _use_new_zipfile_serialization=False
    )
    message = refusal(
        pickled(tmp_path, {"G_ema": Calls(torch.storage._load_from_bytes, inner.getvalue())})
    )
    assert "a storage in it asks for torch.storage._load_from_bytes" in message


def test_the_source_in_a_network_is_never_run(tmp_path: Path, canary: Path) -> None:
    theirs = nvidia.small()
    for module in theirs.modules():
        module.module_src = f"open({str(canary)!r}, 'w').close()"  # type: ignore[assignment]
    made = import_weights(nvidia.save(tmp_path / "g.pkl", G_ema=theirs), tmp_path / "out")
    assert made.spec.resolution_px == 16
    assert not canary.exists()
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert CANARY.encode() not in written


def test_a_networks_class_cannot_be_something_callable(tmp_path: Path, canary: Path) -> None:
    meta = {"type": "function", "module_src": "", "class_name": "system", "state": {}}
    with nvidia.their_modules():
        file = pickled(tmp_path, Calls(nvidia._reconstruct_persistent_obj, meta))
    assert "rebuilds something else than a class of theirs; refused" in refusal(file)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        # STACK_GLOBAL: names with dots, from the memo, of a list
        (text("os") + text("path.os.system") + b"\x93.", "asks for os.path.os.system"),
        (text("collections") + text("OrderedDict.__class__") + b"\x93.", "OrderedDict.__class__"),
        (
            text("posix") + b"\x94" + text("system") + b"\x94h\x00h\x01\x93.",
            "asks for posix.system",
        ),
        (b"]" + text("system") + b"\x93.", "asks for something by a name that is no text"),
        (b"ccollections\nOrderedDict.fromkeys\n.", "asks for collections.OrderedDict.fromkeys"),
        # calls of what is no name, and of a storage's type
        (text("system") + text("touch") + b"\x85R.", "calls a str, which is no tensor"),
        (b"ctorch\nFloatStorage\n)R.", "calls torch.FloatStorage; refused"),
        (b"ctorch\nfloat16\n)R.", "calls torch.float16; refused"),
        (b"ctorch\nfloat16\n}b.", "fills torch.float16 with a state"),
        (b"ctorch\nfloat16.__class__\n.", "asks for torch.float16.__class__"),
        (b"}" + text("G_ema") + b"ctorch\nfloat16\ns.", "G_ema is a _StandIn, a network wanted"),
        (
            b"ccollections\nOrderedDict\n]R.",
            "calls collections.OrderedDict with a list, where a tuple is wanted",
        ),
        # states: a stand-in is no target
        (b"ccollections\nOrderedDict\n}b.", "fills collections.OrderedDict with a state"),
        (text("a") + b"}b.", "fills a str with a state"),
        (
            b"ccollections\nOrderedDict\n" + text("a") + text("b") + b"s.",
            "fills collections.OrderedDict as if it",
        ),
        # instructions that no weights file has
        (b"(i__builtin__\neval\n.", "uses the pickle instruction INST"),
        (b"(c__builtin__\nset\no.", "uses the pickle instruction OBJ"),
        (b"\x82\x01.", "uses the pickle instruction EXT1"),
        (b"P0\n.", "uses the pickle instruction PERSID"),
        (b"K\x00Q.", "refers to data outside itself"),
        (b"\x97.", "uses the pickle instruction NEXT_BUFFER"),
        # keys that could be chosen to collide
        (b"}K\x01K\x02\x86K\x03s.", "uses a tuple as a key"),
        (b"}\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x01K\x03s.", "uses a int as a key"),
        # damage
        (b"", "is damaged or cut short"),
        (b".", "is damaged or cut short"),
        (b"R.", "is damaged or cut short"),
        (b"K\x01K\x02.", "is damaged or cut short: 1 items are left on the stack"),
        (b"h\x07.", "is damaged or cut short"),
        (b"e.", "is damaged or cut short"),
        (b"\x8e" + struct.pack("<Q", 1 << 60) + b"a.", "is damaged or cut short"),
        (b"\x8b" + struct.pack("<i", 1 << 30) + b"a.", "is damaged or cut short"),
        # plain values that are no networks
        (b"K\x01.", "holds a int; a dict with G_ema wanted"),
    ],
)
def test_a_pickle_by_hand_is_refused_for_what_it_does(
    tmp_path: Path, body: bytes, message: str
) -> None:
    file = tmp_path / "g.pkl"
    file.write_bytes(b"\x80\x04" + body)
    assert message in refusal(file)


def test_a_huge_memo_number_takes_no_memory() -> None:
    stream = io.BytesIO(b"\x80\x04K\x01r\xff\xff\xff\xff.")
    assert read_pickle(stream, {}, where="g.pkl") == 1


def test_too_many_instructions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_unpickle, "MAX_INSTRUCTIONS", 100)
    content = io.BytesIO(pickle.dumps(list(range(200))))
    with pytest.raises(TrainingError, match="has more than 100 instructions; refused"):
        read_pickle(content, {}, where="g.pkl")


def test_a_deep_nest_ends_in_an_error(tmp_path: Path) -> None:
    file = tmp_path / "g.pkl"
    file.write_bytes(b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".")
    assert "holds a list; a dict with G_ema wanted" in refusal(file)


def test_modules_that_contain_themselves_end_in_an_error(tmp_path: Path) -> None:
    rebuild = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    named = b"}(" + text("type") + text("class") + text("class_name") + text("G") + text("state")
    content = b"\x80\x04}(" + text("G_ema") + rebuild + named
    content += b"}\x94(" + text("_modules") + b"}("
    for name in ("a", "b", "c"):  # each has the very state that it stands in, from the memo
        content += text(name) + rebuild + named + b"h\x00u\x85R"
    content += b"uuu\x85Ru."
    file = tmp_path / "g.pkl"
    file.write_bytes(content)
    assert "modules, or nested more than 8 deep; refused" in refusal(file)


def test_a_clamp_that_contains_itself_is_odd(tmp_path: Path) -> None:
    clamp: list[Any] = []
    clamp.append(clamp)
    theirs = nvidia.with_changes("synthesis.b8.conv0", conv_clamp=clamp)
    message = refusal(nvidia.save(tmp_path / "g.pkl", G_ema=theirs))
    assert "synthesis.b8.conv0 has an odd conv_clamp; None or a number above 0" in message


def test_tensors_whose_layers_are_no_modules_are_still_read(tmp_path: Path) -> None:
    theirs = nvidia.small()
    for block in theirs.synthesis.children():
        for name, tensor in [*block.named_parameters(), *block.named_buffers()]:
            block._parameters[name] = torch.nn.Parameter(tensor)
        block._modules.clear()
    found = read_weights(nvidia.save(tmp_path / "g.pkl", G_ema=theirs).read_bytes(), where="g")
    assert found.spec.conv_clamp == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"these are no weights\n", 'begins with "these are no" and is neither a .pt'),
        (b"\x89PNG\r\n\x1a\n", "is neither a .pt of torch.save nor a .pkl"),
        (b"PK\x03\x04", "is no whole zip archive"),
        (b"", "has 0 bytes"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "g.pt"
    file.write_bytes(content)
    assert message in refusal(file)


def test_a_file_of_the_tensorflow_version_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "g.pkl"
    file.write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81}b.")
    assert "convert it with that project's legacy.py first" in refusal(file)


# Zip archives


def good_pt() -> bytes:
    held = io.BytesIO()
    torch.save({"g_ema": rosinality.small().state_dict(), "latent_avg": torch.ones(8)}, held)
    return held.getvalue()


def old_pt() -> bytes:
    held = io.BytesIO()
    torch.save(rosinality.small().state_dict(), held, _use_new_zipfile_serialization=False)
    return held.getvalue()


def psp_pt() -> bytes:
    """Returns a file of an encoder and a decoder, which has no noise maps, with a mean a layer."""
    state = rosinality.small().state_dict()
    decoder = {f"decoder.{name}": one for name, one in state.items() if "noises" not in name}
    held = io.BytesIO()
    torch.save({"state_dict": decoder, "latent_avg": torch.ones(6, 8)}, held)
    return held.getvalue()


def good_pkl(tmp_path: Path) -> bytes:
    return nvidia.save(tmp_path / "good.pkl", G_ema=nvidia.small(c_dim=2)).read_bytes()


def rezipped(
    tmp_path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], **options: Any
) -> Path:
    """Writes the good archive again, each entry as `change` gives it back."""
    file = tmp_path / "g.pt"
    with (
        zipfile.ZipFile(io.BytesIO(good_pt())) as good,
        zipfile.ZipFile(file, "w", **options) as made,
    ):
        for entry in good.infolist():
            kept = change(entry.filename, good.read(entry))
            if kept is not None:
                made.writestr(*kept)
    return file


@pytest.mark.parametrize(
    "name", ["../../escaped", "/etc/escaped", "archive/../../x", "C:/x", "..\\x", "archive\\..\\x"]
)
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    file = rezipped(tmp_path, lambda n, c: (n, c))
    with zipfile.ZipFile(file, "a") as made:
        made.writestr(name, b"x")
    message = refusal(file)
    assert "leads out of the archive; refused" in message
    assert name in message


def test_a_zip_bomb_is_refused_before_it_swells(tmp_path: Path) -> None:
    file = tmp_path / "g.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("archive/data.pkl", b"\x80\x02}.")
        made.writestr("archive/data/0", b"\0" * 50_000_000)
    assert file.stat().st_size < 100_000
    assert "is compressed or encrypted, which torch never does; refused" in refusal(file)


def test_entries_that_declare_more_than_the_file_has_are_refused(tmp_path: Path) -> None:
    content = bytearray(rezipped(tmp_path, lambda n, c: (n, c)).read_bytes())
    at = content.index(b"PK\x01\x02")  # the first entry of the directory
    content[at + 20 : at + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    (tmp_path / "g.pt").write_bytes(content)
    assert "its entries declare" in refusal(tmp_path / "g.pt")


def test_a_storage_shorter_than_declared_is_refused(tmp_path: Path) -> None:
    file = rezipped(tmp_path, lambda n, c: (n, c[:8]) if "/data/" in n else (n, c))
    assert "bytes for the storage" in refusal(file)


def test_a_missing_storage_is_refused(tmp_path: Path) -> None:
    file = rezipped(tmp_path, lambda n, c: None if n.endswith("data/3") else (n, c))
    assert 'refers to the storage "3", which is not in it' in refusal(file)


def test_a_program_is_refused(tmp_path: Path) -> None:
    file = rezipped(tmp_path, lambda n, c: (n, c))
    folder = zipfile.ZipFile(file).namelist()[0].split("/")[0]
    with zipfile.ZipFile(file, "a") as made:
        made.writestr(f"{folder}/code/__torch__.py", b"class Generator: pass")
    assert "holds a program (TorchScript), tensors wanted; refused" in refusal(file)


def test_another_zip_archive_is_named(tmp_path: Path) -> None:
    file = tmp_path / "g.pt"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("faces/1.png", b"png")
    assert "is a zip archive without torch's data.pkl" in refusal(file)


# Tensors that lie about themselves


def lying(numel: int, offset: int, shape: Any, stride: tuple[int, ...]) -> bytes:
    """Returns a file in the old form with one tensor as described, and 16 bytes of numbers."""

    class Id:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Id):
                return ("storage", torch.FloatStorage, "0", "cpu", numel, None)
            return None

    body = io.BytesIO()
    held = Calls(torch._utils._rebuild_tensor_v2, Id(), offset, shape, stride, False, {})
    Pickler(body, 2).dump({"g_ema": {"style.1.weight": held}})
    plain = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001}]
    content = b"".join(pickle.dumps(one, 2) for one in plain) + body.getvalue()
    return content + pickle.dumps(["0"], 2) + struct.pack("<q", numel) + b"\0" * 16


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ((1 << 40, 0, (4,), (1,)), "declares 4,398,046,511,104 bytes for a storage, the file has"),
        ((4, 0, (5,), (1,)), "has a tensor [5] that reaches outside of its 4 numbers"),
        ((4, 3, (2,), (1,)), "has a tensor [2] that reaches outside of its 4 numbers"),
        ((4, 0, (1000, 1000), (0, 0)), "has a tensor [1000, 1000] that repeats its 4 numbers"),
        ((4, -1, (2,), (1,)), "has a tensor of something else than a storage and counts"),
        ((4, 0, (2,), (-1,)), "has a tensor of something else than a storage and counts"),
        ((4, 0, (2, 2), (1,)), "has a tensor of 2 sizes and 1 strides"),
        ((-4, 0, (2,), (1,)), "has a storage whose length is no count"),
        ((4, 0, "ab", (1,)), "has a tensor whose shape is no list"),
        ((8, 0, (8,), (1,)), 'is damaged or cut short: storage "0"'),
    ],
)
def test_a_tensor_that_lies_about_its_size_is_refused(
    tmp_path: Path, described: tuple[Any, ...], message: str
) -> None:
    file = tmp_path / "g.pt"
    file.write_bytes(lying(*described))
    assert message in refusal(file)


def test_many_views_of_one_storage_cannot_swell(tmp_path: Path) -> None:
    one = torch.zeros(1, 64, 64, 3, 3)
    state = dict(rosinality.Generator([64, 64, 64, 64, 64], style_dim=8, n_mlp=1).state_dict())
    shared = {name: one for name, value in state.items() if value.shape == one.shape}
    assert len(shared) == 9
    message = refusal(rosinality.save(tmp_path / "g.pt", {**state, **shared}))
    assert "would fill" in message


# Damage anywhere


def tensors_of(found: Found) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in found.tensors.items()}


@pytest.mark.parametrize("kind", ["zip", "psp", "old", "pkl"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    files = {"zip": good_pt(), "psp": psp_pt(), "old": old_pt(), "pkl": good_pkl(tmp_path)}
    content = files[kind]
    read_weights(content, where="g")
    for length in range(0, len(content), max(1, len(content) // 60)):
        with pytest.raises(TrainingError, match=r"^g"):
            read_weights(content[:length], where="g")


GOOD_TENSORS = {
    content: tensors_of(read_weights(content, where="good")) for content in (good_pt(), psp_pt())
}
QUICK = settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def mutated(content: bytes, changes: list[tuple[float, bytes]]) -> bytes:
    made = bytearray(content)
    for place, new in changes:
        start = int(place * len(made))
        made[start : start + len(new)] = new
    return bytes(made)


CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)),
    min_size=1,
    max_size=4,
)


def read_or_refused(content: bytes) -> Found | None:
    """Reads a damaged file; any other error than ours, or one without the file's name, fails."""
    try:
        return read_weights(content, where="g")
    except OmokageError as error:
        if not str(error).startswith("g"):
            raise AssertionError(f"the file is not named: {error}") from error
        return None


@QUICK
@given(st.sampled_from(list(GOOD_TENSORS)), CHANGES)
def test_a_mutated_archive_gives_the_same_tensors_or_an_error(
    content: bytes, changes: list[tuple[float, bytes]]
) -> None:
    found = read_or_refused(mutated(content, changes))
    assert found is None or tensors_of(found) == GOOD_TENSORS[content]


@QUICK
@given(changes=CHANGES)
def test_a_mutated_pickle_gives_whole_tensors_or_an_error(
    tmp_path: Path, changes: list[tuple[float, bytes]]
) -> None:
    # It has no checksum: other numbers are possible, other shapes are not.
    found = read_or_refused(mutated(good_pkl(tmp_path), changes))
    if found is not None:
        assert found.spec.resolution_px in (8, 16)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in found.tensors.values())


@QUICK
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x04", b"PK\x03\x04", old_pt()[:40]]))
def test_random_bytes_are_refused(content: bytes, head: bytes) -> None:
    with pytest.raises(TrainingError, match=r"^g"):
        read_weights(head + content, where="g")


@QUICK
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
        | st.binary(),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(st.text(), max_size=3),
        max_leaves=12,
    ),
    st.sampled_from([0, 1, 2, 3, 4, 5]),
)  # fmt: skip
def test_plain_values_are_read_as_pickle_reads_them(value: object, protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(value, protocol) + b"behind it")
    assert read_pickle(stream, plain_makers(), where="g") == value
    assert stream.read() == b"behind it"
