"""Authentication and authorization: every call is checked against its method's access rule before it is handled.

The rules are method options in the protos (`rowmint.v1.access`). The answer to an unauthorized caller does not depend
on whether the named resource exists.
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
from rowmint.observability.calls import current_request_id, record_caller, wrap_handler
from rowmint.rpc.caller import set_caller
from rowmint.security.decisions import ALLOWED, DENIED, UNAUTHENTICATED, AuditEntry
from rowmint.security.identity import ANONYMOUS, Identity, Role
from rowmint.v1 import access_pb2

# They describe the process, not its data: proxies and balancing channels call them without credentials.
OPEN_SERVICES = ("grpc.health.v1.Health", "xds.service.orca.v3.OpenRcaService")
# Served to every authenticated caller: the protos do not belong to a project.
SHARED_SERVICES = ("grpc.reflection.v1alpha.ServerReflection",)

_UNAUTHENTICATED = Identity("unauthenticated", {})


@dataclass(frozen=True)
class Rule:
    """Access rule of a method.

    Attributes:
        role: The required role.
        resources: Paths of the request's fields that name resources; the role is required in the project of each that
            is set, and the first must be set.
    """

    role: Role
    resources: tuple[str, ...]


def access_rules(services: Sequence[str]) -> Mapping[str, Rule]:
    """Return the rule of each method, ``package.Service/Method``, of Rowmint's services.

    Args:
        services: Full names of the services.

    Raises:
        ValueError: A method has no rule, or one that does not fit its request.
    """
    rules = {}
    for name in services:
        service = Default().FindServiceByName(name)
        for method in service.methods:
            access = method.GetOptions().Extensions[access_pb2.access]
            if not access.role or not access.resources:
                raise ValueError(f"{method.full_name} has no access rule; give it `option (access)`")
            request = GetMessageClass(method.input_type)()
            for path in access.resources:
                if not isinstance(attrgetter(path)(request), str):
                    raise ValueError(f"{method.full_name}: {path} must be a string field that names a resource")
            rules[f"{name}/{method.name}"] = Rule(Role(access.role), tuple(access.resources))
    return rules


class Authenticator(Protocol):
    """Authenticates callers; implemented by `rowmint.security.authenticator.Authenticator`."""

    async def identify(self, authorization: Sequence[str], certificate_names: Collection[str]) -> Identity:
        """Return the identity of the caller.

        Args:
            authorization: Values of the `authorization` header.
            certificate_names: Names in the client's verified certificate; empty if it has none.

        Raises:
            UnauthenticatedError: The credentials are missing or invalid.
        """
        ...


class Auditor(Protocol):
    """Records decisions; implemented by `rowmint.security.audit.AuditLog`."""

    async def record(self, entry: AuditEntry) -> None:
        """Record an entry; return once it is durable.

        Raises:
            UnavailableError: It cannot be recorded.
        """
        ...


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Authenticates and authorizes each call before its handler runs.

    It must be inside the interceptor that turns domain errors into statuses.

    Args:
        rules: From `access_rules`, for every service that is neither open nor shared.
        authenticator: Authenticates callers; None grants every caller every role.
        audit: Records every decision; None for no audit log.
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
        # A method without a rule raises here, and is not served.
        rule = None if service in SHARED_SERVICES else self._rules[method]
        authorize = partial(self._authorize, method, rule)
        behaviors = partial(_authorized_stream, authorize), partial(_authorized_unary, authorize)
        return wrap_handler(handler, *behaviors, handler.request_deserializer, handler.response_serializer)

    async def _authorize(self, method: str, rule: Rule | None, request: Any, context: Any) -> Any:
        """Return the request of an authorized call; messages of a request stream are authorized as they are read."""
        call = _CallAuthorizer(method, self._audit)
        await call.authenticate(self._authenticator, context)
        if rule is None:
            await call.record("", ALLOWED)
        elif isinstance(request, AsyncIterator):
            return _AuthorizedMessages(request, partial(call.authorize, rule))
        else:
            await call.authorize(rule, request)
        return request


class _CallAuthorizer:
    """Authenticates and authorizes one call, and records the decisions."""

    def __init__(self, method: str, audit: Auditor | None) -> None:
        self._method = method
        self._audit = audit
        self._caller = ANONYMOUS
        self._allowed: tuple[str, ...] = ()

    async def authenticate(self, authenticator: Authenticator | None, context: Any) -> None:
        """Identify the caller.

        Raises:
            UnauthenticatedError: The credentials are missing or invalid.
        """
        if authenticator is None:
            return
        headers = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
        try:
            self._caller = await authenticator.identify(headers, certificate_names(context.auth_context()))
        except UnauthenticatedError as error:
            self._caller = _UNAUTHENTICATED
            await self.record("", UNAUTHENTICATED, error.reason)
            raise
        record_caller(self._caller.name)
        set_caller(self._caller)

    async def authorize(self, rule: Rule, message: Any) -> None:
        """Authorize a request message; later messages of a stream name the same resources as the first, or none.

        Raises:
            PermissionDeniedError: The caller lacks the role.
            InvalidFieldError: The message does not name a resource.
            UnavailableError: The decision cannot be recorded.
        """
        named = tuple(attrgetter(path)(message) for path in rule.resources)
        if self._allowed and (named == self._allowed or not any(named)):
            return
        try:
            for path, text in zip(rule.resources, named, strict=True):
                if text or path == rule.resources[0]:
                    self._check(rule.role, project_of(text, path))
        except RowmintError as error:
            await self.record(named[0], DENIED, error.reason)
            raise
        await self.record(named[0], ALLOWED)
        self._allowed = named

    def _check(self, role: Role, project: ProjectName) -> None:
        if not self._caller.has_role(role, project.project):
            raise PermissionDeniedError(
                f"{self._caller.name} may not call {self._method.rpartition('/')[2]} in {project}: it requires the role"
                f" {role.name.lower()} there; ask the operator of the service to grant it",
                metadata={"role": role.name.lower(), "project": str(project)},
            )

    async def record(self, resource: str, decision: str, reason: str = "") -> None:
        """Record a decision in the audit log, if there is one.

        Raises:
            UnavailableError: It cannot be recorded.
        """
        if self._audit is not None:
            await self._audit.record(
                AuditEntry(self._caller.name, self._method, resource, decision, reason, current_request_id())
            )


class _AuthorizedMessages:
    """The messages of a request stream, each authorized before it is returned."""

    def __init__(self, messages: AsyncIterator[Any], authorize: Callable[[Any], Awaitable[None]]) -> None:
        self._messages = messages
        self._authorize = authorize

    def __aiter__(self) -> "_AuthorizedMessages":
        return self

    async def __anext__(self) -> Any:
        message = await anext(self._messages)
        await self._authorize(message)
        return message


def _authorized_unary(
    authorize: Callable[[Any, Any], Awaitable[Any]], inner: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behavior(request: Any, context: Any) -> Any:
        return await inner(await authorize(request, context), context)

    return behavior


def _authorized_stream(
    authorize: Callable[[Any, Any], Awaitable[Any]], inner: Callable[[Any, Any], AsyncGenerator[Any, None]]
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def behavior(request: Any, context: Any) -> AsyncIterator[Any]:
        async with aclosing(inner(await authorize(request, context), context)) as responses:
            async for response in responses:
                yield response

    return behavior


def certificate_names(auth_context: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Return the names in a client's verified certificate: its alternative names, then its common name.

    Args:
        auth_context: gRPC's authentication properties of the connection.
    """
    found = [*auth_context.get("x509_subject_alternative_name", ()), *auth_context.get("x509_common_name", ())]
    return [name.decode("utf-8", "replace") for name in found]
