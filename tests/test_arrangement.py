"""How the code is arranged: short files, few at the root, a library without options, and all private APIs listed."""

import ast
import re

import pytest

from tests.conftest import PROJECT

SOURCES = sorted((PROJECT / "imgclf").rglob("*.py"))
OPTION = re.compile(
    r"\b(data|model|loss|classifier|optimizer|scheduler|augmentation|trainer|callbacks|logger)\.[a-z_.]+="
)


def test_files_are_short_and_few_are_at_the_root():
    lengths = {path: len(path.read_text().splitlines()) for path in (*SOURCES, *(PROJECT / "tests").rglob("*.py"))}
    assert {str(path): length for path, length in lengths.items() if length > 250} == {}
    assert all(len((PROJECT / name).read_text().splitlines()) <= 70 for name in ("train.py", "evaluate.py"))
    assert len(list((PROJECT / "imgclf").glob("*.py"))) <= 9


@pytest.mark.parametrize("room", sorted(path.parent.name for path in (PROJECT / "imgclf").glob("*/__init__.py")))
def test_the_library_names_no_option_of_the_command_line(room):
    for file in (PROJECT / "imgclf" / room).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not OPTION.search(node.value), f"{file}:{node.lineno}"


def test_every_private_api_is_listed_and_there_are_few():
    listed = re.findall(r"^\| (imgclf/\S+) \|", (PROJECT / ".github" / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    using = [path for path in SOURCES if "# Private API" in path.read_text()]
    assert sorted(listed) == sorted(str(path.relative_to(PROJECT)) for path in using)
    assert len(listed) <= 8
