"""What the documentation shows is true: files load, commands print what stands there, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from helpers.configured import tabi
from helpers.pages import PAGES, ROOT, Block, blocks, name_of, steps
from helpers.programs import run
from tabi.config.load import load_text

TOML = [(name_of(page), block) for page in PAGES for block in blocks(page) if block.language == "toml"]
WITH_CONSOLE = [page for page in PAGES if any(block.language == "console" for block in blocks(page))]
PURE = ("check", "explain")  # commands that need no server and ask nothing
TUTORIALS = [page for page in PAGES if page.parent.name == "tutorial"]


def test_pages_are_found() -> None:
    assert {"README.md", "README.zh.md", "packaging/README.md"} <= set(map(name_of, PAGES))
    assert len(TUTORIALS) == 2


@pytest.mark.parametrize(("page", "block"), TOML, ids=[f"{page}:{block.line}" for page, block in TOML])
def test_configuration_on_a_page_loads(page: str, block: Block) -> None:
    """Each is a whole file. Warnings are told of on the page, so there are none but that of passwords in clear."""
    loaded = load_text(block.text, page, mode=0o640)
    assert [one for one in loaded.warnings if "takes passwords in clear" not in str(one)] == []


@pytest.mark.parametrize("page", WITH_CONSOLE, ids=name_of)
def test_commands_on_a_page_print_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toml block is the file tabi.toml from there on; check and explain are run, and so is sed, which changes it."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.language == "toml":
            Path("tabi.toml").write_text(block.text)
        for step in steps(block) if block.language == "console" else ():
            program, *arguments = shlex.split(step.command.removeprefix(".venv/bin/"))
            if program == "sed":
                run("sed", *arguments)
            elif program == "tabi" and arguments[0] in PURE and step.output:
                done = tabi(*arguments)
                assert done.stdout + done.stderr == step.output, f"{page}:{step.line}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith(("http://", "https://")) or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "tutorial" / "first-proxy.md"], ids=name_of)
def test_translation_shows_the_same_blocks(page: Path) -> None:
    translated = page.with_suffix(".zh.md")
    assert f"]({translated.name})" in page.read_text(encoding="utf-8")
    assert f"]({page.name})" in translated.read_text(encoding="utf-8")
    assert [block[:2] for block in blocks(page)] == [block[:2] for block in blocks(translated)]
