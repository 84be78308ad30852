"""RFC 5321 and its extensions, octet by octet, and what clients do wrong."""
import socket

import pytest

from conftest import HOSTS
from daemon import fresh_source
from wire import Closed, Wire


@pytest.fixture
def wire(main):
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        yield w


def test_greeting_and_ehlo(main):
    with main.connect(source=fresh_source()) as w:
        assert w.greeting.lines[0].startswith("mail.corp.test ESMTP")
        reply = w.cmd("EHLO client.test", 250)
        assert reply.lines[0].startswith("mail.corp.test")
        words = {line.split(" ")[0] for line in reply.lines[1:]}
        assert {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES", "DSN", "STARTTLS", "AUTH",
                "HELP"} <= words
        assert "BINARYMIME" not in words
        assert f"SIZE {4 << 20}" in reply.lines


def test_helo_offers_nothing(main):
    with main.connect(source=fresh_source()) as w:
        assert len(w.cmd("HELO client.test", 250).lines) == 1
        assert w.message("a@b.test", "alice@corp.test", b"Subject: by-helo\r\n\r\nx\r\n").code == 250
        # RFC 5321 section 4.1.1.11: parameters come with extensions, and HELO knows of none.
        for params in ("SIZE=100", "BODY=8BITMIME", "SMTPUTF8", "RET=HDRS"):
            w.cmd(f"MAIL FROM:<a@b.test> {params}", 555, "5.5.4")
        w.cmd("MAIL FROM:<a@b.test> =", 501)
        w.cmd("MAIL FROM:<a@b.test>", 250)
        w.cmd("RCPT TO:<alice@corp.test> NOTIFY=NEVER", 555, "5.5.4")
        w.cmd("RCPT TO:<alice@corp.test>", 250)
        w.ehlo()
        w.cmd("MAIL FROM:<a@b.test> SIZE=100", 250)
    assert b"with SMTP id" in main.delivered("alice", b"by-helo").replace(b"\r\n\t", b" ").replace(b"\r\n ", b" ")


@pytest.mark.parametrize("line, code", [
    ("ehlo client.test", 250), ("EhLo [127.0.0.1]", 250), ("EHLO [IPv6:::1]", 250), ("EHLO", 501), ("HELO", 501),
    ("NOOP", 250), ("NOOP with words", 250), ("noop", 250), ("HELP", 214), ("VRFY alice", 252), ("VRFY", 501), ("RSET", 250),
    ("RSET now", 501), ("EXPN list", 502), ("TURN", 502), ("ETRN x", 502), ("WHATEVER", 500), ("", 500), ("QUIT now", 501),
    ("DATA", 503), ("RCPT TO:<alice@corp.test>", 503), ("BDAT 0 LAST", 503), ("XCLIENT ADDR=1.2.3.4", None),
    ("MAIL", 501), ("MAIL FROM:", 501), ("MAIL FROM:a@b.test", None), ("MAIL FROM:<a@b.test", 501), ("MAIL TO:<a@b>", 501),
    ("MAIL FROM:<a@b.test> FOO=bar", 555), ("MAIL FROM:<a@b.test> SIZE=abc", 501), ("MAIL FROM:<a@b.test> SIZE=999999999999", 552),
    ("MAIL FROM:<a@b.test> SIZE=99999999999999999999999", None), ("MAIL FROM:<a@b.test> BODY=BINARYMIME", None),
    ("MAIL FROM:<a@b.test> BODY=8BITMIME SIZE=100", 250), ("MAIL FROM:<>", 250), ("mail from:<a@b.test>", 250),
    ("MAIL FROM:<a@b.test> RET=HDRS ENVID=x+2By", 250), ("MAIL FROM:<a@b.test> RET=SOME", 501),
    ("MAIL FROM:<a@b.test> ENVID=bad+", 501), ("MAIL FROM:<a@b.test> SMTPUTF8", 250), ("MAIL FROM:<jörg@b.test>", 553),
    ("MAIL FROM:<jörg@b.test> SMTPUTF8", 250), ('MAIL FROM:<"quoted \\" x"@b.test>', 250), ("MAIL FROM:<a@[127.0.0.1]>", 250),
    ("MAIL FROM:<a b@c.test>", 501), ("MAIL FROM:<a@b@c.test>", 501), ("MAIL FROM:<@hop.test:a@b.test>", 250),
    ("MAIL FROM:<a@b.test> SIZE=1 SIZE=2", 501), ("MAIL FROM:<" + "a" * 300 + "@b.test>", 501),
    ("MAIL FROM:<a@b.test> AUTH=<>", None),
], ids=lambda v: str(v)[:36] or "empty")
def test_command(wire, line, code):
    reply = wire.cmd(line)
    if code:
        assert reply.code == code, reply
    else:
        assert reply.code // 100 in (2, 4, 5), reply
    if reply.code >= 400 and not line.upper().startswith(("EHLO", "HELO")):  # RFC 2034 section 4
        assert reply.enhanced, reply
    wire.cmd("NOOP", 250)


