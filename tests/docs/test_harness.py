"""A page that does not do what it says is found, and the failure names the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import Action, PageError, parse
from tests.docs.running import Page

FENCE = "```"


def fails(folder: Path, *lines: str) -> str:
    page, work = folder / "page.md", folder / "work"
    page.write_text("\n".join(lines) + "\n")
    work.mkdir()
    with pytest.raises(PageError) as found:
        Page(page, work).run()
    return str(found.value).replace(str(page), "page.md")


def runs(folder: Path, *lines: str) -> None:
    page, work = folder / "page.md", folder / "work"
    page.write_text("\n".join(lines) + "\n")
    work.mkdir()
    Page(page, work).run()


def test_python_names_the_line_of_the_page(tmp_path: Path) -> None:
    said = fails(tmp_path, "# A page", "", f"{FENCE}python", "one = 1", "assert one == 2", FENCE)
    assert said.startswith("page.md:4: AssertionError")
    assert "page.md:5 in <module>: assert one == 2" in said


def test_a_file_names_the_line_of_the_page(tmp_path: Path) -> None:
    said = fails(tmp_path, "text", f'{FENCE}python title="shop.py"', "a = 1", "b = a / 0", FENCE)
    assert "page.md:4 (shop.py) in <module>: b = a / 0" in said


def test_a_command_that_fails(tmp_path: Path) -> None:
    assert fails(tmp_path, f"{FENCE}sh", "echo so far", "false", "echo never", FENCE).startswith(
        "page.md:2: exit code 1, expected 0\n    so far"
    )


def test_what_is_printed(tmp_path: Path) -> None:
    said = fails(tmp_path, f"{FENCE}console", "$ echo 'id 17 is   new'", "id ... is old", FENCE)
    assert said == "page.md:2: this was printed instead\n    id 17 is   new"


def test_what_belongs_together_runs(tmp_path: Path) -> None:
    runs(
        tmp_path,
        *(f'{FENCE}python title="shop.py"', "def price() -> int:", "    return 7", FENCE),
        *(f"{FENCE}python", "import asyncio", "import shop", "await asyncio.sleep(0)", "print('price', shop.price())", FENCE),
        *("<!-- output -->", f"{FENCE}text", "price ...", FENCE),
        *("<!-- excerpt: shop.py -->", f"{FENCE}python", "return 7", FENCE),
        *("<!-- raises: ZeroDivisionError -->", f"{FENCE}python", "shop.price() / 0", FENCE),
        *(f"{FENCE}sh", "mkdir box; cd box", "NAME=cup", FENCE),
        *("<!-- hidden: sh", 'test "$NAME $(basename "$PWD")" = "cup box"', "-->"),
        *("<!-- exit: 3 -->", f"{FENCE}sh", "exit 3", FENCE),
        *("<!-- background: up -->", f"{FENCE}sh", "echo up; echo later; exec sleep 600", FENCE),
        *("<!-- wait: later -->", "<!-- kill -->"),
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("<!-- no-run: too slow -->", f"{FENCE}sh", "true", FENCE), "page.md:3: `no-run` needs a reason"),
        (("<!-- no-run: code for others -->", f"{FENCE}python", "def", FENCE), "page.md:3: SyntaxError"),
        (("<!-- norun: code for others -->", f"{FENCE}python", "pass", FENCE), "page.md:1: `norun` is none of"),
        (("<!-- output -->", "", "text"), "page.md: no block follows a comment `output`"),
        (("<!-- excerpt: shop.py -->", f"{FENCE}python", "pass", FENCE), "page.md:3: excerpt of shop.py, which the page has not shown"),
        (("<!-- raises: ValueError -->", f"{FENCE}python", "pass", FENCE), "page.md:3: ValueError was expected, nothing was raised"),
        (("<!-- kill -->",), "page.md:1: `kill`: nothing runs in the background"),
        (("<!-- background: never said -->", f"{FENCE}sh", "echo bye", FENCE), "page.md:3: it did not print 'never said', but\n    bye"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_marks_are_held_to(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    assert fails(tmp_path, *lines).startswith(said)


def test_comments_inside_code_are_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{FENCE}html\n<!-- kill -->\n{FENCE}\n")
    assert not [item for item in parse(page) if isinstance(item, Action)]
