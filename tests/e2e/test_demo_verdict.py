"""The demo's list of what must be found agrees with the shop, and its judgement with the list."""

import ast
from pathlib import Path

from demo.verdict import EXPECTED, INNOCENT, judge

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ALL_FOUND = [{"call_site": site.replace(":", ":7:", 1)} for site in EXPECTED]


def functions_of(path: Path) -> set[str]:
    """Qualified names of the functions and methods in a module."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return names


def test_every_expected_call_site_is_a_function_of_the_shop():
    for site in EXPECTED:
        path, _, function = site.partition(":")
        assert function in functions_of(EXAMPLES / path), site


def test_every_module_of_the_shop_that_says_what_it_is_is_judged():
    mistakes, innocent = set(), set()
    for path in (EXAMPLES / "shop").glob("*.py"):
        said = ast.get_docstring(ast.parse(path.read_text()))
        if said.startswith("Mistake:"):
            mistakes.add(f"shop/{path.name}")
        if said.startswith("As it should be:"):
            innocent.add(f"shop/{path.name}")
    assert mistakes == {site.partition(":")[0] for site in EXPECTED}
    assert innocent == INNOCENT


def test_all_found_and_nobody_else_is_right():
    assert judge([*ALL_FOUND, {"call_site": "fastapi/routing.py:1:app"}, {"call_site": "<gc>"}]).is_right


def test_what_is_missing_is_named_with_its_reason():
    verdict = judge([row for row in ALL_FOUND if "pricing" not in row["call_site"]])
    assert not verdict.is_right
    assert verdict.missing == ("shop/pricing.py:best_bundle (a pure-Python loop)",)


def test_the_right_file_with_another_function_does_not_count():
    rows = [row for row in ALL_FOUND if "pricing" not in row["call_site"]]
    assert judge([*rows, {"call_site": "shop/pricing.py:7:other"}]).missing


def test_an_innocent_one_is_accused():
    verdict = judge([*ALL_FOUND, {"call_site": "shop/shipping.py:20:quote_shipping"}])
    assert not verdict.is_right
    assert verdict.accused == ("shop/shipping.py:20:quote_shipping",)
