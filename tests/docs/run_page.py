"""Run the ```python blocks of a Markdown page from top to bottom, as one script.

    python run_page.py PAGE

Two things stand in for what a test cannot have: trainings by the clock last a second, and a folder
takes the place of the Hugging Face hub.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def script_of(page: Path) -> str:
    """Return the code of a page, each line where it stands on the page."""
    text = page.read_text()
    lines: list[str] = []
    for block in _BLOCK.finditer(text):
        lines += [""] * (text.count("\n", 0, block.start(1)) - len(lines))
        lines += block.group(1).splitlines()
    return "\n".join(lines)


def shorten_trainings() -> None:
    from mppi_agent.gps.callbacks import WallClockBudget

    original = WallClockBudget.__init__
    WallClockBudget.__init__ = lambda self, seconds, verbose=0: original(
        self, min(seconds, 1.0), verbose
    )


def stand_in_for_the_hub(folder: Path) -> None:
    import huggingface_hub

    def upload(repo_id, folder_path, **_):
        Path(folder_path).rename(folder / repo_id.replace("/", "-"))
        Path(folder_path).mkdir()  # its owner deletes it

    hub = huggingface_hub.HfApi
    mock.patch.object(
        hub, "create_repo", lambda self, repo_id, **_: SimpleNamespace(repo_id=repo_id)
    ).start()
    mock.patch.object(hub, "upload_folder", lambda self, **kwargs: upload(**kwargs)).start()
    mock.patch.object(
        huggingface_hub,
        "hf_hub_download",
        lambda repo_id, filename, **_: str(folder / repo_id.replace("/", "-") / filename),
    ).start()


if __name__ == "__main__":
    page = Path(sys.argv[1])
    shorten_trainings()
    if find_spec("huggingface_hub") is not None:
        stand_in_for_the_hub(Path.cwd())
    exec(compile(script_of(page), str(page), "exec"), {"__name__": "__main__"})
