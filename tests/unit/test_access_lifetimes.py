"""Credentials that end while a connection or a call lives: certificates, keys, tokens, roles."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import grpc
import pytest

from rowmint.errors import PermissionDeniedError, UnauthenticatedError, UnavailableError
from rowmint.rpc.access import AccessInterceptor, Rule, peer_certificate
from rowmint.security.authenticator import Authenticator
from rowmint.security.certificates import issue_certificate, make_authority
from rowmint.security.identity import Identity, Role
from rowmint.security.peer_certificate import PeerCertificate
from tests.unit.signed_tokens import by_set, jwk, jwks, private, signed
from tests.waiting import PATIENCE

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CERTIFICATE = PeerCertificate(("ada",), NOW - SECOND, NOW + SECOND)
KEY = "rowmint_0123456789ab_" + "A" * 43
METHOD = "rowmint.v1.TrainingService/WatchTrainingJob"
RESOURCE = "projects/mine/things/one"


def trainer(**grants):
    return Identity("key:ci", {"mine": Role.TRAINER, **grants})


class Granted:
    """An access file whose one key and certificate have an identity, or None once it is revoked."""

    def __init__(self, identity):
        self.identity = identity

    def identify_key(self, text, now):
        return self.identity

    def identify_certificate(self, names):
        return self.identity


@pytest.mark.parametrize("authorization", [(), (f"Bearer {KEY}",)])
@pytest.mark.parametrize(
    ("now", "refusal"),
    [
        (NOW - SECOND, None),
        (NOW, None),
        (NOW + SECOND, None),
        (NOW + 2 * SECOND, "the client certificate expired at 2026-01-31T08:00:01Z; connect again with a new one"),
        (
            NOW - 2 * SECOND,
            "the client certificate is not valid before 2026-01-31T07:59:59Z; connect again then, or with another one",
        ),
    ],
)
def test_a_certificate_counts_from_its_start_to_its_end_however_long_its_connection_lives(now, refusal, authorization):
    authenticator = Authenticator(Granted(trainer()), None, lambda: now)
    if refusal is None:
        assert asyncio.run(authenticator.identify(authorization, CERTIFICATE)) == trainer()
        return
    with pytest.raises(UnauthenticatedError) as caught:
        asyncio.run(authenticator.identify(authorization, CERTIFICATE))
    assert caught.value.message == refusal


def test_a_certificate_of_a_connection_is_read_with_its_names_and_times():
    pair = issue_certificate(make_authority("tests", NOW), "ada", NOW, uris=["spiffe://example.org/ada"], days=2)
    connection = {
        "x509_pem_cert": [pair.certificate],
        "x509_subject_alternative_name": [b"spiffe://example.org/ada"],
        "x509_common_name": [b"ada"],
    }
    assert peer_certificate(connection) == PeerCertificate(
        ("spiffe://example.org/ada", "ada"), NOW - timedelta(minutes=5), NOW + timedelta(days=2)
    )
    assert peer_certificate({}) is None
    with pytest.raises(UnauthenticatedError, match="the client certificate cannot be parsed"):
        peer_certificate({**connection, "x509_pem_cert": [b"-----BEGIN CERTIFICATE-----"]})


class Kept:
    """Keeps decisions in memory."""

    def __init__(self):
        self.entries = []
        self._recorded = asyncio.Condition()

    async def record(self, entry):
        async with self._recorded:
            self.entries.append((entry.caller, entry.resource, entry.decision, entry.reason))
            self._recorded.notify_all()

    async def records(self, count):
        """Wait until there are as many."""
        async with self._recorded:
            await self._recorded.wait_for(lambda: len(self.entries) == count)


ALLOWED = ("key:ci", RESOURCE, "allowed", "")
ENDED = ("key:ci", RESOURCE, "unauthenticated", "UNAUTHENTICATED")
WATCH = Rule(Role.TRAINER, ("name",))


class Calls:
    """Calls behind the interceptor, and what happens to their credentials; a check happens when a test says so."""

    def __init__(self, identity=None):
        self.access = Granted(trainer() if identity is None else identity)
        self.now = NOW
        self.certificate = None
        self.bearer = KEY
        self.tokens = None
        self.audit = Kept()
        self.closed = False
        self._due = asyncio.Semaphore(0)
        self._pauses = asyncio.Queue()

    async def pause(self):
        self._pauses.put_nowait(None)
        await self._due.acquire()

    async def check(self):
        """Let one check happen, and return once it has been passed."""
        await self._pauses.get()
        self._due.release()
        await self._pauses.get()
        self._pauses.put_nowait(None)

    def revoke(self):
        """Revoke the key, which the next check finds; it is due now."""
        self.access.identity = None
        self.due()

    def expire(self):
        """Let an hour pass."""
        self.now += timedelta(hours=1)

    def due(self):
        """Let the next check happen."""
        self._due.release()

    def context(self):
        return SimpleNamespace(
            invocation_metadata=lambda: (("authorization", f"Bearer {self.bearer}"),),
            auth_context=lambda: {} if self.certificate is None else {"x509_pem_cert": [self.certificate]},
        )

    async def behavior(self, kind, inner, rule=WATCH):
        """Return the behavior of a method of a kind, such as ``unary_stream``, behind the interceptor."""
        authenticator = Authenticator(self.access, self.tokens, lambda: self.now)
        interceptor = AccessInterceptor({METHOD: rule}, authenticator, self.audit, self.pause)
        handler = getattr(grpc, f"{kind}_rpc_method_handler")(inner)

        async def continuation(_):
            return handler

        return getattr(await interceptor.intercept_service(continuation, SimpleNamespace(method=f"/{METHOD}")), kind)

    async def watch(self):
        """Return the responses of a watch that gives two events and then waits for more, which never come."""
        behavior = await self.behavior("unary_stream", self.events)
        return behavior(message(), self.context())

    async def events(self, *_):
        try:
            yield "first"
            yield "second"
            await asyncio.Event().wait()
        finally:
            self.closed = True


def message(name=RESOURCE):
    return SimpleNamespace(name=name)


async def collect(requests, received):
    async for one in requests:
        received += [one.name]


async def idle_upload(*sent):
    """Yield messages, and then nothing, as a client that says nothing does."""
    for one in sent:
        yield one
    await asyncio.Event().wait()


def within(test, **options):
    async def run():
        async with asyncio.timeout(PATIENCE):
            await test(Calls(**options))

    asyncio.run(run())


async def refusal(awaited, kind):
    """Wait until a call is ended by an error of a kind; return the error."""
    with pytest.raises(kind) as caught:
        await awaited
    return caught.value


def test_a_watch_without_events_ends_when_its_key_is_revoked():
    async def test(calls):
        watch = await calls.watch()
        assert [await anext(watch), await anext(watch)] == ["first", "second"]
        third = asyncio.ensure_future(anext(watch))
        for _ in range(3):
            await calls.check()
        assert not third.done()
        calls.revoke()
        error = await refusal(third, UnauthenticatedError)
        assert "the API key is unknown, revoked or expired" in error.message
        assert error.retry_after == 1.0  # it may be resumed with another key
        assert calls.closed
        assert calls.audit.entries == [ALLOWED, ENDED]

    within(test)


def test_a_stream_ends_before_the_first_response_after_the_check_that_refuses():
    async def test(calls):
        watch = await calls.watch()
        assert await anext(watch) == "first"
        # As while its client does not read: the call waits outside its handler.
        calls.revoke()
        await calls.audit.records(2)
        await refusal(anext(watch), UnauthenticatedError)
        assert calls.closed
        assert calls.audit.entries == [ALLOWED, ENDED]

    within(test)


@pytest.mark.parametrize("sent", [0, 1])
def test_an_upload_whose_client_says_nothing_ends_when_its_key_is_revoked(sent):
    received = []

    async def receive(requests, _):
        try:
            await collect(requests, received)
        finally:
            received.append("closed")

    async def test(calls):
        behavior = await calls.behavior("stream_unary", receive)
        upload = asyncio.ensure_future(behavior(idle_upload(*[message()] * sent), calls.context()))
        await calls.check()
        calls.revoke()
        await refusal(upload, UnauthenticatedError)
        assert received == [RESOURCE] * sent + ["closed"]
        assert calls.audit.entries == ([ALLOWED, ENDED] if sent else [("key:ci", "", *ENDED[2:])])

    within(test)


def test_an_exchange_ends_when_its_key_is_revoked():
    async def test(calls):
        async def echo(requests, _):
            async for one in requests:
                yield one.name

        behavior = await calls.behavior("stream_stream", echo)
        made = behavior(idle_upload(message()), calls.context())
        assert await anext(made) == RESOURCE
        answer = asyncio.ensure_future(anext(made))
        await calls.check()
        calls.revoke()
        await refusal(answer, UnauthenticatedError)
        assert calls.audit.entries == [ALLOWED, ENDED]

    within(test)


def test_a_call_of_every_authenticated_caller_ends_when_its_key_is_revoked():
    async def test(calls):
        behavior = await calls.behavior("unary_stream", calls.events, rule=None)
        made = behavior(message(), calls.context())
        assert [await anext(made), await anext(made)] == ["first", "second"]
        third = asyncio.ensure_future(anext(made))
        calls.revoke()
        await refusal(third, UnauthenticatedError)
        assert calls.audit.entries == [("key:ci", "", "allowed", ""), ("key:ci", "", *ENDED[2:])]

    within(test)


DENIED = ("key:ci", RESOURCE, "denied", "PERMISSION_DENIED")


@pytest.mark.parametrize(
    ("now", "kind", "said", "recorded"),
    [
        (trainer(mine=Role.READER), PermissionDeniedError, "key:ci may not call WatchTrainingJob", [DENIED]),
        (Identity("key:ci", {}), PermissionDeniedError, "it requires the role trainer there", [DENIED]),
        (Identity("key:new", {"*": Role.ADMIN}), UnauthenticatedError, "now belong to another caller", [ENDED]),
        # What a call shows may depend on more than its method's role: as much is decided again when it is resumed.
        (trainer(), UnavailableError, "key:ci has fewer roles in projects/mine than when the call began", []),
    ],
)
def test_a_call_ends_when_its_caller_has_fewer_roles(now, kind, said, recorded):
    async def test(calls):
        watch = await calls.watch()
        assert [await anext(watch), await anext(watch)] == ["first", "second"]
        third = asyncio.ensure_future(anext(watch))
        await calls.check()
        calls.access.identity = now
        calls.due()
        error = await refusal(third, kind)
        assert said in error.message
        assert error.retry_after == (None if kind is PermissionDeniedError else 1.0)
        assert calls.audit.entries == [ALLOWED, *recorded]

    within(test, identity=trainer(mine=Role.ADMIN))


def test_more_roles_and_roles_elsewhere_end_no_call():
    async def test(calls):
        watch = await calls.watch()
        assert await anext(watch) == "first"
        for identity in (trainer(mine=Role.ADMIN), Identity("key:ci", {"*": Role.TRAINER}), trainer(theirs=Role.ADMIN)):
            calls.access.identity = identity
            await calls.check()
        assert await anext(watch) == "second"
        assert calls.audit.entries == [ALLOWED]

    within(test, identity=trainer(theirs=Role.READER))


def test_a_watch_ends_when_the_certificate_of_its_connection_expires():
    async def test(calls):
        calls.certificate = issue_certificate(make_authority("tests", NOW), "ada", NOW, days=1).certificate
        watch = await calls.watch()
        assert [await anext(watch), await anext(watch)] == ["first", "second"]
        third = asyncio.ensure_future(anext(watch))
        await calls.check()
        calls.now += timedelta(days=1, seconds=1)
        calls.due()
        error = await refusal(third, UnauthenticatedError)
        assert error.message.startswith("the client certificate expired at 2026-02-01T08:00:00Z")
        # And a new call on the same connection is refused as well.
        await refusal(anext(await calls.watch()), UnauthenticatedError)

    within(test)


def test_a_watch_ends_when_its_token_expires_and_when_its_issuer_withdraws_the_key(tmp_path):
    async def test(calls):
        calls.tokens = by_set(tmp_path, jwk(private("EdDSA"), kid="old"))
        calls.bearer = signed(private("EdDSA"), "EdDSA", {"kid": "old"}, rowmint={"mine": "trainer"})
        for change, said in (
            (calls.expire, "the token has expired"),
            (withdraw, "cannot be verified with the issuer's"),
        ):
            watch = await calls.watch()
            assert [await anext(watch), await anext(watch)] == ["first", "second"]
            third = asyncio.ensure_future(anext(watch))
            change()
            calls.due()
            assert said in (await refusal(third, UnauthenticatedError)).message
            calls.now = NOW

    def withdraw():
        (tmp_path / "jwks.json").write_bytes(jwks(jwk(private("EdDSA", 1), kid="new")))

    within(test)


def test_a_call_that_is_cancelled_while_it_is_refused_ends_as_cancelled():
    async def test(calls):
        watch = await calls.watch()
        assert [await anext(watch), await anext(watch)] == ["first", "second"]
        third = asyncio.ensure_future(anext(watch))
        await calls.check()
        calls.revoke()
        await calls.audit.records(2)
        third.cancel()
        await refusal(third, asyncio.CancelledError)
        assert calls.closed

    within(test)


def test_a_handler_that_finishes_all_the_same_is_refused():
    async def stubborn(*_):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "answer"

    async def test(calls):
        behavior = await calls.behavior("stream_unary", stubborn)
        call = asyncio.ensure_future(behavior(idle_upload(), calls.context()))
        await calls.check()
        calls.revoke()
        await refusal(call, UnauthenticatedError)

    within(test)


def test_checks_end_with_their_call():
    async def test(calls):
        started = asyncio.all_tasks()
        watch = await calls.watch()
        assert await anext(watch) == "first"
        (checks,) = asyncio.all_tasks() - started
        await watch.aclose()
        await asyncio.wait([checks])
        assert checks.cancelled()

    within(test)