@pytest.mark.parametrize("line, code", [
    ("RCPT TO:<alice@corp.test> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;alice+40corp.test", 250),
    ("RCPT TO:<alice@corp.test> NOTIFY=NEVER", 250), ("RCPT TO:<alice@corp.test> NOTIFY=NEVER,SUCCESS", 501),
    ("RCPT TO:<alice@corp.test> NOTIFY=SOMETIMES", 501), ("RCPT TO:<alice@corp.test> ORCPT=nonsense", 501),
    ("RCPT TO:<alice@corp.test> ORCPT=rfc822;bad+zz", 501), ("RCPT TO:<alice@corp.test> FOO=1", 555),
    ("RCPT TO:<>", None), ("RCPT TO:alice@corp.test", None), ("RCPT TO:<alice@corp.test", 501), ("RCPT FROM:<x@y>", 501),
    ("RCPT TO:<@hop.test:alice@corp.test>", 250), ("rcpt to:<alice@corp.test>", 250), ("RCPT TO:<alice@corp.test.>", None),
    ("RCPT TO:<jörg@corp.test>", 553), ("RCPT TO:<alice@" + "x" * 300 + ".test>", 501), ("MAIL FROM:<c@d.test>", 503),
    ("DATA", None), ("EHLO again", 250), ("STARTTLS", 503),
], ids=lambda v: str(v)[:48])
def test_in_a_transaction(wire, line, code):
    wire.cmd("MAIL FROM:<a@b.test>", 250)
    reply = wire.cmd(line)
    if code:
        assert reply.code == code, reply
    else:
        assert reply.code // 100 in (2, 4, 5) and reply.code != 354, reply
    wire.cmd("NOOP", 250)


def test_ehlo_and_rset_end_a_transaction(wire):
    wire.envelope("a@b.test", "alice@corp.test")
    wire.ehlo()
    wire.cmd("DATA", 503)
    wire.envelope("a@b.test", "alice@corp.test")
    wire.cmd("RSET", 250)
    wire.cmd("DATA", 503)


# size

def test_size_is_enforced_at_the_end(wire):
    wire.envelope("a@b.test", "alice@corp.test")
    wire.cmd("DATA", 354)
    line = b"x" * 998 + b"\r\n"
    wire.send(b"Subject: too-big\r\n\r\n" + line * 4400 + b".\r\n")
    reply = wire.reply()
    assert (reply.code, reply.enhanced) == (552, "5.3.4"), reply
    wire.cmd("NOOP", 250)


def test_size_is_enforced_in_bdat(wire):
    wire.envelope("a@b.test", "alice@corp.test")
    size = 5 << 20
    wire.send(b"BDAT %d LAST\r\n" % size + b"x" * size)
    assert wire.reply().code == 552
    wire.cmd("NOOP", 250)


def test_large_message_arrives_whole(main, wire):
    body = b"".join(b"%08d " % i + b"y" * 60 + b"\r\n" for i in range(50_000))  # 3.3 MiB
    assert wire.message("a@b.test", "bob@corp.test", b"Subject: large-one\r\n\r\n" + body).code == 250
    assert main.delivered("bob", b"large-one").endswith(b"\r\n\r\n" + body)


# lines

