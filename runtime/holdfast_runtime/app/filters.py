"""Which invocations a command is about: options of `list`, `watch` and every operation, as conditions of SQL.

Rules: names, keys, ids and statuses become conditions that the server judges where the rows are (docs/sql.md); what is completed is
left out unless an option asks for it, as the official tool does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final

import typer

from holdfast_runtime.app.errors import misuse, nearest
from holdfast_runtime.app.query import any_of, literal

STATUSES: Final = ("scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused", "completed")
_PANEL: Final = "Which"
_PINNED: Final = "Only pinned to this deployment, or last tried on it; dp_…."


def _some(help_text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=_PANEL, **more)


@dataclass(frozen=True, slots=True)
class Filters:
    """Lists: any of these; repeated or separated by commas. Ages are of the creation, in milliseconds."""

    service: Annotated[
        list[str] | None, _some(metavar="SERVICE", help_text="Only of this service; more with commas, or repeat the option.")
    ] = None
    handler: Annotated[list[str] | None, _some(metavar="HANDLER", help_text="Only of this handler.")] = None
    key: Annotated[list[str] | None, _some(metavar="KEY", help_text="Only with this key.")] = None
    status: Annotated[list[str] | None, _some(metavar="STATUS", help_text=f"Only in this status: {', '.join(STATUSES)}; or failed.")] = None
    pinned_to: Annotated[list[str] | None, _some(_PINNED, metavar="ID")] = None
    idempotency_key: Annotated[list[str] | None, _some("Only with this idempotency key.", metavar="KEY")] = None
    older_than: Annotated[str | None, _some("Only created longer ago than this, such as 1h or 2d.", metavar="AGE")] = None
    newer_than: Annotated[str | None, _some("Only created since then, such as 10m.", metavar="AGE")] = None
    failed: Annotated[bool, _some("Only what ended with an error.", "--failed", show_default=False)] = False
    all: Annotated[bool, _some("Also what is completed.", "--all", show_default=False)] = False

    @property
    def services(self) -> list[str]:
        return _listed(self.service)

    @property
    def handlers(self) -> list[str]:
        return _listed(self.handler)

    @property
    def given(self) -> bool:
        """Whether any option narrows the choice."""
        return any(getattr(self, field.name) for field in fields(self) if field.name != "all")

    def conditions(self, now_ms: int, *, unless_said: Sequence[str] | None = None) -> list[str]:
        """Joined by AND. unless_said: the statuses that are meant when no option says which, else by --all. Raises CliError."""
        found = [
            f"inv.{column} IN {any_of(values)}"
            for column, values in (
                ("target_service_name", self.services),
                ("target_handler_name", self.handlers),
                ("target_service_key", self.key or []),  # a key may contain commas
                ("idempotency_key", self.idempotency_key or []),
            )
            if values
        ]
        if deployments := _listed(self.pinned_to):
            found.append(_of_deployments(deployments))
        for option, given, sign in (("--older-than", self.older_than, "<"), ("--newer-than", self.newer_than, ">=")):
            if given is not None:
                found.append(f"inv.created_at {sign} to_timestamp_millis({now_ms - _age_ms(option, given)})")
        return [*found, *self._of_status(unless_said)]

    def _of_status(self, unless_said: Sequence[str] | None) -> list[str]:
        wanted = [_status(status) for status in _listed(self.status)]
        if self.failed or "failed" in wanted:
            others = [status for status in wanted if status != "failed"]
            failed = "inv.completion_result = 'failure'"
            return [f"({failed} OR inv.status IN {any_of(others)})"] if others else ["inv.status = 'completed'", failed]
        if wanted:
            return [f"inv.status IN {any_of(wanted)}"]
        if unless_said is not None:
            return [f"inv.status IN {any_of(unless_said)}"]
        return [] if self.all else ["inv.status != 'completed'"]


def _listed(given: list[str] | None) -> list[str]:
    return [part for item in given or [] for part in item.split(",") if part]


def _status(given: str) -> str:
    if given in STATUSES or given == "failed":
        return given
    hint = nearest(given, [*STATUSES, "failed"]) or f"; expected one of {', '.join(STATUSES)} or failed"
    raise misuse(f"there is no status '{given}'{hint}")


def _of_deployments(given: list[str]) -> str:
    from holdfast.protocol.ids import IdError, parse_deployment_id

    for item in given:
        try:
            parse_deployment_id(item)
        except IdError as problem:
            hint = "`holdfast deployments list` shows them"
            raise misuse(f"--pinned-to expects the id of a deployment, dp_…; found '{item}' ({problem.reason}); {hint}") from problem
    return f"(inv.pinned_deployment_id IN {any_of(given)} OR inv.last_attempt_deployment_id IN {any_of(given)})"


def _age_ms(option: str, given: str) -> int:
    from holdfast_runtime.surfaces.durations import parse_duration

    try:
        return parse_duration(given)
    except ValueError:
        raise misuse(f"{option} expects an age such as 30s, 10m, 2h or 7d; found '{given}'") from None


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the options of Filters, which it gets as `where`. `--pinned-to` is also `--deployment`, unless the command has one."""
    own = [item for item in inspect.signature(command, eval_str=True).parameters.values() if item.name != "where"]
    hints = inspect.get_annotations(Filters, eval_str=True)
    if "deployment" not in {item.name for item in own}:
        hints["pinned_to"] = Annotated[list[str] | None, _some(_PINNED, "--deployment", "--pinned-to", metavar="ID")]
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name]) for field in fields(Filters)]
    placed = [item.replace(kind=keyword) for item in own]

    def run(**given: Any) -> None:
        where = Filters(**{option.name: given.pop(option.name) for option in options})
        command(where=where, **given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([*options, *placed])  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in [*options, *placed]}
    return run


# ---- Targets: what is named instead of filtered


def is_id(text: str) -> bool:
    return text.startswith("inv_")


def of_target(target: str) -> str:
    """The condition of `Service`, `Service/handler`, `Service/key` or `Service/key/handler`, as the official tool reads them."""
    parts = target.split("/")
    service = f"inv.target_service_name = {literal(parts[0])}"
    if not parts[0]:
        raise misuse(f"expected an invocation id, or SERVICE, SERVICE/HANDLER, SERVICE/KEY or SERVICE/KEY/HANDLER; found '{target}'")
    if len(parts) == 1:
        return service
    second = literal(parts[1])
    if len(parts) == 2:
        unkeyed = f"(inv.target_service_ty = 'service' AND inv.target_handler_name = {second})"
        return f"({service} AND ({unkeyed} OR (inv.target_service_ty != 'service' AND inv.target_service_key = {second})))"
    key, handler = "/".join(parts[1:-1]), parts[-1]
    return f"({service} AND inv.target_service_key = {literal(key)} AND inv.target_handler_name = {literal(handler)})"
