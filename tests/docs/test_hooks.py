"""The site's links: those out of the docs folder become names, and none leads nowhere."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def render():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="envs.md"))
    config = SimpleNamespace(docs_dir=str(ROOT / "docs"), config_file_path=str(ROOT / "mkdocs.yml"))
    return lambda text: hooks.on_page_markdown(text, page=page, config=config, files=None)


def test_files_of_the_repository_are_named(render):
    assert render("see [README.md](../README.md)") == "see `README.md`"
    assert render("[the law](../LICENSE) holds") == "the law (`LICENSE`) holds"


def test_links_between_pages_and_pictures_stay(render):
    text = "[a](start.md) [b](../docs/start.md) ![](images/Pusher.png) [c](https://x.y/../z)"
    assert render(text) == text


def test_a_file_that_is_gone_is_a_warning_which_a_strict_build_refuses(render, caplog):
    with caplog.at_level(logging.WARNING):
        render("[old](../no_such_file.py)")
    assert "envs.md links to ../no_such_file.py" in caplog.text
