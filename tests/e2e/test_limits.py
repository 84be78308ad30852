"""Every limit has its reply code, and time runs out where it must. Timeouts are configured short."""
import socket
import time

import pytest

from daemon import Postern, domain, fresh_source, server, until
from wire import Closed, Wire, client_context

TEXT = """max_recipients = 3
max_commands = 30
max_errors = 4
max_sessions_per_address = 3
max_message_size = "64K"
auth_failure_limit = 0
"""


def small_server(pki):
    return server("small.test", listen=["{address}:2525"], submissions=["{address}:2465"], certificate=pki.mail[0],
                  key=pki.mail[1]) + domain("small.test", deliver="discard")


@pytest.fixture(scope="module")
def small(pki):
    with Postern(TEXT + small_server(pki)) as p:
        yield p


@pytest.fixture(scope="module")
def hasty(pki):
    """Two seconds for everything; a whole session may take hours."""
    with Postern('command_timeout = "2s"\ndata_timeout = "2s"\n' + small_server(pki)) as p:
        yield p


@pytest.fixture(scope="module")
def brief(pki):
    """Three seconds for a whole session, as long as one likes for each part of it."""
    with Postern('session_timeout = "3s"\n' + small_server(pki)) as p:
        yield p


def connect(p, **kw):
    w = p.connect(source=fresh_source(), **kw)
    w.ehlo()
    return w


def last_reply(wire):
    """The 421 that ends a session, and the end."""
    reply = wire.reply()
    assert wire.closed()
    return reply


def test_recipients(small):
    with connect(small) as w:
        w.cmd("MAIL FROM:<a@b.test>", 250)
        for i in range(3):
            w.cmd(f"RCPT TO:<u{i}@small.test>", 250)
        w.cmd("RCPT TO:<u4@small.test>", 452, "4.5.3")
        w.cmd("DATA", 354)
        w.send(b"x\r\n.\r\n")
        assert w.reply().code == 250, "those who were taken are served"


def test_commands(small):
    with connect(small) as w:
        codes = []
        try:
            for _ in range(40):
                codes.append(w.cmd("NOOP").code)
        except (Closed, ConnectionError):
            pass
        assert codes[-1] == 421 and 25 <= len(codes) <= 31, codes


def test_errors(small):
    with connect(small) as w:
        codes = []
        try:
            for _ in range(10):
                codes.append(w.cmd("NONSENSE").code)
        except (Closed, ConnectionError):
            pass
        assert codes[-1] == 421 and 4 <= len(codes) <= 6, codes


def test_sessions_per_address(small):
    source = fresh_source()
    held = [small.connect(source=source) for _ in range(3)]
    with small.connect(source=source, greeting=421) as w:
        assert w.greeting.enhanced == "4.7.0" and w.closed()
    with connect(small):
        pass  # another address is not touched
    for w in held:
        w.cmd("QUIT", 221)
        w.close()
    again = until(lambda: _greeting(small, source) == 220, "a session that ended is given back")
    assert again


def _greeting(p, source):
    with Wire((p.address, 2525), source=source, greeting=None) as w:
        return w.reply().code


def test_sessions_in_all(pki):
    text = "max_sessions = 5\n" + server("few.test", listen=["{address}:2525"]) + domain("few.test", deliver="discard")
    with Postern(text) as p:
        held = [p.connect(source=fresh_source()) for _ in range(5)]
        with p.connect(source=fresh_source(), greeting=421) as w:
            assert w.greeting.enhanced == "4.3.2"
        for w in held:
            w.close()
        until(lambda: _greeting(p, fresh_source()) == 220, "sessions come back")


def test_zero_lifts_limits():
    text = "max_sessions = 0\nmax_sessions_per_address = 0\nauth_failure_limit = 0\n" + \
        server("many.test", listen=["{address}:2525"]) + domain("many.test", deliver="discard")
    with Postern(text) as p:
        held = [p.connect() for _ in range(300)]
        held[-1].ehlo()
        for w in held:
            w.close()


def test_size(small):
    with connect(small) as w:
        w.cmd("MAIL FROM:<a@b.test> SIZE=65537", 552, "5.3.4")
        w.cmd("MAIL FROM:<a@b.test> SIZE=65536", 250)


# time

LIMIT_S = 2  # of hasty


def elapsed(wire, begun, code=421):
    """The session ends by itself, and not before its time; `begun` is before what set the clock."""
    reply = last_reply(wire)
    assert reply.code == code and time.monotonic() - begun >= LIMIT_S - 0.1, reply
    return reply


def test_command_timeout(hasty):
    begun = time.monotonic()
    with connect(hasty) as w:
        assert elapsed(w, begun).enhanced == "4.4.2"


def test_no_first_word(hasty):
    begun = time.monotonic()
    with hasty.connect(source=fresh_source()) as w:
        elapsed(w, begun)


def test_half_a_command(hasty):
    begun = time.monotonic()
    with connect(hasty) as w:
        w.send(b"MAIL FROM:<")
        elapsed(w, begun)


def drip(wire, octets, pace_s):
    """Sends octet after octet until the server answers; how long that took and what it said."""
    begun = time.monotonic()
    wire.sock.settimeout(pace_s)
    for i in range(10_000):
        try:
            wire.sock.sendall(octets[i % len(octets):][:1])
            got = wire.sock.recv(4096)
            return time.monotonic() - begun, got
        except socket.timeout:
            continue
        except ConnectionError:
            return time.monotonic() - begun, b""
    raise AssertionError("the server let it go on for ever")


def test_drip_within_a_command(hasty):
    """An octet now and then does not keep a command alive."""
    with connect(hasty) as w:
        took, got = drip(w, b"x", 0.3)
        assert took < 60 and got.startswith(b"421"), (took, got)


def test_data_timeout(hasty):
    with connect(hasty) as w:
        w.envelope("a@b.test", "x@small.test")
        begun = time.monotonic()
        w.cmd("DATA", 354)
        w.send(b"Subject: x\r\n")
        elapsed(w, begun)


def test_auth_timeout(hasty):
    with connect(hasty) as w:
        begun = time.monotonic()
        w.cmd("AUTH SCRAM-SHA-256", 334)
        elapsed(w, begun)


def test_handshake_timeout(hasty):
    with socket.create_connection((hasty.address, 2465), 20) as sock:
        sock.settimeout(60)
        assert sock.recv(1) == b""


def test_handshake_timeout_after_starttls(hasty):
    with connect(hasty) as w:
        w.cmd("STARTTLS", 220)
        w.sock.settimeout(60)
        assert w.sock.recv(100) == b""


def test_session_timeout(brief):
    """Drip-feeding of a message ends with the session's time at the latest."""
    with connect(brief) as w:
        w.envelope("a@b.test", "x@small.test")
        w.cmd("DATA", 354)
        took, got = drip(w, b"x" * 60 + b"\r\n", 0.5)
        assert took < 60 and (got.startswith(b"421") or got == b""), (took, got)


def test_bdat_chunk_never_comes(hasty):
    with connect(hasty) as w:
        w.envelope("a@b.test", "x@small.test")
        begun = time.monotonic()
        w.send(b"BDAT 1000 LAST\r\nabc")
        elapsed(w, begun)


def test_timeouts_hold_under_tls(hasty):
    with hasty.connect(2465, source=fresh_source(), tls=client_context()) as w:
        begun = time.monotonic()
        w.ehlo()
        elapsed(w, begun)
