"""Services, virtual objects and workflows, and the handlers registered with them.

Rules: misuse is an error when the handler is registered; what a handler takes and returns is read from its
annotations then (or when the endpoint is built, for names defined later in the module); a handler object
remembers its types, so that calls to it are checked.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, Unpack, cast, overload

from holdfast import _misuse
from holdfast.options import HandlerArguments, OptionArguments, manifest_options
from holdfast.serde import Serde, VoidSerde, serde_for

if typing.TYPE_CHECKING:
    from holdfast import sync
    from holdfast.context import (
        Context,
        ObjectContext,
        SharedObjectContext,
        SharedWorkflowContext,
        WorkflowContext,
    )

In = TypeVar("In")
Out = TypeVar("Out")
# The protocol's words; the manifest's own enumerations are loaded with discovery, not at a cold start.
ServiceType = Literal["SERVICE", "VIRTUAL_OBJECT", "WORKFLOW"]
HandlerType = Literal["EXCLUSIVE", "SHARED", "WORKFLOW"]

AsyncCtx = TypeVar("AsyncCtx", bound="Context")
SyncCtx = TypeVar("SyncCtx", bound="sync.Context")

_SERVICE_NAME: Final = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9._-]*")
_HANDLER_NAME: Final = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9_]*")


class Handler(Generic[In, Out]):
    """A registered handler. Give it to `ctx.call`; call it like the plain function in unit tests."""

    def __init__(
        self,
        service: ServiceBase,
        kind: HandlerType | None,
        context: str,
        function: Callable[..., Any],
        arguments: HandlerArguments,
    ) -> None:
        self.service_name = service.name
        self.service_type = service.type
        self.kind = kind
        self.function = function
        self.name = arguments.get("name") or str(getattr(function, "__name__", type(function).__name__))
        self.accept = arguments.get("accept")
        self.content_type = arguments.get("content_type")
        _misuse.check_media_type("accept", self.accept)
        _misuse.check_media_type("content_type", self.content_type)
        plain = {key: value for key, value in arguments.items() if key not in ("name", "accept", "content_type")}
        self.options = manifest_options(plain)
        self.is_async = inspect.iscoroutinefunction(function)
        self.context = _context(context, self.is_async)
        self.takes_argument = self._check_parameters()
        self._types: tuple[Serde[Any], Serde[Any]] | None = None
        self._annotations: tuple[Any, Any] = (Any, Any)
        if not _HANDLER_NAME.fullmatch(self.name):
            hint = "; give it a name=" if self.name == "<lambda>" else ""
            raise ValueError(f"{service.name}: handler name '{self.name}' does not match {_HANDLER_NAME.pattern}{hint}")
        with suppress(NameError):  # a type defined further down; the endpoint resolves again
            self.resolve()

    @property
    def full_name(self) -> str:
        """`service/handler`."""
        return f"{self.service_name}/{self.name}"

    @property
    def input(self) -> Serde[In]:
        """How the argument travels."""
        return self.resolve()[0]

    @property
    def output(self) -> Serde[Out]:
        """How the result travels."""
        return self.resolve()[1]

    @property
    def annotations(self) -> tuple[Any, Any]:
        """The types of argument and result."""
        self.resolve()
        return self._annotations

    def resolve(self) -> tuple[Serde[Any], Serde[Any]]:
        """Reads the annotations; raises TypeError for types that cannot travel."""
        if self._types is None:
            hints = typing.get_type_hints(self.function, include_extras=True)
            names = list(inspect.signature(self.function).parameters)
            self._check_context(hints.get(names[0]))
            argument = hints.get(names[1], Any) if self.takes_argument else None
            result = hints.get("return", Any)
            try:
                self._types = (
                    serde_for(argument) if self.takes_argument else VoidSerde(),
                    serde_for(result),
                )
            except TypeError as error:
                raise TypeError(f"handler {self.full_name}: {error}") from error
            self._annotations = (argument, result)
        return self._types

    def _check_parameters(self) -> bool:
        """Whether it takes an argument; raises TypeError unless it takes a context and at most one."""
        parameters = list(inspect.signature(self.function).parameters.values())
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if not positional:
            raise TypeError(f"handler {self.full_name} takes no context; write `def {self.name}(ctx: {self.context.__name__}, ...)`")
        if len(positional) > 2 or len(positional) != len(parameters):
            raise TypeError(
                f"handler {self.full_name} must take a context and at most one argument, found "
                f"({', '.join(p.name for p in parameters)}); put several values into a dataclass"
            )
        return len(positional) == 2

    @property
    def has_default(self) -> bool:
        """Whether an empty body means the default of the argument; for bytes it is a value like any other."""
        if not self.takes_argument or self.annotations[0] is bytes:
            return False
        return list(inspect.signature(self.function).parameters.values())[1].default is not inspect.Parameter.empty

    def _check_context(self, annotation: Any) -> None:
        if annotation is None or annotation is Any or issubclass(self.context, annotation):
            return
        wanted = f"{self.context.__module__.removesuffix('.context')}.{self.context.__name__}"
        how = "async def" if self.is_async else "def"
        kind = "" if self.kind is None else f"{self.kind.lower()} "
        raise TypeError(
            f"handler {self.full_name}: this {kind}`{how}` handler of a {_words(self.service_type)} gets a "
            f"{wanted}, but its first parameter is annotated {annotation.__module__}.{annotation.__qualname__}"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<handler {self.full_name}>"


class HandlerDecorator(Generic[AsyncCtx, SyncCtx]):
    """`@service.handler`, with or without options. Async handlers get the one context, plain ones the other."""

    def __init__(
        self,
        service: ServiceBase,
        kind: HandlerType | None,
        context: str,
        arguments: HandlerArguments | None = None,
    ) -> None:
        self._service = service
        self._kind = kind
        self._context = context
        self._arguments: HandlerArguments = arguments or {}

    @overload
    def __call__(self, function: Callable[[AsyncCtx, In], Awaitable[Out]], /) -> Handler[In, Out]: ...
    @overload
    def __call__(self, function: Callable[[AsyncCtx], Awaitable[Out]], /) -> Handler[None, Out]: ...
    @overload
    def __call__(self, function: Callable[[SyncCtx, In], Out], /) -> Handler[In, Out]: ...
    @overload
    def __call__(self, function: Callable[[SyncCtx], Out], /) -> Handler[None, Out]: ...
    @overload
    def __call__(self, function: None = None, /, **arguments: Unpack[HandlerArguments]) -> HandlerDecorator[AsyncCtx, SyncCtx]: ...
    def __call__(self, function: Any = None, /, **arguments: Any) -> Any:
        if function is None:
            merged: Any = {**self._arguments, **arguments}
            return HandlerDecorator(self._service, self._kind, self._context, merged)
        _misuse.check_function(function, repr(self._service), self._written())
        handler: Handler[Any, Any] = Handler(self._service, self._kind, self._context, function, self._arguments)
        self._service._add(handler)
        return handler

    def _written(self) -> str:
        word = {"SHARED": "shared", "WORKFLOW": "main"}.get(self._kind or "", "handler")
        return f"@{self._service.name}.{'handler' if self._service.type == 'WORKFLOW' and word == 'shared' else word}"


class ServiceBase:
    """What the three kinds share: a name, options, handlers."""

    type: ClassVar[ServiceType]

    def __init__(self, name: str, **options: Unpack[OptionArguments]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a {_words(self.type)} is a text, found {name!r}")
        if not _SERVICE_NAME.fullmatch(name):
            raise ValueError(f"service name '{name}' does not match {_SERVICE_NAME.pattern}")
        if name.lower().startswith("restate") or name.lower() == "openapi":
            raise ValueError(f"service name '{name}' is reserved; choose another")
        if "workflow_retention" in options:
            raise TypeError(
                f"'{name}': workflow_retention is an option of the main handler of a workflow: @{name}.main(workflow_retention=...)"
            )
        self.name = name
        self.options = manifest_options(options)
        self.handlers: dict[str, Handler[Any, Any]] = {}

    def _add(self, handler: Handler[Any, Any]) -> None:
        if handler.name in self.handlers:
            raise ValueError(f"service '{self.name}' already has a handler '{handler.name}'; rename one, or pass name=")
        self._check_options(handler)
        self.handlers[handler.name] = handler

    def _check_options(self, handler: Handler[Any, Any]) -> None:
        main = handler.kind == "WORKFLOW"
        if "workflow_completion_retention_ms" in handler.options and not main:
            raise ValueError(f"{handler.full_name}: workflow_retention belongs on the main handler of a workflow")
        if "idempotency_retention_ms" in handler.options and main:
            raise ValueError(
                f"{handler.full_name}: a workflow runs once per key; give it workflow_retention instead of idempotency_retention"
            )
        if self.options.get("ingress_private") and handler.options.get("ingress_private") is False:
            raise ValueError(f"{handler.full_name} cannot be public in a private service; hide single handlers")

    def check(self) -> None:
        """Last checks, once the module is complete. Raises TypeError or ValueError."""
        if not self.handlers:
            raise ValueError(f"service '{self.name}' has no handlers; decorate functions with @{self.name}.handler")
        for handler in self.handlers.values():
            try:
                handler.resolve()
            except NameError as error:
                raise TypeError(f"handler {handler.full_name}: {error}; annotations must name types of the module") from error

    def __getattr__(self, name: str) -> Handler[Any, Any]:
        handlers: dict[str, Handler[Any, Any]] = self.__dict__.get("handlers", {})
        if name in handlers:
            return handlers[name]
        if name in ("handler", "shared", "main"):
            kinds = {"shared": "a VirtualObject (of a Workflow, every @....handler is shared)", "main": "a Workflow"}
            raise AttributeError(
                f"a {_words(self.type)} has no @{self.__dict__.get('name')}.{name}; it belongs to {kinds.get(name, 'a service')}"
            )
        raise AttributeError(f"{_words(self.type)} '{self.__dict__.get('name')}' has no handler '{name}'")

    if not typing.TYPE_CHECKING:

        def __call__(self, *_: object, **__: object) -> typing.NoReturn:
            word = "main or @{0}.handler" if self.type == "WORKFLOW" else "handler"
            raise TypeError(f"a {_words(self.type)} is no decorator; write @{self.name}.{word.format(self.name)}")

    def __repr__(self) -> str:
        return f"<{_words(self.type)} {self.name}>"


class Service(ServiceBase):
    """A group of handlers that run concurrently and keep no state."""

    type: ClassVar[ServiceType] = "SERVICE"

    @property
    def handler(self) -> HandlerDecorator[Context, sync.Context]:
        """Registers a handler."""
        return HandlerDecorator(self, None, "Context")


class VirtualObject(ServiceBase):
    """Handlers with a key and state: exclusive ones run one at a time per key, shared ones at any time."""

    type: ClassVar[ServiceType] = "VIRTUAL_OBJECT"

    @property
    def handler(self) -> HandlerDecorator[ObjectContext, sync.ObjectContext]:
        """Registers an exclusive handler: one at a time per key, may write state."""
        return HandlerDecorator(self, "EXCLUSIVE", "ObjectContext")

    @property
    def shared(self) -> HandlerDecorator[SharedObjectContext, sync.SharedObjectContext]:
        """Registers a shared handler: concurrent, reads state only."""
        return HandlerDecorator(self, "SHARED", "SharedObjectContext")


class Workflow(ServiceBase):
    """A main handler that runs once per key, and shared handlers that talk to it."""

    type: ClassVar[ServiceType] = "WORKFLOW"

    @property
    def main(self) -> HandlerDecorator[WorkflowContext, sync.WorkflowContext]:
        """Registers the handler that runs once per key."""
        return HandlerDecorator(self, "WORKFLOW", "WorkflowContext")

    @property
    def handler(self) -> HandlerDecorator[SharedWorkflowContext, sync.SharedWorkflowContext]:
        """Registers a shared handler: signals and queries, at any time."""
        return HandlerDecorator(self, "SHARED", "SharedWorkflowContext")

    def _add(self, handler: Handler[Any, Any]) -> None:
        mains = [other for other in self.handlers.values() if other.kind == "WORKFLOW"]
        if handler.kind == "WORKFLOW" and mains:
            raise ValueError(f"workflow '{self.name}' already has the main handler '{mains[0].name}'")
        super()._add(handler)

    def check(self) -> None:
        super().check()
        if not any(handler.kind == "WORKFLOW" for handler in self.handlers.values()):
            raise ValueError(f"workflow '{self.name}' has no main handler; decorate it with @{self.name}.main")


def _context(name: str, is_async: bool) -> type[Context] | type[sync.Context]:
    """The class of this name; a function whose handlers are all of one flavour never loads the other's."""
    if is_async:
        from holdfast import context

        found: type[Context] = getattr(context, name)
        return found
    from holdfast import sync

    return cast("type[sync.Context]", getattr(sync, name))


def _words(type: ServiceType) -> str:
    return type.lower().replace("_", " ")
