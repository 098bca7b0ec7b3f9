"""What Gradio and its kin must be told before they are imported: to ask nothing of other hosts."""

import os
from pathlib import Path

# No counting of starts, no look for a newer version, no word to any hub; and no server of Node
# beside ours, no recording of runs in the browser, no second protocol that nobody asked for.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_ALLOWED_PATHS": "",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def silence(files: Path) -> None:
    """Sets the environment of this process; `files` is where Gradio keeps what it serves.

    To be called before gradio is imported, which reads most of it only then.
    """
    os.environ.update(QUIET)
    os.environ["GRADIO_TEMP_DIR"] = str(files)
