"""The chain with its data in a bucket makes what it makes in a folder; nothing of a takedown stays.

The bucket is that of a real S3 server, a process of its own on loopback: moto's.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import Result

from crawlers.audit import audit
from crawlers.ledger import Ledger
from dataset import tables
from dataset.crops import Crops
from dataset.errors import StoreError
from dataset.schemas import FACES, read_table
from dataset.store import Store, blob_path
from pipeline.servers import Server, free_port, running, wait_until_answering
from tests.pipeline.conftest import SMOKE, Demo, clean_environment, omokage_here
from tests.pipeline.fork_server import WarmOmokage
from tests.pipeline.test_chain import digests_of, kill_in

pytest.importorskip("moto")
pytest.importorskip("s3fs")


# Stages that are killed, each once it says that (nothing: shortly after its beginning).
KILLED = {
    "faces": "faces ", "labels": "", "manifest": "", "generator": "kimg ", "evaluation": "pack ",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Bucket:
    """An S3 server with a bucket, and the variables that lead to it."""

    variables: Mapping[str, str]

    def url(self, prefix: str) -> str:
        return f"s3://omokage/{prefix}"

    def read(self, prefix: str) -> dict[str, bytes]:
        """Returns all objects below a prefix, hidden ones too."""
        place = fsspec.filesystem("s3", use_listings_cache=False)
        found = place.find(f"omokage/{prefix}")
        return {name: place.cat_file(name) for name in found}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    s3 = Server("the S3 server", command, tmp_path_factory.mktemp("s3") / "s3.log")
    url = f"http://127.0.0.1:{port}"
    with running([s3]):
        wait_until_answering(s3, f"{url}/moto-api", timeout_s=60)
        yield Bucket(
            {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "tests",
                "AWS_SECRET_ACCESS_KEY": "tests",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        )


@pytest.fixture
def bucket(server: Bucket) -> Bucket:
    os.environ.update(server.variables)  # undone by environment_as_before
    place = fsspec.filesystem("s3", use_listings_cache=False)
    if not place.exists("omokage"):
        place.mkdir("omokage")
    return server


def omokage(bucket: Bucket, home: Path, data: str, *words: str) -> Result:
    """Runs a command on a home whose data lies in the bucket."""
    variables = {**bucket.variables, "OMOKAGE_HOME": str(home), "OMOKAGE_DATA": data}
    return omokage_here(*words, **variables)


def warm_for(bucket: Bucket, data: str) -> WarmOmokage:
    return WarmOmokage({**clean_environment(), **bucket.variables, "OMOKAGE_DATA": data})


@pytest.mark.slow
def test_the_chain_killed_in_each_stage_in_a_bucket_makes_what_it_makes_in_a_folder(
    demo: Demo, bucket: Bucket, tmp_path: Path
) -> None:
    home, data = tmp_path / "home", bucket.url("chain")
    for name in ("board", "cache"):  # drawings, features: how these are made is another's test
        shutil.copytree(demo.home / name, home / name, copy_function=os.link)
    config = tmp_path / "demo.yaml"
    config.write_text(f"faces: {{mode: fast}}\n{SMOKE}")
    again = ["run", "--home", str(home), "--config", str(config)]
    warm = warm_for(bucket, data)
    try:
        kill_in("posts", warm, demo.demo_arguments(home))
        # Then without the board, which would be crawled once more each time.
        for stage, once in KILLED.items():
            kill_in(stage, warm, again, once=once, after_s=0.2)
        # Two at once: one waits or is refused, the other one finishes.
        both = [warm.start(again) for _ in range(2)]
        ended = sorted((one.completed() for one in both), key=lambda one: one.returncode)
    finally:
        warm.close()
    said = "\n".join(one.stdout + one.stderr for one in ended)
    assert [one.returncode for one in ended] == [0, 2], said
    assert "another demo, run, training or comparison is at work" in ended[1].stderr
    for stage in ("faces", "generator"):  # what the killed ones finished
        assert re.search(rf"^✔ {stage} .*reused: nothing had changed", said, re.MULTILINE), said
    store = Store(data, state=home)
    made = digests_of(store)
    assert made == digests_of(Store(demo.home))
    evaluated = store.read_json("generators/current.json")["evaluation"]
    assert evaluated == Store(demo.home).read_json("generators/current.json")["evaluation"]
    faces = read_table(store, "faces.lance", declared=FACES)
    kept = faces.filter(pc.is_valid(faces["crop"]))
    assert Crops(store).read(kept) == Crops(Store(demo.home)).read(kept)
    files = [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]
    local = {path.relative_to(home).parts[0] for path in files}
    folders = {"board", "cache", "dagster", "logs", "mlflow", "packed"}
    assert {name for name in local if not name.startswith("ledger.sqlite")} == folders, local

    # Of a post that is taken down no byte is left, in the table's versions neither.
    row = next(one for one in made["posts"] if one["sha256"] and one["drop_reason"] is None)
    needles = [row["sha256"].encode(), row["md5"].encode()]
    assert any(needle in name.encode() for name in bucket.read("chain") for needle in needles)
    picture = store.read_bytes(blob_path(row["sha256"], row["ext"]))
    post = f"demo/{row['post_id']}"
    result = omokage(bucket, home, data, "takedown", "add", "post", post)
    assert result.exit_code == 0, result.output
    result = omokage(bucket, home, data, "takedown", "apply")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "done" in result.output
    for path, content in bucket.read("chain").items():
        # The list, receipts and notes name it, the ledger to keep it out.
        if "/takedown" in path or "/ledger-backups/" in path:
            continue
        found = [one for one in needles if one in content or one.decode() in path]
        assert not found, path
        assert picture not in content, path
    for table in ("posts.lance", "crops.lance", "faces.lance"):
        versions = [name for name in store.files(f"{table}/_versions") if "hint" not in name]
        assert len(versions) == 1, versions
    with Ledger.of(store) as ledger:
        assert ledger.taken_down(["demo"]) >= 1


@pytest.mark.slow
def test_a_home_that_is_moved_into_a_bucket_is_the_same_there(
    demo: Demo, bucket: Bucket, tmp_path: Path
) -> None:
    home, data = Path(shutil.copytree(demo.home, tmp_path / "home")), bucket.url("moved")
    before = digests_of(Store(home))
    words = ("move", "--home", str(home), "--to", data)
    dry = omokage_here(*words, "--dry-run", **bucket.variables)
    assert dry.exit_code == 0, (dry.output, dry.exception)
    assert "would be copied" in dry.output
    assert bucket.read("moved") == {}
    result = omokage_here(*words, **bucket.variables)
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"OMOKAGE_HOME={home}\n  OMOKAGE_DATA={data}\n" in result.output
    again = omokage_here(*words, **bucket.variables)
    assert "there are files already" in str(again.exception)
    status = omokage_here("status", "--home", str(home)).stdout
    for name in re.findall(r"can be removed: (.*)", result.output)[0].split():
        one = home / name
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    moved = omokage(bucket, home, data, "status").stdout
    assert moved.replace(f"data       {data}\n", "").replace(data, str(home)) == status
    store = Store(data, state=home)
    assert digests_of(store) == before
    # The ledger is lost with its machine; the data root has its backup, and names its home.
    other = tmp_path / "other"
    with pytest.raises(StoreError, match="omokage ledger restore"):
        Ledger.of(Store(data, state=other))
    restored = omokage(bucket, other, data, "ledger", "restore")
    assert restored.exit_code == 0, (restored.output, restored.exception)
    with Ledger.of(Store(data, state=other)) as here, Ledger.of(store) as there:
        assert here.count("demo") == there.count("demo")
        assert here.identity() == there.identity()


def test_a_move_that_was_stopped_goes_on_and_copies_what_is_missing(
    bucket: Bucket, tmp_path: Path
) -> None:
    home, data = tmp_path / "home", bucket.url("stopped")
    store, target = Store(home), Store(data)
    for number in range(5):
        store.write_bytes(f"crops/0{number}/face.png", f"crop {number}".encode())
    store.state.append_bytes("logs/up.log", b"said")
    target.write_bytes(".move", f"{store.url('')}\n".encode())
    target.write_bytes("crops/00/face.png", b"crop 0")
    target.write_bytes("crops/01/face.png", b"crop X")  # as long as what it should be
    target.write_bytes("crops/99/gone.png", b"")  # removed since
    with pytest.raises(StoreError, match="move` to here is not finished"):
        Ledger.of(Store(data, state=home))
    result = omokage_here("move", "--home", str(home), "--to", data, **bucket.variables)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "copied 4 of 5 files" in result.output
    assert target.files("") == store.files("crops")
    assert all(target.read_bytes(path) == store.read_bytes(path) for path in target.files(""))


def test_another_home_may_not_take_the_blobs_of_a_bucket(bucket: Bucket, tmp_path: Path) -> None:
    one, other = (Store(bucket.url("homes"), state=tmp_path / name) for name in ("one", "other"))
    Ledger.of(one).close()
    one.write_bytes("blobs/ab/cd/abcd.png", b"")
    with pytest.raises(StoreError, match=r"other/ledger\.sqlite is not there"):
        Ledger.of(other)
    Ledger(other.state.make_folder("") / "ledger.sqlite").close()  # a ledger of its own
    with pytest.raises(StoreError, match="belongs to another home"):
        Ledger.of(other)


def test_strange_blobs_of_a_bucket_are_found(bucket: Bucket, tmp_path: Path) -> None:
    store = Store(bucket.url("audit"), state=tmp_path)
    Ledger.of(store).close()
    strange = [blob_path(digit * 64, "png") for digit in "a7"]
    unfinished = f"{Path(strange[0]).parent}/.tmp-abc"
    for path in (*strange, "blobs/notes.txt", unfinished):
        store.write_bytes(path, b"")
    found = audit(store)
    assert set(found.orphans) == {*strange, "blobs/notes.txt"}
    assert found.temporary == (unfinished,)


MERGE = """
import sys
import pyarrow as pa
from dataset import tables
from dataset.store import Store, blob_path
store, first = Store(sys.argv[1]), int(sys.argv[2])
for number in range(first, first + 6):
    rows = pa.table({"key": [number], "text": [str(number)]})
    tables.merge(store, "t.lance", rows, key=["key"])
