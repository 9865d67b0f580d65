"""The pages a user and a contributor read say what is true: commands, links, options, snippets."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aiocop.config import OPTIONS
from aiocop_collector.settings import Settings
from demo.verdict import EXPECTED

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "deploy/README.md",
    "docs/configuration.md",
    "docs/keeping.md",
    "docs/architecture.md",
    "docs/run.md",
    "docs/pytest.md",
    "docs/integrations.md",
    "docs/privacy.md",
)
TARGETS = frozenset(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def read(page: str) -> str:
    return (ROOT / page).read_text()


def snippets(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)


def rows(page: str) -> list[list[str]]:
    """The cells of every table row."""
    lines = [line.strip("|") for line in read(page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_the_repository_leads_somewhere(page: str):
    for target in re.findall(r"\]\(([^)#]+)", read(page)):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_is_named_exists(page: str):
    named = set(re.findall(r"`(?:[A-Z]+=\w+ )?make ([a-z-]+)", read(page)))
    named |= set(re.findall(r"^\$ make ([a-z-]+)", "".join(snippets(page, "console")), re.MULTILINE))
    assert named <= TARGETS


def test_contributing_names_every_target():
    missing = {target for target in TARGETS if f"`make {target}`" not in read("CONTRIBUTING.md")}
    assert missing <= {"help", "clean"}


def test_make_alone_lists_the_targets():
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert {line.split()[1] for line in listed.stdout.splitlines()} == TARGETS


@pytest.mark.parametrize("snippet", snippets("README.md", "python"))
def test_snippets_of_the_readme_run(snippet: str, tmp_path: Path):
    (tmp_path / "snippet.py").write_text(snippet)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIOCOP_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "snippet.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if "print(" in snippet:
        assert re.search(r"^\d+ ms: \['snippet.py:\d+:freeze'\]$", done.stdout, re.MULTILINE), done.stdout


def test_commands_of_the_collector_in_the_readme_are_understood():
    commands = re.findall(r"^\$ aiocop-collector (\w+)(.*)$", read("README.md"), re.MULTILINE)
    assert {name for name, _ in commands} == {"serve", "hotspots"}
    for name, options in commands:
        helped = subprocess.run(
            [sys.executable, "-m", "aiocop_collector", name, "--help"], check=True, capture_output=True, text=True
        )
        for option in re.findall(r"--[a-z-]+", options):
            assert option in helped.stdout


def test_the_table_in_the_readme_shows_the_shop():
    (table,) = [block for block in snippets("README.md", "text") if "Call site" in block]
    shown = {f"{path}:{function}" for path, function in re.findall(r"(shop/\w+\.py):\d+:([\w.]+)", table)}
    assert shown == set(EXPECTED)


def test_every_option_of_the_agent_is_documented():
    documented = rows("docs/configuration.md")
    for option in OPTIONS:
        variables = ", ".join(f"`{name}`" for name in option.variables)
        assert [f"`{option.name}`", variables, option.default, option.effect] in documented


def test_every_option_of_the_collector_is_documented():
    documented = {cells[0].split()[0].strip("`"): cells[1].strip("`") for cells in rows("docs/configuration.md")}
    flags = {name: variable for name, variable in documented.items() if name.startswith("--") and name != "---"}
    fields = [name for name in Settings.model_fields if name != "udp_key"]  # a secret is no flag
    assert flags == {f"--{name.replace('_', '-')}": f"AIOCOP_{name.upper()}" for name in fields}
    assert "AIOCOP_UDP_KEY" in documented["none"]


def test_the_short_table_of_the_readme_agrees_with_the_long_one():
    options = {option.variables[0]: option for option in OPTIONS}
    for variable, argument, default, *_ in (cells for cells in rows("README.md") if cells[0].startswith("`AIOCOP_")):
        option = options[variable.strip("`")]
        assert argument == f"`{option.name}`"
        assert option.default.startswith(default.strip("`"))


def test_the_changelog_has_a_heading_for_this_version():
    version = re.search(r'__version__ = "(.+)"', read("shared/aiocop_wire/_version.py")).group(1)
    assert re.search(rf"^## .*\b{re.escape(version)}\b", read("CHANGELOG.md"), re.MULTILINE)
