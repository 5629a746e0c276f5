"""Where the keys that verify bearer tokens come from: files and the URL of an issuer."""

import asyncio
import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from structlog.testing import capture_logs

from rowmint.errors import InvalidFieldError, UnavailableError
from rowmint.security.certificates import issue_certificate, make_authority
from rowmint.security.token_keys import FRESH_SECONDS, MAX_BYTES, PAUSE_SECONDS
from rowmint.security.tokens import TokenVerifier
from tests.manual_clock import ManualClock
from tests.unit.signed_tokens import (
    ADA,
    AUDIENCE,
    INVALID,
    ISSUER,
    NOW,
    forged,
    identify,
    jwk,
    jwks,
    private,
    public_pem,
    refusal,
    signed,
)


def private_pem():
    return private("EdDSA").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (lambda: b"", "must hold one public key"),
        (lambda: b"ssh-ed25519 AAAA", "must hold one public key"),
        (lambda: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "must hold a valid public key"),
        (lambda: public_pem(private("EdDSA")) * 2, "must hold one public key"),
        (private_pem, "holds a private key"),
        (lambda: public_pem(rsa.generate_private_key(65537, 1024)), "RSA of 2048 bits or more, P-256 or Ed25519"),
        (lambda: public_pem(ec.generate_private_key(ec.SECP384R1())), "RSA of 2048 bits or more, P-256 or Ed25519"),
        (lambda: public_pem(ed448.Ed448PrivateKey.generate()), "RSA of 2048 bits or more, P-256 or Ed25519"),
        (lambda: b"{}", "it has no list 'keys'"),
        (lambda: b'{"keys": {}}', "it has no list 'keys'"),
        (lambda: b'{"keys": []}', "has no key that can verify tokens"),
        (lambda: b'{"keys": [', "is not JSON that can be parsed"),
        (lambda: b'{"keys":' + b"[" * 100_000, "is not JSON that can be parsed"),
        (lambda: jwks(*[jwk(private("EdDSA"), kid="a")] * 65), "has 65 keys; at most 64 are allowed"),
        (lambda: jwks({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}), "has no key that can verify tokens"),
        (lambda: jwks(jwk(rsa.generate_private_key(65537, 1024))), "has no key that can verify tokens"),
    ],
)
def test_a_service_does_not_start_on_keys_that_verify_nothing(tmp_path, content, reported):
    path = tmp_path / "keys"
    path.write_bytes(content())
    with pytest.raises(InvalidFieldError) as caught:
        TokenVerifier(str(path), ISSUER, AUDIENCE)
    assert reported in caught.value.message
    assert str(path) in caught.value.message
    assert "c2VjcmV0" not in caught.value.message


def test_a_service_does_not_start_without_its_file_of_keys(tmp_path):
    with pytest.raises(UnavailableError, match="No such file or directory"):
        TokenVerifier(str(tmp_path / "none"), ISSUER, AUDIENCE)


@pytest.mark.parametrize(
    ("url", "reported"),
    [
        ("http://issuer.example/jwks", "keys sent without TLS can be forged; use https://"),
        ("http://10.0.0.1/jwks", "keys sent without TLS can be forged; use https://"),
        ("http://localhost.issuer.example/jwks", "keys sent without TLS can be forged; use https://"),
        ("http://127.0.0.1.issuer.example/jwks", "keys sent without TLS can be forged; use https://"),
        ("ftp://issuer.example/jwks", "must be the path of a file or an https:// URL"),
        ("file:///etc/jwks", "must be the path of a file or an https:// URL"),
        ("https:///jwks", "must be the path of a file or an https:// URL"),
        ("https://ada:secret@issuer.example/jwks", "has a user name or password in its URL"),
        ("http://127.0.0.1@issuer.example/jwks", "has a user name or password in its URL"),
        ("https://issuer.example:99999/jwks", "is not a URL that can be parsed"),
        ("https://[::1/jwks", "is not a URL that can be parsed"),
    ],
)
def test_keys_are_fetched_over_authenticated_urls_only(url, reported):
    with pytest.raises(InvalidFieldError) as caught:
        TokenVerifier(url, ISSUER, AUDIENCE)
    assert reported in caught.value.message
    assert "secret" not in caught.value.message


class KeyServer:
    """An issuer's server of keys."""

    def __init__(self, context=None):
        self.body = b""
        self.status = 200
        self.headers = {}
        self.requested = []
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Semaphore(0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requested.append(self.path)
                outer.waiting.release()
                outer.open.wait(30)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with_body = outer.body
                try:
                    self.wfile.write(with_body)
                except OSError:
                    return  # the client has closed the connection

            def log_message(self, *_):
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.server.handle_error = lambda *_: None
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}/keys?tenant=q"

    def close(self):
        self.open.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextmanager
def serving(context=None):
    server = KeyServer(context)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def issuer():
    with serving() as server:
        server.body = jwks(jwk(private("EdDSA"), kid="a"))
        yield server


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
def fetching(issuer, clock):
    return TokenVerifier(issuer.url, ISSUER, AUDIENCE, clock)


