"""Authentication and authorization: every call is checked against its method's access rule before it is handled.

The rules are method options in the protos (`rowmint.v1.access`). The answer to an unauthorized caller does not depend
on whether the named resource exists.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any, Protocol

import grpc
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass

from rowmint.errors import PermissionDeniedError, RowmintError, UnauthenticatedError, UnavailableError
from rowmint.names import ProjectName, project_of
from rowmint.observability.calls import current_request_id, record_caller, wrap_handler
from rowmint.rpc.caller import set_caller
from rowmint.rpc.reauthorization import CallGuard
from rowmint.security.decisions import ALLOWED, DENIED, UNAUTHENTICATED, AuditEntry
from rowmint.security.identity import ANONYMOUS, Identity, Role
from rowmint.security.peer_certificate import PeerCertificate
from rowmint.v1 import access_pb2

# They describe the process, not its data: proxies and balancing channels call them without credentials.
OPEN_SERVICES = ("grpc.health.v1.Health", "xds.service.orca.v3.OpenRcaService")
# Served to every authenticated caller: the protos do not belong to a project.
SHARED_SERVICES = ("grpc.reflection.v1alpha.ServerReflection",)

_UNAUTHENTICATED = Identity("unauthenticated", {})
_RETRY_SECONDS = 1.0


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

    async def identify(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Identity:
        """Return the identity of the caller.

        Args:
            authorization: Values of the `authorization` header.
            certificate: The client's certificate, verified when it connected; None if it has none.

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
    """Authenticates and authorizes each call before its handler runs, and streams again while they run.

    It must be inside the interceptor that turns domain errors into statuses.

    Args:
        rules: From `access_rules`, for every service that is neither open nor shared.
        authenticator: Authenticates callers; None grants every caller every role.
        audit: Records every decision; None for no audit log.
        pause: Returns when a running call is to be checked again.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        authenticator: Authenticator | None,
        audit: Auditor | None,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._rules = rules
        self._authenticator = authenticator
        self._audit = audit
        self._pause = pause

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method).removeprefix("/")
        service = method.rpartition("/")[0]
        if handler is None or service in OPEN_SERVICES:
            return handler
        # A method without a rule raises here, and is not served.
        rule = None if service in SHARED_SERVICES else self._rules[method]
        open_call = partial(_AuthorizedCall, method, rule, self._authenticator, self._audit)
        streams = handler.request_streaming or handler.response_streaming
        unary = partial(_guarded_unary, open_call, self._pause) if streams else partial(_authorized_unary, open_call)
        behaviors = partial(_guarded_stream, open_call, self._pause), unary
        return wrap_handler(handler, *behaviors, handler.request_deserializer, handler.response_serializer)


class _AuthorizedCall:
    """Authenticates and authorizes one call, and records the decisions.

    Args:
        method: ``package.Service/Method``.
        rule: Its rule; None where every authenticated caller may call it.
        authenticator: Authenticates callers; None grants every caller every role.
        audit: Records the decisions; None for no audit log.
        context: The call's `grpc.aio.ServicerContext`.
    """

    def __init__(
        self,
        method: str,
        rule: Rule | None,
        authenticator: Authenticator | None,
        audit: Auditor | None,
        context: Any,
    ) -> None:
        self._method = method
        self._rule = rule
        self._authenticator = authenticator
        self._audit = audit
        self._context = context
        self._caller = ANONYMOUS
        self._allowed: tuple[str, ...] = ()

    async def admit(self, request: Any) -> Any:
        """Return the request of an authorized call; messages of a request stream are authorized as they are read.

        A caller who has the method's role in no project gets none read.

        Raises:
            UnauthenticatedError: The credentials are missing or invalid.
            PermissionDeniedError: The caller lacks the role.
            InvalidFieldError: The request does not name a resource.
            UnavailableError: The decision cannot be recorded.
        """
        await self._authenticate()
        if self._rule is None:
            await self._record("", ALLOWED)
        elif isinstance(request, AsyncIterator):
            await self._require_role_somewhere(self._rule.role)
            return _AuthorizedMessages(request, partial(self._authorize, self._rule))
        else:
            await self._authorize(self._rule, request)
        return request

    async def _authenticate(self) -> None:
        if self._authenticator is None:
            return
        try:
            self._caller = await self._identify(self._authenticator)
        except UnauthenticatedError as error:
            self._caller = _UNAUTHENTICATED
            await self._record("", UNAUTHENTICATED, error.reason)
            raise
        record_caller(self._caller.name)
        set_caller(self._caller)

    async def _identify(self, authenticator: Authenticator) -> Identity:
        headers = [value for name, value in self._context.invocation_metadata() or () if name == "authorization"]
        return await authenticator.identify(headers, peer_certificate(self._context.auth_context()))

    async def _require_role_somewhere(self, role: Role) -> None:
        """Refuse a caller whom no message could authorize: a stream that sends none takes a place all the same.

        Raises:
            PermissionDeniedError: The caller has the role in no project.
            UnavailableError: The decision cannot be recorded.
        """
        if not any(held >= role for held in self._caller.grants.values()):
            error = PermissionDeniedError(
                f"{self._caller.name} may not call {self._method.rpartition('/')[2]} in any project: it requires the"
                f" role {role.name.lower()}; ask the operator of the service to grant it",
                metadata={"role": role.name.lower()},
            )
            await self._record("", DENIED, error.reason)
            raise error

    async def _authorize(self, rule: Rule, message: Any) -> None:
        """Authorize a request message; later messages of a stream name the same resources as the first, or none."""
        named = tuple(attrgetter(path)(message) for path in rule.resources)
        if self._allowed and (named == self._allowed or not any(named)):
            return
        try:
            for path, text in zip(rule.resources, named, strict=True):
                if text or path == rule.resources[0]:
                    self._check_role(self._caller, rule.role, project_of(text, path))
        except RowmintError as error:
            await self._record(named[0], DENIED, error.reason)
            raise
        await self._record(named[0], ALLOWED)
        self._allowed = named

    async def reauthorize(self) -> None:
        """Check again that the caller may make the call, which is running; only a refusal is recorded.

        Raises:
            UnauthenticatedError: The credentials are no longer valid, or belong to another caller; the call may be
                resumed with new ones.
            PermissionDeniedError: The caller no longer has the role.
            UnavailableError: The caller has fewer roles than when the call began, which may have decided what it shows:
                it is to be resumed with those. Or the refusal cannot be recorded.
        """
        if self._authenticator is None:
            return
        resource = self._allowed[0] if self._allowed else ""
        try:
            caller = await self._identify_again(self._authenticator)
        except UnauthenticatedError as error:
            error.retry_after = _RETRY_SECONDS
            await self._record(resource, UNAUTHENTICATED, error.reason)
            raise
        try:
            self._check_roles(caller)
        except PermissionDeniedError as error:
            await self._record(resource, DENIED, error.reason)
            raise

    async def _identify_again(self, authenticator: Authenticator) -> Identity:
        caller = await self._identify(authenticator)
        if caller.name != self._caller.name:
            raise UnauthenticatedError("the credentials of the running call now belong to another caller")
        return caller

    def _check_roles(self, caller: Identity) -> None:
        """Check the roles that the running call was authorized by, as they are now."""
        if self._rule is None:
            return
        for path, text in zip(self._rule.resources, self._allowed, strict=False):
            if not text:
                continue
            project = project_of(text, path)
            self._check_role(caller, self._rule.role, project)
            before = [role for role in Role if self._caller.has_role(role, project.project)]
            if not all(caller.has_role(role, project.project) for role in before):
                raise UnavailableError(
                    f"{caller.name} has fewer roles in {project} than when the call began; resume it",
                    retry_after=_RETRY_SECONDS,
                )

    def _check_role(self, caller: Identity, role: Role, project: ProjectName) -> None:
        if not caller.has_role(role, project.project):
            raise PermissionDeniedError(
                f"{caller.name} may not call {self._method.rpartition('/')[2]} in {project}: it requires the role"
                f" {role.name.lower()} there; ask the operator of the service to grant it",
                metadata={"role": role.name.lower(), "project": str(project)},
            )

    async def _record(self, resource: str, decision: str, reason: str = "") -> None:
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
    open_call: Callable[[Any], _AuthorizedCall], inner: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behavior(request: Any, context: Any) -> Any:
        return await inner(await open_call(context).admit(request), context)

    return behavior


def _guarded_unary(
    open_call: Callable[[Any], _AuthorizedCall],
    pause: Callable[[], Awaitable[None]],
    inner: Callable[[Any, Any], Awaitable[Any]],
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behavior(request: Any, context: Any) -> Any:
        call = open_call(context)
        admitted = await call.admit(request)
        with CallGuard(call.reauthorize, pause) as guard, guard.interruptible():
            return await inner(admitted, context)

    return behavior


def _guarded_stream(
    open_call: Callable[[Any], _AuthorizedCall],
    pause: Callable[[], Awaitable[None]],
    inner: Callable[[Any, Any], AsyncGenerator[Any, None]],
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def behavior(request: Any, context: Any) -> AsyncIterator[Any]:
        call = open_call(context)
        admitted = await call.admit(request)
        with CallGuard(call.reauthorize, pause) as guard:
            async with aclosing(inner(admitted, context)) as responses:
                while True:
                    with guard.interruptible():
                        try:
                            response = await anext(responses)
                        except StopAsyncIteration:
                            return
                    yield response

    return behavior


def peer_certificate(auth_context: Mapping[str, Sequence[bytes]]) -> PeerCertificate | None:
    """Return a client's verified certificate; None if it has none.

    Args:
        auth_context: gRPC's authentication properties of the connection.

    Raises:
        UnauthenticatedError: It cannot be parsed.
    """
    pem = next(iter(auth_context.get("x509_pem_cert", ())), None)
    if pem is None:
        return None
    found = [*auth_context.get("x509_subject_alternative_name", ()), *auth_context.get("x509_common_name", ())]
    return PeerCertificate(tuple(name.decode("utf-8", "replace") for name in found), *_validity(pem))


@lru_cache(maxsize=256)
def _validity(pem: bytes) -> tuple[datetime, datetime]:
    """Return start and end of a certificate's validity, UTC. Each connection presents its own at every call."""
    from cryptography import x509  # noqa: PLC0415 - only where there are certificates

    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise UnauthenticatedError("the client certificate cannot be parsed; connect again with another one") from error
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
