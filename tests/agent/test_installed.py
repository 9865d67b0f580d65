"""What an installer really leaves: a service installed from its folder is application code, as a library is not."""

import subprocess
import sys
import textwrap

import pytest
from tests.support.running import clean_environment, run, write_program

from aiocop.installed import own_places

BACKEND = """
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "shop-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.write("orders.py", "shop/orders.py")
        wheel.writestr("shop/__init__.py", "")
        wheel.writestr("shop_tool.py", "")
        wheel.writestr("shop-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: shop\\nVersion: 1.0\\n")
        about = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("shop-1.0.dist-info/WHEEL", about)
        wheel.writestr("shop-1.0.dist-info/RECORD", "")
    return name
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "shop"
version = "1.0"
"""
ORDERS = """
import time

async def create():
    time.sleep(0.06)
"""
PROGRAM = """
import asyncio, sys
sys.path.append(sys.argv[1])
import aiocop
from shop.orders import create
events = []
aiocop.start("shop", on_slow_task=events.append, application=sys.argv[2:])
async def main():
    await create()
asyncio.run(main())
print(next(event.call_site for event in events if event.exceeded_threshold))
"""


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory):
    """A folder into which pip installed a service from its sources."""
    sources = tmp_path_factory.mktemp("sources")
    for name, text in {"backend.py": BACKEND, "pyproject.toml": PROJECT, "orders.py": ORDERS}.items():
        (sources / name).write_text(textwrap.dedent(text))
    target = tmp_path_factory.mktemp("environment") / "site-packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*command, "--no-deps", "--no-build-isolation", "--target", target, sources], check=True)
    return target


def test_its_folders_and_files_are_found(site_packages):
    assert own_places([str(site_packages), "/does/not/exist/site-packages", ""]) == {
        f"{site_packages}/shop",
        f"{site_packages}/shop_tool.py",
    }


@pytest.fixture
def as_a_library(site_packages):
    """The same, as if it came from an index."""
    record = next(site_packages.glob("shop-*.dist-info")) / "direct_url.json"
    text = record.read_text()
    record.write_text('{"url": "https://files.example.org/shop-1.0-py3-none-any.whl", "archive_info": {}}')
    yield site_packages
    record.write_text(text)


def blamed(tmp_path, folder, *application, **environment):
    """The call site that a program which imports `shop` from the folder hears of."""
    program = write_program(tmp_path / "program.py", PROGRAM)
    said = run(sys.executable, program, folder, *application, environment=clean_environment(**environment))
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def test_a_direct_url_makes_it_the_application(site_packages, tmp_path):
    assert blamed(tmp_path, site_packages) == "shop/orders.py:5:create"


@pytest.mark.parametrize("others", [(), ("sho",), ("shop.order", "cart")])
def test_without_one_its_caller_is(as_a_library, tmp_path, others):
    assert blamed(tmp_path, as_a_library, *others) == "program.py:9:main"


@pytest.mark.parametrize("package", ["shop", "shop.orders"])
def test_saying_so_makes_it_the_application(as_a_library, tmp_path, package):
    assert blamed(tmp_path, as_a_library, "cart", package) == "shop/orders.py:5:create"
    assert blamed(tmp_path, as_a_library, AIOCOP_APPLICATION=f"cart, {package}") == "shop/orders.py:5:create"


def test_user_code_in_a_folder_named_after_us_is_user_code(tmp_path):
    folder = tmp_path / "aiocop"
    write_program(folder / "shop" / "orders.py", ORDERS)
    program = write_program(folder / "program.py", PROGRAM)
    said = run(sys.executable, program, folder, environment=clean_environment(PYTHONSAFEPATH="1"))
    assert said.stdout.strip() == "shop/orders.py:5:create", said.stderr
