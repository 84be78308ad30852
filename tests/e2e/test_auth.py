"""AUTH: RFC 4954's states and codes, hostile responses, long lines, rights, lock-out."""
import hashlib
import hmac
import json
import os
import socket
import time

import pytest

from conftest import HOSTS, PASSWORD
from daemon import Postern, domain, fresh_source, server
from wire import Wire, b64, client_context


@pytest.fixture
def wire(main):
    """A session under TLS."""
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        w.starttls(client_context(), sni="mail.corp.test")
        w.ehlo()
        yield w


# refusals and their codes

def test_not_again(wire):
    wire.auth_plain("alice", PASSWORD, code=235)
    wire.cmd("AUTH PLAIN", 503)
    wire.cmd("AUTH NONSENSE", 503)


def test_not_in_a_transaction(wire):
    wire.cmd("MAIL FROM:<a@b.test>", 250)
    wire.cmd("AUTH PLAIN", 503)
    wire.cmd("RSET", 250)
    wire.auth_plain("alice", PASSWORD, code=235)


def test_unknown_mechanism(wire):
    wire.cmd("AUTH CRAM-MD5", 504)
    wire.cmd("AUTH GSSAPI " + b64("x"), 504)
    wire.cmd("AUTH X", 504)


def test_known_but_not_allowed_to_this_host(main):
    with main.connect(source=HOSTS.scanner) as w:
        w.ehlo()
        reply = w.cmd("AUTH SCRAM-SHA-256 " + b64("n,,n=alice,r=x"))
        assert reply.code in (534, 504), reply
        reply = w.cmd("AUTH PLAIN")
        assert reply.code in (534, 504), reply


@pytest.mark.parametrize("source, mechanism, code, enhanced", [
    (HOSTS.plain, "PLAIN", 538, "5.7.11"), (HOSTS.plain, "LOGIN", 538, "5.7.11"), (HOSTS.auth_tls, "PLAIN", 530, "5.7.0"),
    (HOSTS.auth_tls, "SCRAM-SHA-256", 530, "5.7.0"), (HOSTS.tls, "LOGIN", 530, "5.7.0")])
def test_without_tls(main, source, mechanism, code, enhanced):
    with main.connect(source=source) as w:
        w.ehlo()
        reply = w.cmd(f"AUTH {mechanism}")
        assert reply.code != 503 and (reply.code, reply.enhanced) == (code, enhanced), reply


def test_before_ehlo(main):
    """Several libraries take 503 for 'already authenticated': even here it must be another code."""
    with main.connect(2465, tls=client_context(), sni="mail.corp.test") as w:
        reply = w.cmd("AUTH PLAIN " + b64("\0alice\0" + PASSWORD))
        assert reply.code in (530, 535, 501), reply
        w.cmd("MAIL FROM:<a@b.test>")
        w.ehlo()
        w.cmd("MAIL FROM:<a@b.test>", 530)


def test_under_helo(main):
    with main.connect(2465, tls=client_context(), sni="mail.corp.test") as w:
        w.cmd("HELO client.test", 250)
        reply = w.cmd("AUTH PLAIN " + b64("\0alice\0wrong"))
        assert reply.code != 503 and reply.code // 100 == 5, reply


@pytest.mark.parametrize("attempt", ["AUTH", "AUTH ", "AUTH PLAIN x y", "AUTH PLAIN *", "AUTH PLAIN =x", "AUTH PLAIN ====",
                                     "AUTH PLAIN YQ", "AUTH PLAIN Y Q==", "AUTH PLAIN YQ==YQ==", "AUTH PLAIN YR=="])
def test_malformed(wire, attempt):
    reply = wire.cmd(attempt)
    assert reply.code in (501, 535), reply
    wire.cmd("NOOP", 250)
    wire.auth_plain("alice", PASSWORD, code=235)


def test_cancel(wire):
    wire.cmd("AUTH PLAIN", 334)
    wire.cmd("*", 501)
    wire.cmd("AUTH LOGIN", 334)
    wire.cmd(b64("alice"), 334)
    wire.cmd("*", 501)
    wire.cmd("AUTH SCRAM-SHA-256 " + b64("n,,n=alice,r=abcdefgh"), 334)
    wire.cmd("*", 501)
    wire.auth_plain("alice", PASSWORD, code=235)


def test_bad_base64_in_a_response(wire):
    for line in ("!!!", "YQ", "QUIT", "="):
        wire.cmd("AUTH LOGIN", 334)
        reply = wire.cmd(line)
        if reply.code == 334:
            reply = wire.cmd(b64("x"))
        assert reply.code in (501, 535), (line, reply)
    wire.cmd("NOOP", 250)


