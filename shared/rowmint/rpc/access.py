"""Who is let in: every call is judged by its method's rule before anything else is done for it.

The rules stand in the contract, beside the methods (`rowmint.v1.access`). A caller who may not call learns nothing but
that: the answer is the same whether or not what is named exists.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

import grpc
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass

from rowmint.errors import PermissionDeniedError, RowmintError, UnauthenticatedError
from rowmint.names import ProjectName, project_of
from rowmint.observability.calls import current_request_id, note_caller, rebuilt
from rowmint.rpc.caller import set_caller
from rowmint.security.decisions import ALLOWED, DENIED, UNAUTHENTICATED, AuditEntry
from rowmint.security.identity import ANYBODY, Identity, Role
from rowmint.v1 import access_pb2

# They tell of a process, and nothing of what is in it: proxies and balancing channels ask them without credentials.
OPEN_SERVICES = ("grpc.health.v1.Health", "xds.service.orca.v3.OpenRcaService")
# Served to whoever has credentials at all: the contract is no project's.
SHARED_SERVICES = ("grpc.reflection.v1alpha.ServerReflection",)

_NOBODY = Identity("nobody", {})


@dataclass(frozen=True)
class Rule:
    """What a method takes.

    Attributes:
        role: The role needed.
        resources: Paths of the request's fields that name resources; the role is needed in the project of each that is
            set, and the first must be set.
    """

    role: Role
    resources: tuple[str, ...]


def rules_of(services: Sequence[str]) -> Mapping[str, Rule]:
    """Return the rule of each method, ``package.Service/Method``, of services of our contract.

    Args:
        services: Full names of the services.

    Raises:
        ValueError: A method has none, or one that does not fit its request. It would be served to nobody.
    """
    rules = {}
    for name in services:
        service = Default().FindServiceByName(name)
        for method in service.methods:
            access = method.GetOptions().Extensions[access_pb2.access]
            if not access.role or not access.resources:
                raise ValueError(f"{method.full_name} has no rule of access; give it `option (access)`")
            request = GetMessageClass(method.input_type)()
            for path in access.resources:
                if not isinstance(attrgetter(path)(request), str):
                    raise ValueError(f"{method.full_name}: {path} is no text that could name a resource")
            rules[f"{name}/{method.name}"] = Rule(Role(access.role), tuple(access.resources))
    return rules


class Authenticator(Protocol):
    """Tells who calls; `rowmint.security.authenticator.Authenticator` does."""

    async def identify(self, authorization: Sequence[str], certificate_names: Collection[str]) -> Identity:
        """Return who calls.

        Args:
            authorization: Values of the header of that name.
            certificate_names: Names in the certificate that the client has shown, verified; none where it has not.

        Raises:
            UnauthenticatedError: It is not known.
        """
        ...


class Auditor(Protocol):
    """Keeps what was decided; `rowmint.security.audit.AuditLog` does."""

    async def record(self, entry: AuditEntry) -> None:
        """Return once the entry is kept for good.

        Raises:
            UnavailableError: It cannot be.
        """
        ...


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through to its handler once it is known who calls and that they may.

    It must stand inside whatever turns domain errors into statuses.

    Args:
        rules: From `rules_of`, for every service that is neither open nor shared.
        authenticator: Tells who calls; None lets anybody do everything.
        audit: Keeps every decision; None keeps none.
    """

    def __init__(self, rules: Mapping[str, Rule], authenticator: Authenticator | None, audit: Auditor | None) -> None:
        self._rules = rules
        self._authenticator = authenticator
        self._audit = audit

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method).removeprefix("/")
        service = method.rpartition("/")[0]
        if handler is None or service in OPEN_SERVICES:
            return handler
        # A method of which nothing is known raises here, and is served to nobody.
        rule = None if service in SHARED_SERVICES else self._rules[method]
        admit = partial(self._admit, method, rule)
        guards = partial(_guard_stream, admit), partial(_guard_unary, admit)
        return rebuilt(handler, *guards, handler.request_deserializer, handler.response_serializer)

    async def _admit(self, method: str, rule: Rule | None, request: Any, context: Any) -> Any:
        """Return the request of a call that is let through; that of a stream judges each message when it is read."""
        judge = _Judge(method, self._audit)
        await judge.identify(self._authenticator, context)
        if rule is None:
            await judge.keep("", ALLOWED)
        elif isinstance(request, AsyncIterator):
            return _Judged(request, partial(judge.judge, rule))
        else:
            await judge.judge(rule, request)
        return request


