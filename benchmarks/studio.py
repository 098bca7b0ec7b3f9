"""`python -m benchmarks.studio`: seconds from "Draw" to the first picture, and the server's memory.

A real server draws with generators of preset size and random weights, which take as long as trained
ones: dcgan64 at 64 px and omokage at 128 px. People are gradio_client's, each with a session of its
own; a draw is timed from asking to the picture's bytes in the client's hand. Then a picture of 128
px is made 4x larger, and the memory of the server is looked at over a thousand draws.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import safetensors.torch
import torch
from gradio_client import Client, handle_file
from PIL import Image

from models.families import family_of
from models.presets import preset
from pipeline.servers import free_port

LABELS = ("blonde_hair", "black_hair", "blue_eyes", "long_hair")
PRESETS = ("dcgan64", "omokage")
# To the first picture, and for a picture of 128 px made 4x larger; limits on two cores.
LIMITS_S = {"64 px": 1.5, "128 px": 3.0, "upscale": 1.0}
MB = 2**20
START_S = 120.0


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        for name in PRESETS:
            folder = Path(work) / name
            side = _write_generator(folder, name)
            with _server(folder, threads=options.threads) as (url, process):
                results[name] = {"side_px": side, **_waits(url, options)}
                if name == PRESETS[0]:
                    results["memory"] = _memory(url, process, draws=options.draws)
                if side == 128:
                    results["upscale_128_to_512_s"] = _upscale(url, Path(work), options.repeats)
            print(f"{name}: {results[name]}", file=sys.stderr)
    first = results[PRESETS[0]]
    result = {
        "benchmark": "studio",
        "value": first["one_user_s"],
        "unit": "s",
        "limits_s": LIMITS_S,
        **results,
        "device": f"cpu x{options.threads}",
    }
    print(json.dumps(result))


def _write_generator(folder: Path, name: str) -> int:
    """Writes the folder of a generator with random weights; returns its side, px."""
    config = preset(name)
    torch.manual_seed(0)
    family = family_of(config.family)
    network = family.generator(family.spec(LABELS, config.g_size()))
    folder.mkdir()
    safetensors.torch.save_file(network.state_dict(), folder / "generator.safetensors")
    (folder / "spec.json").write_text(json.dumps(network.spec.to_json()))
    (folder / "typical_labels.json").write_text(json.dumps([["blonde_hair", "blue_eyes"]]))
    (folder / "train.json").write_text("{}")
    return int(network.spec.resolution_px)


@contextlib.contextmanager
def _server(folder: Path, *, threads: int) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    command = [sys.executable, "-m", "studio", "--uri", str(folder), "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, server)
        yield url, psutil.Process(server.pid)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
            return
        time.sleep(0.1)
    raise SystemExit(f"benchmark: the studio at {url} does not answer")


def _waits(url: str, options: argparse.Namespace) -> dict[str, float]:
    """Times a draw for one user alone, and for all users at once, whose longest wait counts.

    The users' clients run on the server's own cores.
    """
    clients = [Client(url, verbose=False) for _ in range(options.users)]
    for client in clients:
        _draw(client, 0)  # warm up, sessions too
    alone = [_draw(clients[0], seed) for seed in range(options.repeats)]
    rounds: list[list[float]] = []
    with ThreadPoolExecutor(options.users) as people:
        for seed in range(options.repeats):
            rounds.append(list(people.map(_draw, clients, [seed] * len(clients))))
    one, longest = statistics.median(alone), [max(waits) for waits in rounds]
    return {
        "one_user_s": round(one, 3),
        "one_user_max_s": round(max(alone), 3),
        f"{options.users}_users_s": round(
            statistics.median([wait for waits in rounds for wait in waits]), 3
        ),
        f"{options.users}_users_longest_s": round(statistics.median(longest), 3),
        f"{options.users}_users_max_s": round(max(longest), 3),
        "longest_wait_of_one_users": round(statistics.median(longest) / one, 1),
        "max_wait_of_one_users": round(max(longest) / one, 1),
    }


def _draw(client: Client, seed: int) -> float:
    started = time.perf_counter()
    (drawn,) = client.predict(count=1, seed=seed, api_name="/draw")
    assert Path(drawn["picture"]).stat().st_size > 0
    return time.perf_counter() - started


def _upscale(url: str, work: Path, repeats: int) -> float:
    client = Client(url, verbose=False)
    times = []
    for number in range(repeats + 1):
        file = work / f"{number}.png"
        # Another picture each time: the studio keeps what it has made larger.
        Image.effect_noise((128, 128), 40 + number).convert("RGB").save(file)
        started = time.perf_counter()
        client.predict(picture=handle_file(file), factor=4, api_name="/upscale")
        times.append(time.perf_counter() - started)
    return round(statistics.median(times[1:]), 3)


def _memory(url: str, process: psutil.Process, *, draws: int) -> dict[str, float]:
    """Looks at the resident memory after 100 draws, after half and after all of them, MB."""
    client = Client(url, verbose=False)
    marks: dict[str, float] = {}
    for number in range(1, draws + 1):
        _draw(client, number)
        if number in (min(100, draws), draws // 2, draws):
            marks[f"after_{number}_draws_mb"] = round(process.memory_info().rss / MB, 1)
    return marks


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studio",
        description='Times the studio from "Draw" to the first picture, and watches its memory.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--users", type=int, default=8, help="people who draw at once")
    parser.add_argument("--repeats", type=int, default=9, help="draws of each")
    parser.add_argument("--draws", type=int, default=1000, help="draws that memory is watched over")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    return parser


if __name__ == "__main__":
    main()
