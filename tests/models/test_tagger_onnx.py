import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset.errors import UsageError
from models.tagger.data import columns_of_labels, read_tags
from models.tagger.onnx import OnnxInput, OnnxTagger, Port, read_header
from tests.hypothesis_profiles import examples

onnx = pytest.importorskip("onnx")

TAGS = ["general", "red hair", "blue_hair", "very_long_hair"]
LABELS = ("blue_hair", "red_hair")


def save_model(
    path: Path,
    *,
    layout: str,
    side: int | str = 8,
    outputs: int = 4,
    scale: float = 1 / 255,
    channel_of: tuple[int, ...] = (0, 0, 2, 1),
) -> Path:
    """Writes a model whose output k is the mean of input channel `channel_of[k]`, scaled."""
    helper, proto = onnx.helper, onnx.TensorProto
    shape = [1, side, side, 3] if layout == "nhwc" else [1, 3, side, side]
    weights = np.zeros((outputs, 3, 1, 1), np.float32)
    for row, channel in enumerate(channel_of[:outputs]):
        weights[row, channel] = scale
    nodes = [
        helper.make_node("Conv", ["planes", "w"], ["tones"]),
        helper.make_node("GlobalAveragePool", ["tones"], ["means"]),
        helper.make_node("Flatten", ["means"], ["said"]),
    ]
    if layout == "nhwc":
        nodes.insert(0, helper.make_node("Transpose", ["faces"], ["planes"], perm=[0, 3, 1, 2]))
    else:
        nodes.insert(0, helper.make_node("Identity", ["faces"], ["planes"]))
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("faces", proto.FLOAT, shape)],
        [helper.make_tensor_value_info("said", proto.FLOAT, [1, outputs])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


@pytest.fixture
def tags(tmp_path: Path) -> Path:
    path = tmp_path / "tags.txt"
    path.write_text("\n".join(TAGS) + "\n")
    return path


def plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((1, 20, 20, 3), (red, green, blue), np.uint8)


@pytest.mark.parametrize(
    ("layout", "scale", "wanted"),
    [
        ("nhwc", 1 / 255, [51 / 255, 204 / 255]),  # blue first: channel 0 is blue, 2 is red
        ("nchw", 1.0, [204 / 255, 51 / 255]),  # red first, 0 to 1 already
    ],
)
def test_layout_range_and_side_are_found_from_the_model(
    tmp_path: Path, tags: Path, layout: str, scale: float, wanted: list[float]
) -> None:
    path = save_model(tmp_path / "m.onnx", layout=layout, scale=scale)
    model = OnnxTagger(path, tags, ("red_hair", "blue_hair"))
    said = model.probabilities(np.concatenate([plain(204, 0, 51), plain(204, 0, 51)]))
    assert model.input == OnnxInput(8, layout, "bgr255" if layout == "nhwc" else "rgb01")
    assert model.input_px == 8
    assert said == pytest.approx(np.array([wanted, wanted]), abs=1e-5)
    assert model.probabilities(plain(0, 0, 0)[:0]).shape == (0, 2)
    elsewhere = pickle.loads(pickle.dumps(model))  # as a worker gets it
    assert (elsewhere.digest, elsewhere.input) == (model.digest, model.input)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("rgb255", 204 / 255), ("bgr255", 51 / 255), ("rgb01", 0.8 / 255), ("rgb11", 0.6 / 255)],
)
def test_the_range_can_be_said(tmp_path: Path, tags: Path, given: str, wanted: float) -> None:
    path = save_model(tmp_path / "m.onnx", layout="nchw", channel_of=(0, 0, 0, 0))
    model = OnnxTagger(path, tags, ["red_hair"], range=given)
    assert model.probabilities(plain(204, 128, 51))[0, 0] == pytest.approx(wanted, abs=1e-5)


def test_logits_become_probabilities_only_when_they_are_said_to_be(
    tmp_path: Path, tags: Path
) -> None:
    path = save_model(tmp_path / "m.onnx", layout="nchw", scale=4.0)
    with pytest.raises(UsageError, match=r"from .* to 4, not probabilities.*--logits"):
        OnnxTagger(path, tags, LABELS).probabilities(plain(255, 0, 0))
    said = OnnxTagger(path, tags, LABELS, logits=True).probabilities(plain(255, 0, 0))
    assert said[0] == pytest.approx([0.5, 1 / (1 + np.exp(-4))])


def test_an_implied_label_takes_the_surest_of_its_tags(tmp_path: Path) -> None:
    tags = tmp_path / "tags.txt"
    tags.write_text("long_hair\nx\nvery long hair\n")
    path = save_model(
        tmp_path / "m.onnx", layout="nchw", outputs=3, scale=1.0, channel_of=(0, 1, 2)
    )
    model = OnnxTagger(path, tags, ["long_hair"])
    assert model.probabilities(plain(51, 0, 204))[0, 0] == pytest.approx(0.8, abs=1e-5)