def test_empty_initial_response(wire):
    """'=' is an empty response, not the lack of one: PLAIN then fails at once and asks nothing."""
    assert wire.cmd("AUTH PLAIN =").code in (501, 535)
    assert wire.cmd("AUTH PLAIN", 334).text == ""
    wire.cmd(b64("\0alice\0" + PASSWORD), 235)


# PLAIN

@pytest.mark.parametrize("token, code", [
    ("\0alice\0" + PASSWORD, 235), ("alice\0alice\0" + PASSWORD, 235), ("bob\0alice\0" + PASSWORD, 535),
    ("\0alice\0" + PASSWORD + "\0", 535), ("\0alice\0" + PASSWORD + "\0junk", 535), ("\0alice\0" + PASSWORD + " ", 535),
    ("\0alice\0" + PASSWORD + "\r\n", 535), ("\0alice\0", 535), ("\0\0" + PASSWORD, 535), ("alice\0" + PASSWORD, 535),
    ("\0alice", 535), ("", 535), ("\0nobody\0" + PASSWORD, 535), ("\0alice\0" + "x" * 5000, 535), ("\0alice\0wrong", 535),
    ("\0" + "u" * 5000 + "\0x", 535), ("\0al\x01ice\0" + PASSWORD, 535), ("\0bob\0" + PASSWORD, 235)],
    ids=lambda v: repr(v)[:40])
def test_plain(wire, token, code):
    reply = wire.cmd("AUTH PLAIN " + (b64(token) or "="))
    assert reply.code == code or (code == 535 and reply.code == 501), reply
    if code == 235:
        assert reply.enhanced == "2.7.0"


def test_invalid_utf8(wire):
    assert wire.cmd("AUTH PLAIN " + b64(b"\0alice\0\xff\xfe\x80")).code in (501, 535)
    wire.cmd("NOOP", 250)


def test_unknown_user_and_wrong_password_look_alike(wire):
    one = wire.auth_plain("alice", "wrong")
    two = wire.auth_plain("nobody-at-all", "wrong")
    assert (one.code, one.text) == (two.code, two.text)


# LOGIN

def test_login(wire):
    assert wire.cmd("AUTH LOGIN", 334).text == b64("Username:")
    assert wire.cmd(b64("alice"), 334).text == b64("Password:")
    wire.cmd(b64(PASSWORD), 235)


def test_login_with_initial_response(wire):
    assert wire.cmd("AUTH LOGIN " + b64("alice"), 334).text == b64("Password:")
    wire.cmd(b64("wrong"), 535)
    wire.cmd("auth login " + b64("alice"), 334)
    wire.cmd(b64(PASSWORD), 235)


def test_login_on_the_old_scanner_without_tls(main):
    with main.connect(source=HOSTS.scanner) as w:
        w.ehlo()
        w.cmd("AUTH LOGIN", 334)
        w.cmd(b64("alice"), 334)
        w.cmd(b64(PASSWORD), 235)


# SCRAM

def scram(wire, user, password, mechanism="SCRAM-SHA-256", gs2="n,,", binding=b"", forge=None):
    """The whole exchange by hand; the last reply. Checks the server's proof."""
    nonce = b64(os.urandom(18))
    bare = f"n={user},r={nonce}"
    first = wire.cmd(f"AUTH {mechanism} " + b64(gs2 + bare))
    if first.code != 334:
        return first
    import base64
    server_first = base64.b64decode(first.text).decode()
    fields = dict(part.split("=", 1) for part in server_first.split(","))
    assert fields["r"].startswith(nonce) and len(fields["r"]) > len(nonce)
    assert int(fields["i"]) >= 4096
    final = f"c={b64(gs2.encode() + binding)},r={fields['r']}"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    message = f"{bare},{server_first},{final}".encode()
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature))
    if forge:
        final, proof = forge(final, proof)
    last = wire.cmd(b64(f"{final},p={b64(proof)}"))
    if last.code == 334:
        verifier = base64.b64decode(last.text).decode()
        if verifier.startswith("v="):
            wanted = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
            assert verifier == "v=" + b64(wanted), "the server proves that it knows the verifier"
        last = wire.cmd("")
    return last


def test_scram(wire):
    assert scram(wire, "alice", PASSWORD).code == 235


def test_scram_without_tls(main):
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        assert scram(w, "alice", PASSWORD).code == 235
        w.cmd("MAIL FROM:<alice@corp.test>", 250)
        w.cmd("RCPT TO:<x@out.test>", 250)