class _Judge:
    """Judges one call and keeps what it decides."""

    def __init__(self, method: str, audit: Auditor | None) -> None:
        self._method = method
        self._audit = audit
        self._who = ANYBODY
        self._allowed: tuple[str, ...] = ()

    async def identify(self, authenticator: Authenticator | None, context: Any) -> None:
        """Find out who calls.

        Raises:
            UnauthenticatedError: It is not known.
        """
        if authenticator is None:
            return
        headers = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
        try:
            self._who = await authenticator.identify(headers, certificate_names(context.auth_context()))
        except UnauthenticatedError as error:
            self._who = _NOBODY
            await self.keep("", UNAUTHENTICATED, error.reason)
            raise
        note_caller(self._who.name)
        set_caller(self._who)

    async def judge(self, rule: Rule, message: Any) -> None:
        """Judge a message; of a stream, the first says what the call is about, and later ones say the same or nothing.

        Raises:
            PermissionDeniedError: Who calls may not.
            InvalidFieldError: The message does not say what the call is about.
            UnavailableError: The decision cannot be kept.
        """
        named = tuple(attrgetter(path)(message) for path in rule.resources)
        if self._allowed and (named == self._allowed or not any(named)):
            return
        try:
            for path, text in zip(rule.resources, named, strict=True):
                if text or path == rule.resources[0]:
                    self._check(rule.role, project_of(text, path))
        except RowmintError as error:
            await self.keep(named[0], DENIED, error.reason)
            raise
        await self.keep(named[0], ALLOWED)
        self._allowed = named

    def _check(self, role: Role, project: ProjectName) -> None:
        if not self._who.may(role, project.project):
            raise PermissionDeniedError(
                f"{self._who.name} may not call {self._method.rpartition('/')[2]} in {project}: that takes the role"
                f" {role.name.lower()} there, which whoever runs the service grants",
                metadata={"role": role.name.lower(), "project": str(project)},
            )

    async def keep(self, resource: str, decision: str, reason: str = "") -> None:
        """Keep a decision.

        Raises:
            UnavailableError: It cannot be.
        """
        if self._audit is not None:
            await self._audit.record(
                AuditEntry(self._who.name, self._method, resource, decision, reason, current_request_id())
            )


class _Judged:
    """The messages of a stream, each judged before it is handed out."""

    def __init__(self, messages: AsyncIterator[Any], judge: Callable[[Any], Awaitable[None]]) -> None:
        self._messages = messages
        self._judge = judge

    def __aiter__(self) -> "_Judged":
        return self

    async def __anext__(self) -> Any:
        message = await anext(self._messages)
        await self._judge(message)
        return message


def _guard_unary(
    admit: Callable[[Any, Any], Awaitable[Any]], inner: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behavior(request: Any, context: Any) -> Any:
        return await inner(await admit(request, context), context)

    return behavior


def _guard_stream(
    admit: Callable[[Any, Any], Awaitable[Any]], inner: Callable[[Any, Any], AsyncGenerator[Any, None]]
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def behavior(request: Any, context: Any) -> AsyncIterator[Any]:
        async with aclosing(inner(await admit(request, context), context)) as responses:
            async for response in responses:
                yield response

    return behavior


def certificate_names(auth_context: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Return the names in a client's verified certificate: its alternative names, then its common name.

    Args:
        auth_context: What gRPC knows of the connection.
    """
    found = [*auth_context.get("x509_subject_alternative_name", ()), *auth_context.get("x509_common_name", ())]
    return [name.decode("utf-8", "replace") for name in found]
