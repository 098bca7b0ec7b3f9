"""`python -m tests.models.evaluation.child HOME OUT FAKES`: an evaluation to be killed or weighed.

Prints JSON: the pictures that were drawn and the process's greatest resident memory in MB.
"""

import json
import sys

import torch

from benchmarks.process import peak_mb
from dataset.manifest import load_manifest
from dataset.store import Store
from models.evaluation.evaluate import evaluate
from models.evaluation.plan import protocol_for
from tests.models.evaluation.galleries import Gallery, colours
from tests.models.homes import UNSEEN, heads


def main(home: str, out: str, fakes: int) -> None:
    """Evaluates a gallery; the distance is of its colours alone."""
    torch.set_num_threads(1)
    store, network = Store(home), colours()
    manifest = load_manifest(store, None)
    protocol = protocol_for(network, fakes=fakes, repeats=2, flips=2, psis=(0.5, 1.0))
    generator = Gallery(*heads(UNSEEN, 100))
    evaluate(
        store,
        out,
        protocol,
        generator=generator,
        identity=dict.fromkeys(("generator_sha256", "protocol_digest"), protocol.digest),
        manifest=manifest,
        network=network,
    )
    print(json.dumps({"drawn": generator.drawn, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