@pytest.mark.parametrize("kind", ["password", "user", "nonce", "proof", "gs2", "extra"])
def test_scram_wrong(wire, kind):
    forge = {"nonce": lambda f, p: (f + "x", p), "proof": lambda f, p: (f, bytes(32)),
             "gs2": lambda f, p: ("c=" + b64("y,,") + f[f.index(",r="):], p), "extra": lambda f, p: (f + ",m=x", p)}.get(kind)
    reply = scram(wire, "nobody" if kind == "user" else "alice", "wrong" if kind == "password" else PASSWORD, forge=forge)
    assert reply.code in (535, 501), reply
    wire.cmd("MAIL FROM:<a@b.test>", 250)
    wire.cmd("RCPT TO:<x@out.test>", 550)


def endpoint_binding(wire):
    return hashlib.sha256(wire.sock.getpeercert(binary_form=True)).digest()


@pytest.mark.parametrize("name", ["mail.corp.test", "partner.corp.test"])
def test_scram_plus(main, name):
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        w.starttls(client_context(), sni=name)
        w.ehlo()
        reply = scram(w, "alice", PASSWORD, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", endpoint_binding(w))
        assert reply.code == 235, reply


def test_scram_plus_with_the_wrong_channel(wire):
    reply = scram(wire, "alice", PASSWORD, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", os.urandom(32))
    assert reply.code == 535, reply


def test_scram_downgrade_is_found(wire):
    """A client that could bind, and believes that we cannot, was lied to (RFC 5802 section 6)."""
    assert scram(wire, "alice", PASSWORD, gs2="y,,").code == 535


def test_scram_plus_is_not_for_the_clear(main):
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        reply = w.cmd("AUTH SCRAM-SHA-256-PLUS " + b64("p=tls-server-end-point,,n=alice,r=abcdefgh"))
        assert reply.code in (504, 534, 538), reply


@pytest.mark.parametrize("first", ["", "n", "n,,", "n,,n=alice", "x,,n=alice,r=abc", "n,,r=abc,n=alice", "n,a=,n=alice,r=abc",
                                   "n,,m=x,n=alice,r=abc", "n,,n=al=ice,r=abc", "n,,n=alice,r=", "p=tls-unique,,n=a,r=b",
                                   "n,,n=" + "a" * 9000 + ",r=abc", "n,,n=alice,r=" + "a" * 9000, "\0\0\0", "n,,n=alice,r=a\x01b"],
                         ids=lambda v: repr(v)[:24])
def test_scram_hostile_first(wire, first):
    reply = wire.cmd("AUTH SCRAM-SHA-256 " + (b64(first) or "="))
    if reply.code == 334:
        reply = wire.cmd(b64("c=biws,r=x,p=" + b64("x" * 32)))
    assert reply.code in (500, 501, 535), reply
    wire.cmd("NOOP", 250)


# length

@pytest.mark.parametrize("size, codes", [(12288, (535, 501)), (90_000, (535, 501, 500)), (200_000, (500,))])
def test_long_lines(wire, size, codes):
    """RFC 4954 section 4 wants 12,288 octets; tickets of large organisations need more: auth_line_max = 96K.
    One answer comes to the one line, and the session goes on."""
    token = b64(b"\0alice\0" + b"x" * (size * 3 // 4 - 10))
    assert wire.cmd("AUTH PLAIN " + token).code in codes
    wire.cmd("NOOP", 250)
    wire.cmd("AUTH PLAIN", 334)
    assert wire.cmd(token).code in codes
    wire.cmd("NOOP", 250)


def test_only_auth_may_be_long(wire):
    wire.cmd("NOOP " + "x" * 20_000, 500)
    wire.cmd("NOOP", 250)


def test_memory_for_auth_is_bounded(pki):
    text = 'auth_memory = "1M"\nauth_failure_limit = 0\nsmtpd_processes = 1\n' + server(
        "m.test", listen=["{address}:2525"], certificate=pki.mail[0], key=pki.mail[1]) + domain("m.test", deliver="discard")
    with Postern(text) as p:
        held, codes = [], []
        try:
            for _ in range(24):  # 24 × 90 K are more than 1 M
                w = p.connect()
                w.ehlo()
                held.append(w)
                w.cmd("AUTH SCRAM-SHA-256", 334)
                w.send(b"x" * 90_000)
            for w in held:
                w.send(b"\r\n")
                codes.append(w.reply())
        finally:
            for w in held:
                w.close()
        refused = [r for r in codes if (r.code, r.enhanced) == (454, "4.3.0")]
        assert refused, codes
        assert all(r.code in (500, 501, 535, 454) for r in codes), codes
        with p.connect() as w:  # and what was held is given back
            w.ehlo()
            w.cmd("AUTH SCRAM-SHA-256 " + b64("n,,n=x,r=" + "y" * 30_000))
            w.cmd("NOOP")


# failures

def test_lock_out(pki):
    text = "auth_failure_limit = 4\nauth_cache = 0\n" + server(
        "m.test", listen=["{address}:2525"], certificate=pki.mail[0], key=pki.mail[1]) + domain("m.test", deliver="discard")
    with Postern(text, users={"alice": PASSWORD}) as p:
        bad, good = fresh_source(), fresh_source()

        def session(source):
            w = p.connect(source=source)
            w.ehlo()
            w.starttls(client_context())
            w.ehlo()
            return w

        for _ in range(4):
            with session(bad) as w:
                begun = time.monotonic()
                assert w.auth_plain("alice", "wrong").code == 535
                took = time.monotonic() - begun
        assert took >= 0.45, "repeated failures slow down"
        p.log.wait(r"(?i)lock.?(ed)?.?out")
        with session(bad) as w:
            reply = w.auth_plain("alice", PASSWORD)
            assert reply.code in (454, 535, 421), f"locked out, although the password is right: {reply}"
        with session(good) as w:
            w.auth_plain("alice", PASSWORD, code=235)
        p.log.wait(r"\bauth\.accept\b")
        accepted = p.log.find(r"\bauth\.accept\b")
        rejected = p.log.find(r"\bauth\.reject\b")
        assert len(accepted) == 1 and len(rejected) == 5, accepted + rejected
        for line in accepted + rejected:
            for field in ("server=", "client=", "port=", "helo=", "user=", "mech=", "tls=", "result=", "cause=", "reply=",
                          "session="):
                assert field in line, (field, line)
            assert "wrong" not in line.split("cause=")[0] and PASSWORD not in line


def test_auth_process_dies(main):
    """454 4.7.0 while it is away; the session and the service go on."""
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        w.starttls(client_context(), sni="mail.corp.test")
        w.ehlo()
        main.kill_role("auth")
        end = time.monotonic() + 60
        while (reply := w.auth_plain("alice", PASSWORD)).code != 235:
            assert (reply.code, reply.enhanced) == (454, "4.7.0"), reply
            assert time.monotonic() < end, "auth did not come back"


def test_user_verbs(main):
    p = main
    p.cli("user", "add", "carol", input="one\n")
    assert "carol" in p.cli("user", "list")
    assert p.run("user", "add", "carol", input="two\n").returncode != 0, "no second user of that name"

    def try_password(password):
        with p.connect(2465, tls=client_context(), sni="mail.corp.test", source=fresh_source()) as w:
            w.ehlo()
            return w.auth_plain("carol", password).code

    assert try_password("one") == 235
    assert try_password("two") == 535
    p.cli("user", "passwd", "carol", input="three\n")
    assert try_password("three") == 235
    assert try_password("one") == 535, "a changed password counts at once, whatever is cached"
    p.cli("user", "delete", "carol")
    assert try_password("three") == 535
    assert p.run("user", "delete", "carol").returncode in (1, 65), "nobody of that name"
    assert b"three" not in (p.dir / "state" / "users.db").read_bytes(), "only verifiers are stored"


def test_user_nt_hash(main):
    """Only for those who are given one; a new password keeps it in step."""
    p = main
    hashes = {"Password": "a4f49c406510bdcab6824ee7c30fd852", "password": "8846f7eaee8fb117ad06bdd830b7586c"}

    def stored():
        return next(u["ntlm"] for u in json.loads(p.cli("user", "list", "--json"))["users"] if u["name"] == "dora")

    def holds(password):
        return bytes.fromhex(hashes[password]) in (p.dir / "state" / "users.db").read_bytes()

    done = p.run("user", "add", "dora", "--ntlm", input="Password\n")
    assert done.returncode == 0 and "as good as the password" in done.stderr, done.stderr
    assert stored() and holds("Password")
    assert "dora\t\tntlm\n" in p.cli("user", "list")
    p.cli("user", "passwd", "dora", input="password\n")
    assert stored() and holds("password") and not holds("Password")
    p.cli("user", "passwd", "dora", "--no-ntlm", input="password\n")
    assert not stored() and not holds("password")
    assert p.run("user", "passwd", "dora", "--ntlm", "--no-ntlm", input="x\n").returncode == 64
    assert p.run("user", "delete", "dora", "--ntlm").returncode == 64
    p.cli("user", "delete", "dora")


def test_half_a_response_and_gone(main):
    for _ in range(20):
        with main.connect(source=fresh_source()) as w:
            w.ehlo()
            w.cmd("AUTH SCRAM-SHA-256", 334)
            w.send(b"abc")
            w.sock.shutdown(socket.SHUT_RDWR)
    with Wire((main.address, 2525)) as w:
        w.ehlo()
