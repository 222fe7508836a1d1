"""Hook of the documentation site: files outside of docs/ become their names."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

_LOG = logging.getLogger("mkdocs.hooks.files")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Replace links out of the docs folder, which a reader of the repository can follow.

    A link to a file that does not exist is a warning, which fails a strict build.
    """
    folder = Path(config.docs_dir, page.file.src_uri).parent
    root = Path(config.config_file_path).parent.resolve()

    def name(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = (folder / target).resolve()
        if path.is_relative_to(Path(config.docs_dir).resolve()):
            return link.group()
        if not path.exists():
            _LOG.warning("%s links to %s, which does not exist", page.file.src_uri, target)
        shown = path.relative_to(root).as_posix()
        return f"`{shown}`" if text.strip("`") == shown else f"{text} (`{shown}`)"

    return _LINK.sub(name, markdown)
