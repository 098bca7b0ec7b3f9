"""`python -m studio`: serves the page. It runs alone, where there is neither Dagster nor Scrapy.

Scrapy's Twisted brings zope.interface, which marks Python's own base classes; Gradio, which looks
at all attributes of its components, then fails. So `omokage studio` becomes this program.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from dataset.errors import OmokageError, UsageError
from models.registry.model_uri import CHAMPION_URI

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C; returns the exit code."""
    options = _options(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    try:
        _serve(options)
    except OmokageError as error:
        print(f"omokage: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("omokage: the studio is closed.", file=sys.stderr)
    return INTERRUPTED


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studio", description="Serves the studio.")
    parser.add_argument(
        "--uri",
        default=CHAMPION_URI,
        help=f"model URI or folder to draw with (default: {CHAMPION_URI})",
    )
    parser.add_argument(
        "--tracking-uri",
        default=os.environ.get("MLFLOW_TRACKING_URI", ""),
        help="MLflow's server or database (default: $MLFLOW_TRACKING_URI)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: cpu)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="port (default: 7860)")
    parser.add_argument(
        "--user",
        default=os.environ.get("OMOKAGE_STUDIO_USER", ""),
        help="ask for this name and $OMOKAGE_STUDIO_PASSWORD (default: $OMOKAGE_STUDIO_USER)",
    )
    return parser.parse_args(arguments)


def _serve(options: argparse.Namespace) -> None:
    # Slow to import; a port that is taken, and a password without a user, are reported before.
    from models.registry.model_uri import is_model_uri
    from studio.model_source import ModelSource
    from studio.service import Studio
    from studio.web.serve import PASSWORD, Address, serve

    if is_model_uri(options.uri) and not options.tracking_uri:
        raise UsageError("no registry is named: set --tracking-uri or MLFLOW_TRACKING_URI")
    # Each draw asks where the alias points, 9 ms with a database: the next one after a move is new.
    source = ModelSource(
        options.uri,
        tracking_uri=options.tracking_uri,
        device=options.device,
        look_every_s=0.05,  # who asks at once need not all ask
    )
    if not is_model_uri(options.uri):
        source.current()  # what is wrong with a folder is reported before any page
    password = os.environ.get(PASSWORD, "")
    serve(Studio(source), Address(options.host, options.port, options.user, password))


if __name__ == "__main__":
    sys.exit(main())