def test_overlong_command(wire):
    wire.cmd("NOOP " + "x" * 400, 250)
    wire.cmd("NOOP " + "x" * 5000, 500)
    wire.cmd("NOOP", 250)


def test_endless_command(main):
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        try:
            for _ in range(400):
                w.send(b"x" * 65536)
        except (ConnectionError, BrokenPipeError):
            pass
        try:
            assert w.reply().code in (421, 500)
        except (Closed, ConnectionError):
            pass
    with main.connect() as w:
        w.ehlo()


def test_long_text_lines_are_kept(main, wire):
    assert wire.message("a@b.test", "bob@corp.test", b"Subject: long-line\r\n\r\n" + b"z" * 100_000 + b"\r\n").code == 250
    assert b"z" * 100_000 + b"\r\n" in main.delivered("bob", b"long-line")


def test_line_without_end_in_data(wire):
    wire.envelope("a@b.test", "alice@corp.test")
    wire.cmd("DATA", 354)
    wire.send(b"Subject: x\r\n\r\n" + b"z" * (3 << 20) + b"\r\n.\r\n")
    assert wire.reply().code in (500, 554)
    wire.cmd("NOOP", 250)


@pytest.mark.parametrize("content, good", [
    (bytes(range(128, 256)) * 8, True), (b"\0", False), (b"a\0b", False), (b"\x01\x02\x1b\x7f", True),
    ("grüße".encode(), True)], ids=["8bit", "nul", "nul-within", "control", "utf8"])
def test_binary(main, wire, content, good):
    wire.cmd("MAIL FROM:<a@b.test> BODY=8BITMIME", 250)
    wire.cmd("RCPT TO:<bob@corp.test>", 250)
    wire.cmd("DATA", 354)
    wire.send(b"Subject: binary-" + content[:1].hex().encode() + b"\r\n\r\n" + content + b"\r\n.\r\n")
    reply = wire.reply()
    assert reply.code == (250 if good else 554), reply
    if good:
        assert content in main.delivered("bob", b"binary-" + content[:1].hex().encode() + b"\r\n")


# pipelining, chunks

def test_pipelined_group(main):
    with main.connect(source=fresh_source(), greeting=220) as w:
        w.send(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<nobody@corp.test>\r\nRCPT TO:<alice@corp.test>\r\nDATA\r\n")
        assert [w.reply().code for _ in range(5)] == [250, 250, 550, 250, 354]
        w.send(b"Subject: pipelined\r\n\r\nx\r\n.\r\nRSET\r\nQUIT\r\n")
        assert [w.reply().code for _ in range(3)] == [250, 250, 221]
        assert w.closed()


def test_pipelined_with_all_recipients_refused(wire):
    wire.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<nobody@corp.test>\r\nDATA\r\nNOOP\r\n")
    codes = [wire.reply().code for _ in range(4)]
    assert codes[:2] == [250, 550] and codes[2] in (503, 554) and codes[3] == 250, codes


def test_a_thousand_commands_in_one_packet(wire):
    wire.send(b"NOOP\r\n" * 1000)
    for _ in range(1000):
        assert wire.reply().code == 250


def test_client_that_does_not_read(main):
    """Replies pile up: the server stops reading, stays small, and serves others."""
    with main.connect(source=fresh_source()) as w:
        w.sock.settimeout(2)
        w.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            for _ in range(200):
                w.send(b"HELP\r\n" * 5000)
        except (socket.timeout, ConnectionError):
            pass
        with main.connect(source=fresh_source()) as other:
            other.ehlo()


def test_chunks(main, wire):
    wire.envelope("a@b.test", "bob@corp.test")
    for chunk in (b"Subject: chunks\r\n", b"", b"\r\nfirst\r\n", b"second\r\n"):
        wire.send(b"BDAT %d\r\n" % len(chunk) + chunk)
        assert wire.reply().code == 250
    wire.cmd("BDAT 0 LAST", 250)
    assert main.delivered("bob", b"Subject: chunks").endswith(b"\r\n\r\nfirst\r\nsecond\r\n")


@pytest.mark.parametrize("line", ["BDAT", "BDAT x", "BDAT -1", "BDAT 99999999999999999999999 LAST", "BDAT 1 FIRST", "BDAT 0x10"])
def test_bad_bdat(main, line):
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        w.envelope("a@b.test", "alice@corp.test")
        w.send(line.encode() + b"\r\n")
        assert w.reply().code in (500, 501, 503, 552, 554, 421)


def test_bdat_after_data_rules(wire):
    wire.envelope("a@b.test", "alice@corp.test")
    wire.send(b"BDAT 3\r\nabc")
    assert wire.reply().code == 250
    wire.cmd("DATA", 503)
    wire.cmd("RCPT TO:<bob@corp.test>", 503)
    wire.cmd("RSET", 250)
    wire.cmd("BDAT 0 LAST", 503)


def test_refused_bdat_swallows_its_octets(wire):
    """The octets of a chunk that nobody wants are never read as commands."""
    evil = b"RSET\r\nNOOP\r\nQUIT\r\n"
    wire.send(b"BDAT %d LAST\r\n" % len(evil) + evil + b"NOOP\r\n")
    assert wire.reply().code == 503
    assert wire.reply().code == 250
    wire.cmd("NOOP", 250)


# other protocols and rude ends

@pytest.mark.parametrize("octets", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nEHLO x\r\nMAIL FROM:<a@b>\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 400, b"\0" * 4096, b"\xff" * 4096],
    ids=["get", "post", "ssh", "tls", "zeros", "ones"])