"""


@pytest.mark.ci
def test_writers_of_one_table_in_a_bucket_lose_no_row(bucket: Bucket) -> None:
    store = Store(bucket.url("table"))
    rows = pa.table({"key": [0], "text": ["zero"]})
    tables.write(store, "t.lance", rows.to_batches(), schema=rows.schema)
    writers = [
        subprocess.Popen([sys.executable, "-c", MERGE, store.root, str(first)])
        for first in (100, 200)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    (found,) = (
        pa.Table.from_batches(list(tables.scan(store, "t.lance", columns=["key"], rows=100)))
        .to_pydict()
        .values()
    )
    assert sorted(found) == [0, *range(100, 106), *range(200, 206)]


def test_purged_rows_leave_no_byte_in_the_bucket(bucket: Bucket) -> None:
    store = Store(bucket.url("purged"))
    rows = pa.table(
        {"key": list(range(100)), "text": [f"secret-{n}-{'x' * 50}" for n in range(100)]}
    )
    tables.write(store, "t.lance", rows.to_batches(), schema=rows.schema)
    tables.delete(store, "t.lance", "key = 7")
    assert any(b"secret-7-" in content for content in bucket.read("purged").values())
    tables.purge(store, "t.lance")
    assert not any(b"secret-7-" in content for content in bucket.read("purged").values())
    assert tables.count(store, "t.lance") == 99


def test_a_bucket_that_kept_older_versions_is_told_from_one_that_did_not(bucket: Bucket) -> None:
    place = fsspec.filesystem("s3")
    place.mkdir("versioned")
    store = Store("s3://versioned/home")
    store.write_bytes("file", b"one")
    assert not store.keeps_versions()
    place.make_bucket_versioned("versioned")
    store.write_bytes("file", b"two")
    assert store.keeps_versions()
    assert not Store("s3://versioned/elsewhere").keeps_versions()


def test_parts_of_objects_of_killed_writers_are_removed(bucket: Bucket) -> None:
    store, place = Store(bucket.url("parts")), fsspec.filesystem("s3")
    place.call_s3("create_multipart_upload", Bucket="omokage", Key="parts/large")
    place.call_s3("create_multipart_upload", Bucket="omokage", Key="elsewhere/large")
    store.abort_uploads()
    left = place.call_s3("list_multipart_uploads", Bucket="omokage")["Uploads"]
    assert [one["Key"] for one in left] == ["elsewhere/large"]


def test_what_the_server_refuses_is_explained(bucket: Bucket) -> None:
    with pytest.raises(StoreError, match="bucket does not exist"):
        Store("s3://no-such-bucket/home").write_bytes("file", b"")
    with pytest.raises(StoreError, match="none is not there"):
        Store(bucket.url("nothing")).read_bytes("none")
