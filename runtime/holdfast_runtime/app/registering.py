"""What a registration changes, in words: services that are new, new revisions, handlers that come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast_runtime.app.output import coloured

if TYPE_CHECKING:
    from rich.text import Text

NEW, REVISED, GONE = "new", "revised", "gone"
_STYLES: Final = {NEW: "green", REVISED: "yellow", GONE: "red"}
_MARKS: Final = {NEW: "+", REVISED: "~", GONE: "-"}


@dataclass(frozen=True, slots=True)
class Change:
    """Of one service. was, revision: the active revision before, and after. added, removed: handlers; further: what else is different."""

    service: str
    kind: str
    was: int | None
    revision: int | None
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    further: Sequence[str] = ()

    @property
    def loses(self) -> bool:
        """Something that could be called cannot be called any more, or is another kind of thing."""
        return self.kind == GONE or bool(self.removed) or any(text.startswith("type") for text in self.further)

    def as_json(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "change": self.kind,
            "previous_revision": self.was,
            "revision": self.revision,
            "handlers_added": list(self.added),
            "handlers_removed": list(self.removed),
            "further": list(self.further),
        }

    def lines(self) -> list[Text]:
        head = f"{_MARKS[self.kind]} {self.service}"
        revisions = {
            NEW: f" (revision {self.revision})",
            REVISED: f" (revision {self.was} → {self.revision})",
            GONE: f" (revision {self.was})",
        }
        found = [coloured(head + revisions[self.kind], _STYLES[self.kind])]
        found += [coloured(f"    + {name}", "green") for name in self.added]
        found += [coloured(f"    - {name}", "red") for name in self.removed]
        found += [coloured(f"    ~ {text}", "yellow") for text in self.further]
        if self.kind == REVISED and len(found) == 1:
            found.append(coloured("    the same handlers", "dim"))
        return found


def changes(before: Mapping[str, Mapping[str, Any]], after: Sequence[Mapping[str, Any]], replaced: Sequence[str]) -> list[Change]:
    """before: active services by name. after: those of the deployment. replaced: names that the deployment had until now."""
    found = [_change(before.get(service["name"]), service) for service in after]
    served = {service["name"] for service in after}
    gone = [name for name in replaced if name not in served]
    return found + [Change(name, GONE, before[name]["revision"] if name in before else None, None) for name in gone]


def _change(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Change:
    handlers = _handlers(after)
    if before is None:
        return Change(after["name"], NEW, None, after["revision"], tuple(handlers))
    known = _handlers(before)
    further = [f"type: {before['ty']} → {after['ty']}"] if before["ty"] != after["ty"] else []
    for name in known.keys() & handlers.keys():
        further += [f"{name} {what}" for what in _handler_changes(known[name], handlers[name])]
    added = tuple(name for name in handlers if name not in known)
    removed = tuple(name for name in known if name not in handlers)
    return Change(after["name"], REVISED, before["revision"], after["revision"], added, removed, tuple(sorted(further)))


def _handlers(service: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {handler["name"]: handler for handler in service["handlers"]}


def _handler_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    pairs = (("input_description", "takes"), ("output_description", "gives"), ("ty", "kind"), ("public", "public"))
    return [f"{word}: {before.get(name)} → {after.get(name)}" for name, word in pairs if before.get(name) != after.get(name)]