def test_an_open_side_must_be_given_and_then_fits(tmp_path: Path, tags: Path) -> None:
    path = save_model(tmp_path / "m.onnx", layout="nchw", side="side", scale=1.0)
    with pytest.raises(UsageError, match=r"faces \[1,3,\?,\?\] leaves the side open.*--input-size"):
        OnnxTagger(path, tags, LABELS)
    model = OnnxTagger(path, tags, LABELS, side_px=16)
    assert model.probabilities(plain(255, 0, 0))[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side_px": 9}, r"faces \[1,3,8,8\]; \[N,3,9,9\] was asked for"),
        ({"layout": "nhwc"}, r"faces \[1,3,8,8\]; \[N,3,3,3\] was asked for"),
        ({"layout": "hwc"}, 'layout is "hwc"; nhwc or nchw wanted'),
        ({"range": "bgr"}, 'range is "bgr"; one of bgr255'),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    tmp_path: Path, tags: Path, options: dict[str, object], message: str
) -> None:
    path = save_model(tmp_path / "m.onnx", layout="nchw")
    with pytest.raises(UsageError, match=message):
        OnnxTagger(path, tags, LABELS, **options)  # type: ignore[arg-type]


def test_a_list_of_another_model_is_refused(tmp_path: Path, tags: Path) -> None:
    path = save_model(tmp_path / "m.onnx", layout="nchw", outputs=3)
    with pytest.raises(UsageError, match=r"has 3 outputs, .*tags.txt has 4 tags"):
        OnnxTagger(path, tags, LABELS)


def test_labels_that_no_tag_stands_for_are_named(tmp_path: Path, tags: Path) -> None:
    path = save_model(tmp_path / "m.onnx", layout="nchw")
    with pytest.raises(UsageError) as caught:
        OnnxTagger(path, tags, ["blue_hair", "red_hairs", "ahoge"])
    assert "no tag for 2 of 3 labels" in str(caught.value)
    assert '"red_hairs"; did you mean "red_hair"?' in str(caught.value)


def test_the_digest_is_of_file_list_labels_and_input(tmp_path: Path, tags: Path) -> None:
    path = save_model(tmp_path / "m.onnx", layout="nchw")
    other = save_model(tmp_path / "n.onnx", layout="nchw", scale=0.5)
    first = OnnxTagger(path, tags, LABELS).digest
    assert OnnxTagger(path, tags, LABELS).digest == first
    changed = [
        OnnxTagger(other, tags, LABELS).digest,
        OnnxTagger(path, tags, LABELS[::-1]).digest,
        OnnxTagger(path, tags, LABELS, range="rgb11").digest,
    ]
    assert len({first, *changed}) == 4


def test_the_header_is_read_without_the_weights_among_the_inputs(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx", layout="nhwc", side="side")
    model = onnx.load(str(path))
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 3, 1, 1])
    )
    onnx.save(model, str(path))
    header = read_header(path)
    assert header.inputs == (Port("faces", (1, None, None, 3)),)
    assert header.outputs == (Port("said", (1, 4)),)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a file"), (b"", "is empty"), (b"GIF89a", "is no whole ONNX model")],
)
def test_a_file_that_is_no_model_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"m.onnx {message}"):
        read_header(path)


@given(st.data())
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_model_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    whole = save_model(tmp_path / "m.onnx", layout="nchw").read_bytes()
    content = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    message = ""
    ports: tuple[Port, ...] = ()
    try:
        ports = read_header(path).inputs
    except UsageError as error:
        message = str(error)
    assert not message or "damaged.onnx" in message
    assert all(side is None or side > 0 for port in ports for side in port.shape)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.txt", "Blue Hair\n\nred_hair \n", ["blue_hair", "red_hair"]),
        ("a.csv", "tag_id,name,category,count\n1,blue_hair,0,9\n2,hat,0,7\n", ["blue_hair", "hat"]),
        ("b.csv", "blue hair,0\nhat,1\n", ["blue_hair", "hat"]),
        ("c.csv", '\ufeffname\n"a, b"\n', ["a,_b"]),
    ],
)
def test_tag_lists_are_read_in_order(
    tmp_path: Path, name: str, text: str, wanted: list[str]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_tags(tmp_path / name) == wanted


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"tag_id,name\n1,hat\n2\n", r"a.csv, line 3: no tag in column 2"),
        ("a.txt", b"\n \n", "a.txt holds no tag"),
        ("a.txt", b"\xff\xfe", "a.txt is not UTF-8"),
        ("a.txt", None, "a.txt is not a file"),
    ],
)
def test_a_bad_tag_list_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_tags(tmp_path / name)


def test_each_label_gets_the_columns_of_all_its_tags() -> None:
    tags = ["hat", "grey_hair", "very_long_hair", "long_hair"]
    assert columns_of_labels(tags, ["long_hair", "grey_hair"], where="tags") == [[2, 3], [1]]
