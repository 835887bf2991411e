"""One transition in the making: reads pages, changes them through operations, collects effects; all or nothing.

Decisions run without a single await. A decision that touches a page which is not in memory raises `NeedPages`: everything it did is taken
back,
the shell loads the pages and runs the decision again from the start, so whatever the decision depends on is checked after the last wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from holdfast_runtime.engine.model import Document

if TYPE_CHECKING:
    from holdfast_runtime.engine.effects import Effect
    from holdfast_runtime.engine.registry import RegistryView

_MISSING: Final = object()


class NeedPages(Exception):
    """The decision needs pages that are not in memory."""

    def __init__(self, page_ids: Iterable[str]) -> None:
        self.page_ids = list(page_ids)
        super().__init__(", ".join(self.page_ids))


class Page:
    """A page in memory.

    lsn: number of the batch that changed it last, -1 when it is absent from the store. first: LSN of the first change that is not in the
    store, None when clean. stored: whether the store may hold it (a tombstone is needed when it is dropped). used: for eviction.
    over_at: of an invocation, ms when what is known of its end is over, also after it was dropped; 0: it has not ended.
    empty_there: this owner has put it in the store, as empty, and nothing since.
    """

    __slots__ = ("document", "empty_there", "first", "first_at", "lsn", "over_at", "stored", "used")

    def __init__(self, document: Document | None, lsn: int, *, stored: bool) -> None:
        self.document = document
        self.lsn = lsn
        self.stored = stored
        self.first: int | None = None
        self.first_at = 0.0  # monotonic seconds of that first change
        self.used = 0.0
        self.over_at = 0
        self.empty_there = False


class Transaction:
    """What a decision reads and writes. `now` is the wall clock in ms; `registry` what is deployed; `handle` applies a message
    (decide.py)."""

    def __init__(
        self,
        pages: dict[str, Page],
        *,
        shard: int,
        shards: int,
        now: int,
        registry: RegistryView,
        handle: Callable[[Transaction, dict[str, Any]], None],
    ) -> None:
        self.pages = pages
        self.shard = shard
        self.shards = shards
        self.now = now
        self.registry = registry
        self.handle = handle
        self.operations: list[list[Any]] = []
        self.effects: list[Effect] = []
        self.touched: dict[str, Page] = {}
        self.created = 0  # new invocations, for whoever counts them
        self.overtaken: list[str] = []  # invocations whose attempt in flight no longer counts, from this instant on
        self._undo: list[tuple[Any, Any, Any]] = []
        self._created: list[str] = []
        # Pages replaced as a whole in this transition: the operation holds the very document, so later changes of it are in it already.
        self._replaced: set[str] = set()
        self._merged: dict[str, list[Any]] = {}

    # -- reading

    def get(self, page_id: str) -> Document | None:
        """The page's document; None when it does not exist. Raises NeedPages when it is not in memory."""
        page = self.pages.get(page_id)
        if page is None:
            raise NeedPages([page_id])
        return page.document

    def need(self, *page_ids: str) -> None:
        """Ask for several pages at once, so that one load serves them all."""
        missing = [page_id for page_id in page_ids if page_id not in self.pages]
        if missing:
            raise NeedPages(missing)

    def absent(self, page_id: str) -> None:
        """The caller knows that this page cannot exist (its id is new): no need to ask the store."""
        if page_id not in self.pages:
            self.pages[page_id] = Page(None, -1, stored=False)
            self._created.append(page_id)

    def overwritten(self, page_id: str) -> None:
        """The page is about to be replaced or dropped as a whole: what the store holds does not matter."""
        if page_id not in self.pages:
            self.pages[page_id] = Page(None, -1, stored=True)
            self._created.append(page_id)

    # -- writing

    def put(self, page_id: str, path: tuple[Any, ...], value: Any) -> None:
        page = self._touch(page_id)
        if not path:
            self._undo.append((page, None, page.document))
            page.document = value
        else:
            container: Any = page.document
            if container is None:
                self._undo.append((page, None, None))
                container = page.document = {}
            for step in path[:-1]:
                inner = container.get(step)
                if inner is None:
                    self._undo.append((container, step, _MISSING))
                    inner = container[step] = {}
                container = inner
            self._undo.append((container, path[-1], container.get(path[-1], _MISSING)))
            container[path[-1]] = value
        if not path:
            self._replaced.add(page_id)
            self._merged.pop(page_id, None)
        elif page_id in self._replaced:
            return
        self.operations.append([page_id, path, value])

    def merge(self, page_id: str, fields: dict[Any, Any]) -> None:
        """Set several fields of the document. A field changed by `merge` is never changed by `put` or `delete` below it, so that all
        merges of one page in one transition can share one operation."""
        page = self._touch(page_id)
        document = page.document
        if document is None:
            self._undo.append((page, None, None))
            document = page.document = {}
        for name, value in fields.items():
            self._undo.append((document, name, document.get(name, _MISSING)))
            document[name] = value
        if page_id in self._replaced:
            return
        merged = self._merged.get(page_id)
        if merged is not None:
            merged[2].update(fields)
            return
        self._merged[page_id] = operation = [page_id, None, fields]
        self.operations.append(operation)

    def delete(self, page_id: str, path: tuple[Any, ...]) -> None:
        page = self._touch(page_id)
        container: Any = page.document
        for step in path[:-1]:
            container = container.get(step) if container is not None else None
        if container is None or path[-1] not in container:
            return
        self._undo.append((container, path[-1], container.pop(path[-1])))
        if page_id not in self._replaced:
            self.operations.append([page_id, path])

    def drop(self, page_id: str) -> None:
        page = self._touch(page_id)
        if page.document is None and not page.stored:
            return
        self._undo.append((page, None, page.document))
        page.document = None
        self._replaced.discard(page_id)
        self._merged.pop(page_id, None)
        self.operations.append([page_id])

    def after(self, effect: Effect) -> None:
        """`effect` happens when this transition is durable, in order."""
        self.effects.append(effect)

    def overtake(self, invocation: str) -> None:
        """The attempt in flight, if any, no longer counts."""
        self.overtaken.append(invocation)

    def rollback(self) -> None:
        """Take everything back, newest first."""
        for container, key, old in reversed(self._undo):
            if isinstance(container, Page):
                container.document = old
            elif old is _MISSING:
                container.pop(key, None)
            else:
                container[key] = old
        for page_id in self._created:
            del self.pages[page_id]
        self._undo.clear()
        self._created.clear()
        self.operations.clear()
        self.effects.clear()
        self.created = 0
        self.touched.clear()
        self.overtaken.clear()
        self._replaced.clear()
        self._merged.clear()

    def _touch(self, page_id: str) -> Page:
        page = self.pages.get(page_id)
        if page is None:
            raise NeedPages([page_id])
        self.touched[page_id] = page
        return page