def by(number, kid, **changes):
    return signed(private("EdDSA", number), "EdDSA", {"kid": kid}, **changes)


async def settle(verifier):
    """Wait until no fetch is on its way."""
    if verifier._keys._task is not None:
        await verifier._keys._task


def test_keys_are_fetched_when_first_needed_and_then_kept(issuer, clock, fetching):
    assert issuer.requested == []
    assert [identify(fetching, by(0, "a")) for _ in range(3)] == [ADA] * 3
    clock.now += FRESH_SECONDS - 1
    assert identify(fetching, by(0, "a")) == ADA
    assert issuer.requested == ["/keys?tenant=q"]


def test_a_removed_key_is_refused_after_five_minutes(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.body = jwks(jwk(private("EdDSA", 1), kid="b"))
    clock.now += FRESH_SECONDS
    assert refusal(fetching, by(0, "a")) == INVALID
    assert identify(fetching, by(1, "b")) == ADA
    assert len(issuer.requested) == 2


def test_a_new_key_is_fetched_when_a_token_names_it(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.body = jwks(jwk(private("EdDSA"), kid="a"), jwk(private("EdDSA", 1), kid="b"))
    clock.now += PAUSE_SECONDS
    assert identify(fetching, by(1, "b")) == ADA
    assert len(issuer.requested) == 2


def test_unknown_keys_cause_a_fetch_every_ten_seconds_at_most(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    assert {refusal(fetching, by(1, f"x{number}")) for number in range(20)} == {INVALID}
    assert len(issuer.requested) == 1
    clock.now += PAUSE_SECONDS - 0.1
    assert refusal(fetching, by(1, "x")) == INVALID
    assert len(issuer.requested) == 1
    clock.now += 0.1
    assert {refusal(fetching, by(1, f"x{number}")) for number in range(20)} == {INVALID}
    assert len(issuer.requested) == 2


def test_a_text_that_is_not_a_token_causes_no_fetch(issuer, fetching):
    for token in ("a.b.c", forged({"alg": "none"}), forged({"alg": "HS256"}), "a" * 9000):
        refusal(fetching, token)
    assert issuer.requested == []


def test_many_calls_at_once_wait_for_one_fetch(issuer, fetching):
    issuer.open.clear()

    async def many():
        calls = [asyncio.create_task(fetching.identify(by(0, "a"), NOW)) for _ in range(20)]
        await asyncio.to_thread(issuer.waiting.acquire)
        calls[0].cancel()
        issuer.open.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(many())
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [ADA] * 19
    assert len(issuer.requested) == 1


def test_the_event_loop_is_free_while_keys_are_fetched(issuer, fetching):
    issuer.open.clear()

    async def both():
        call = asyncio.create_task(fetching.identify(by(0, "a"), NOW))
        await asyncio.to_thread(issuer.waiting.acquire)
        # Whatever else there is to do is done, and only then the keys come.
        issuer.open.set()
        return await call

    assert asyncio.run(both()) == ADA


def test_while_the_issuer_is_unavailable_the_last_keys_stay_in_force(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.status = 503

    async def hours():
        found = []
        for _ in range(5):
            clock.now += FRESH_SECONDS
            found += [await fetching.identify(by(0, "a"), NOW) for _ in range(3)]
            await settle(fetching)
        return found

    with capture_logs() as logs:
        assert asyncio.run(hours()) == [ADA] * 15
    assert len(issuer.requested) == 6
    assert [line["log_level"] for line in logs] == ["warning"]
    assert "HTTP status 503" in logs[0]["error"]
    assert "tenant" not in str(logs)
    issuer.status = 200
    issuer.body = jwks(jwk(private("EdDSA", 1), kid="b"))
    clock.now += PAUSE_SECONDS
    assert identify(fetching, by(1, "b")) == ADA
    assert refusal(fetching, by(0, "a")) == INVALID


def test_no_call_with_a_known_key_waits_for_an_unavailable_issuer(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.status = 503
    clock.now += FRESH_SECONDS
    assert identify(fetching, by(0, "a")) == ADA
    clock.now += PAUSE_SECONDS
    while issuer.waiting.acquire(blocking=False):
        pass
    issuer.open.clear()

    async def call():
        found = await fetching.identify(by(0, "a"), NOW)
        # It is answered, and the server still holds the fetch.
        await asyncio.to_thread(issuer.waiting.acquire)
        assert not fetching._keys._task.done()
        issuer.open.set()
        await settle(fetching)
        return found

    assert asyncio.run(call()) == ADA
    assert len(issuer.requested) == 3


def test_without_any_keys_yet_a_call_may_be_tried_again(issuer, clock, fetching):
    issuer.status = 500
    with pytest.raises(UnavailableError, match="cannot be fetched now; retry the call") as caught:
        identify(fetching, by(0, "a"))
    assert caught.value.retry_after == PAUSE_SECONDS
    with pytest.raises(UnavailableError):
        identify(fetching, by(0, "a"))
    assert len(issuer.requested) == 1
    issuer.status = 200
    clock.now += PAUSE_SECONDS
    assert identify(fetching, by(0, "a")) == ADA


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        (b"", "must hold one public key"),
        (b"<html>", "must hold one public key"),
        (b'{"keys": []}', "has no key that can verify tokens"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}', "has no key that can verify tokens"),
        (b'{"keys": "a"}', "it has no list 'keys'"),
        pytest.param(b" " * (MAX_BYTES + 1), "more than 1048576 bytes", id="large"),
    ],
)
def test_a_set_that_cannot_be_used_leaves_the_last_one_in_force(issuer, clock, fetching, body, reported):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.body = body
    clock.now += FRESH_SECONDS
    with capture_logs() as logs:
        assert identify(fetching, by(0, "a")) == ADA
    assert [reported in line["error"] for line in logs] == [True]
    assert "c2VjcmV0" not in str(logs)


def test_a_redirect_is_not_followed(issuer, clock, fetching):
    with serving() as other:
        other.body = jwks(jwk(private("EdDSA", 1), kid="b"))
        issuer.status = 302
        issuer.headers = {"Location": other.url}
        with pytest.raises(UnavailableError):
            identify(fetching, by(1, "b"))
        assert other.requested == []


def tls_context(made, folder):
    """What a server shows `made` with."""
    file = folder / "server.pem"
    file.write_bytes(made.certificate + made.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def drip(server, context, start, end, given_up):
    """Answer one request a byte at a time, and after three seconds with all that is still to say."""
    connection, _ = server.accept()
    connection.settimeout(30)
    with connection if context is None else context.wrap_socket(connection, server_side=True) as answering:
        try:
            answering.recv(4096)
            answering.sendall(start)
            for _ in range(60):
                if given_up.wait(0.05):
                    return
                answering.sendall(b" ")
            answering.sendall(end)
        except OSError:
            return  # the client has closed the connection


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("dripped", ["headers", "body"])
def test_a_server_that_drips_is_given_up(tmp_path, clock, monkeypatch, scheme, dripped):
    context = None
    if scheme == "https":
        now = datetime.now(UTC)
        authority = make_authority("test", now)
        context = tls_context(issue_certificate(authority, "server", now, hosts=["127.0.0.1"]), tmp_path)
        (tmp_path / "ca.pem").write_bytes(authority.certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr("rowmint.security.token_keys.FETCH_SECONDS", 0.5)
    answer = b"HTTP/1.1 200 OK\r\nSlow:\r\n\r\n" + jwks(jwk(private("EdDSA"), kid="a"))
    # A body of no said length that is cut may look whole.
    cut = answer.index(b"\r\n\r\n") if dripped == "headers" else len(answer)
    given_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        verifier = TokenVerifier(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/", ISSUER, AUDIENCE, clock)
        thread = threading.Thread(target=drip, args=(server, context, answer[:cut], answer[cut:], given_up))
        thread.start()
        try:
            with pytest.raises(UnavailableError):
                identify(verifier, by(0, "a"))
        finally:
            given_up.set()
            thread.join()


def test_no_more_is_read_of_a_set_than_it_may_have(clock):
    # A fetch that waits for the rest meets the end of the connection.
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b" " * (MAX_BYTES + 1)
    given_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        verifier = TokenVerifier(f"http://127.0.0.1:{server.getsockname()[1]}/", ISSUER, AUDIENCE, clock)
        thread = threading.Thread(target=drip, args=(server, None, start, b"", given_up))
        thread.start()
        try:
            with capture_logs() as logs, pytest.raises(UnavailableError):
                identify(verifier, by(0, "a"))
        finally:
            given_up.set()
            thread.join()
    assert ["more than 1048576 bytes" in line["error"] for line in logs] == [True]


def test_an_address_without_a_server_is_an_unavailable_issuer(clock):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    verifier = TokenVerifier(f"http://localhost:{port}/keys", ISSUER, AUDIENCE, clock)
    with capture_logs() as logs, pytest.raises(UnavailableError):
        identify(verifier, by(0, "a"))
    assert len(logs) == 1


def test_keys_come_over_tls_from_a_server_that_is_who_it_says(tmp_path, monkeypatch, clock):
    now = datetime.now(UTC)
    authority = make_authority("test", now)
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority.certificate)

    def taken(made):
        with serving(tls_context(made, tmp_path)) as server:
            server.body = jwks(jwk(private("EdDSA"), kid="a"))
            try:
                return identify(TokenVerifier(server.url, ISSUER, AUDIENCE, clock), by(0, "a"))
            except UnavailableError:
                assert server.requested == []
                return None

    own = issue_certificate(authority, "server", now, hosts=["127.0.0.1"])
    assert taken(own) is None
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    assert taken(own) == ADA
    assert taken(issue_certificate(authority, "server", now, hosts=["127.0.0.2"])) is None
    assert taken(issue_certificate(make_authority("test", now), "server", now, hosts=["127.0.0.1"])) is None
