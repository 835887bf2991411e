"""llms.txt, llms-full.txt and a Markdown copy of every page (llmstxt.org), made from the navigation while the site is built.

Rules: what is in the navigation is in them, under the same heads and in the same order; what a page is about is the first sentence of its
first paragraph, so that nothing has to be kept in step.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

_COMMENT: Final = re.compile(r"^[ \t]*<!--.*?-->\n", re.MULTILINE | re.DOTALL)
_OBJECT: Final = re.compile(r"^(?P<hashes>#*) *::: (?P<path>[\w.]+)\n(?:    .*\n?)*", re.MULTILINE)

_site: dict[str, Navigation] = {}
_texts: dict[str, str] = {}


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    _site["nav"] = nav
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    _texts[page.file.src_uri] = _OBJECT.sub(_described, _COMMENT.sub("", markdown)).strip() + "\n"
    return markdown


def on_post_build(config: MkDocsConfig) -> None:
    site = Path(config.site_dir)
    index = [f"# {config.site_name}", f"> {config.site_description}"]
    whole = list(index)
    for head, pages in sections(_site["nav"]):
        index.append(f"## {head}")
        index.append("\n".join(f"- [{page.title}]({page.file.src_uri}): {about(_texts[page.file.src_uri])}" for page in pages))
        whole += [f"<!-- {page.file.src_uri} -->\n\n{_texts[page.file.src_uri].strip()}" for page in pages]
    (site / "llms.txt").write_text("\n\n".join(index) + "\n")
    (site / "llms-full.txt").write_text("\n\n".join(whole) + "\n")
    for name, text in _texts.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)


def sections(nav: Navigation) -> Iterator[tuple[str, list[Page]]]:
    """The heads of the navigation, with all pages below each."""
    for item in nav.items:
        pages = [item] if isinstance(item, Page) else list(_pages(item.children or []))
        if pages:
            yield str(item.title), pages


def _pages(items: list[Any]) -> Iterator[Page]:
    for item in items:
        if isinstance(item, Page):
            yield item
        else:
            yield from _pages(item.children or [])


def about(text: str) -> str:
    """The first sentence of the first paragraph."""
    paragraphs = re.split(r"\n{2,}", text)
    first = next((part for part in paragraphs if re.match(r"(?!```)[\w`*\[\"']", part)), "")
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(first.split()))
    return re.split(r"(?<=[.?!])\s(?=[A-Z`*])", plain, maxsplit=1)[0].strip().removesuffix(":")


def _described(match: re.Match[str]) -> str:
    """Of an object in the reference: its signature and docstring, and those of its public members."""
    found, name = _found(match["path"])
    lines = [f"## {name}\n", _signature(found, name), inspect.getdoc(found) or ""]
    if inspect.isclass(found):
        for member, value in inspect.getmembers(found):
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                lines.append(f"- {_signature(value, member)}: {' '.join((inspect.getdoc(value) or '').split())}")
    return "\n\n".join(line for line in lines if line) + "\n"


def _found(path: str) -> tuple[Any, str]:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name), name
    except (ImportError, AttributeError, ValueError):
        return importlib.import_module(path), path


def _signature(found: Any, name: str) -> str:
    try:
        return f"`{name}{inspect.signature(found)}`" if callable(found) else f"`{name}`"
    except (TypeError, ValueError):
        return f"`{name}`"