def test_other_protocols(main, octets):
    with main.connect(source=fresh_source()) as w:
        w.send(octets)
        w.half_close()
        w.sock.settimeout(20)
        got = b""
        try:
            while part := w.sock.recv(65536):
                got += part
        except ConnectionError:
            pass
        assert b"250" not in got.split(b"\r\n")[0], got
    if octets[:3] in (b"GET", b"POS"):
        with main.connect(source=fresh_source()) as w:
            w.send(octets)
            first = w.reply()
            assert first.code in (421, 500, 554), first
            assert w.closed(), "a browser is not let go on"


def test_half_close_after_quit_and_before(main):
    with main.connect(source=fresh_source()) as w:
        w.send(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@corp.test>\r\nDATA\r\n")
        assert [w.reply().code for _ in range(4)] == [250, 250, 250, 354]
        w.send(b"Subject: half-closed\r\n\r\nx\r\n.\r\n")
        w.half_close()
        reply = w.reply()  # what was sent whole is answered, although the client says no more
        assert reply.code == 250, reply
        main.delivered("alice", b"half-closed")
        assert w.closed() or w.reply().code == 221


def test_gone_in_mid_data(main):
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        w.envelope("a@b.test", "alice@corp.test")
        w.cmd("DATA", 354)
        w.send(b"Subject: cut-off-message\r\n\r\nx\r\n")
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        assert w.message("a@b.test", "alice@corp.test", b"Subject: after-the-cut\r\n\r\nx\r\n").code == 250
    main.delivered("alice", b"after-the-cut")
    assert not any(b"cut-off-message" in m for m in main.maildir("alice"))


def test_talks_before_the_greeting(main):
    """Octets that come with the connection are answered after the greeting, or refused: never mixed up."""
    sock = socket.create_connection((main.address, 2525), 20, (fresh_source(), 0))
    sock.sendall(b"EHLO early.test\r\nQUIT\r\n")
    w = Wire.__new__(Wire)
    w.sock, w.pending = sock, b""
    first = w.reply()
    assert first.code in (220, 554, 421)
    if first.code == 220:
        assert [w.reply().code, w.reply().code] == [250, 221]
    sock.close()


def test_slow_client_octet_by_octet(main):
    with main.connect(source=fresh_source()) as w:
        w.send_split(b"EHLO slow.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@corp.test>\r\nDATA\r\n")
        assert [w.reply().code for _ in range(4)] == [250, 250, 250, 354]
        w.send_split(b"Subject: octets\r\n\r\nx\r\n.\r\n")
        assert w.reply().code == 250


def test_ipv4_mapped_rules_hold_for_all_ports(main):
    with main.connect(2526, source=HOSTS.deny) as w:
        assert w.ehlo(), "rules belong to a virtual server: partner.corp.test has none for this host"
