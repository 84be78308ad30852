"""Our own logins at next hops in a real domain: every mechanism, rights of trusted peers, and sealed sessions between two
Posterns in which a capture shows nothing to read."""
import itertools
import os

import pytest

from daemon import Postern, domain, host, server
from peers import Recorder
from realm import ADDRESS, LAB, USERS

_count = itertools.count()
SECRET = "the-quick-brown-fox-{}"


def keytab(p, name, source):
    path = p.dir / name
    path.write_bytes((LAB / source).read_bytes())
    path.chmod(0o600)


@pytest.fixture(scope="module")
def peer(ad, pki):
    """The receiving server: it trusts mail2$ like a server of its own organisation."""
    text = f'''krb5_config = "{LAB}/krb5.conf"
max_sessions_per_address = 0
auth_failure_limit = 0
identity "machines" {{ realm = "CORP.TEST" domain = "corp.test" netbios = "CORP" }}
peers "servers" {{ principals = {{"mail2$@CORP.TEST"}} rights = {{"relay", "any-sender"}} }}
''' + server("peer.corp.test", listen=["{address}:2525"], keytab="{dir}/peer.keytab", encryption="any", exps=True,
             mechanisms=["GSSAPI", "GSS-SPNEGO", "NTLM", "SCRAM-SHA-256"], accept="auth", certificate=pki.mail[0],
             key=pki.mail[1], protocol_log="{dir}/log/protocol.log")
    text += domain("corp.test", deliver="maildir:{dir}/mail/%u")
    with Postern(text, start=False, address=ADDRESS["peer"]) as p:
        keytab(p, "peer.keytab", "peer.keytab")
        p.cli("setup")
        p.start()
        yield p


@pytest.fixture
def wire_tap(peer):
    with Recorder("127.0.0.61", (peer.address, 2525)) as tap:
        yield tap


def send(peer, tap, *, sender="anyone@else.test", tls="none", **block):
    """One message from a second Postern through the tap; (the sender's log, what arrived)."""
    mark = SECRET.format(f"{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}-{next(_count)}")
    text = f'krb5_config = "{LAB}/krb5.conf"\n' + server(
        "mail2.corp.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"])
    text += domain("corp.test", via=[tap.hop], tls=tls, **block)
    with Postern(text, start=False) as p:
        keytab(p, "mail2.keytab", "mail2.keytab")
        (p.dir / "password").write_text(USERS["alice"] + "\n")
        (p.dir / "password").chmod(0o600)
        p.cli("setup")
        p.start()
        queue_id = p.deliver(sender, "bob@corp.test", f"Subject: s\r\n\r\n{mark}\r\n".encode())
        p.sent(queue_id, "bob@corp.test")
        lines = list(p.log.lines)
    assert not [line for line in lines if "delivery.login.failed" in line], lines
    return mark, peer.delivered("bob", mark.encode())


MACHINE = {"principal": "mail2$@CORP.TEST", "keytab": "{dir}/mail2.keytab"}
PERSON = {"principal": "alice@CORP.TEST", "password_file": "{dir}/password"}


@pytest.mark.parametrize("auth, mech", [("GSSAPI", "GSSAPI"), ("GSS-SPNEGO", "GSS-SPNEGO"), ("X-EXPS", "GSSAPI"),
                                        ("auto", "(GSSAPI|GSS-SPNEGO)")])
@pytest.mark.parametrize("who", [MACHINE, PERSON], ids=["keytab", "password"])
def test_login(peer, wire_tap, auth, mech, who):
    since = peer.log.mark()
    send(peer, wire_tap, auth=auth, sender="anyone@else.test" if who is MACHINE else "alice@corp.test", **who)
    line = peer.log.wait(r"event=auth\.accept ", since=since)
    assert f"user={who['principal']} " in line, line
    peer.log.wait(rf"event=auth\.accept .*\bmech={mech} ", since=since)
    assert (b"\r\nX-EXPS GSSAPI" in wire_tap.octets) == (auth == "X-EXPS")


def test_login_inside_tls(peer, wire_tap):
    since = peer.log.mark()
    mark, _ = send(peer, wire_tap, auth="GSSAPI", tls="require", **MACHINE)
    peer.log.wait(r"event=auth\.accept .*\btls=TLS", since=since)
    assert mark.encode() not in wire_tap.octets


@pytest.mark.parametrize("auth", ["GSSAPI", "X-EXPS"])
def test_sealed(peer, wire_tap, auth):
    """No TLS, and yet neither the message nor the envelope can be read on the wire."""
    mark, got = send(peer, wire_tap, auth=auth, seal=True, **MACHINE)
    seen = bytes(wire_tap.octets)
    for readable in (mark.encode(), b"MAIL FROM", b"bob@corp.test", b"Subject:"):
        assert readable not in seen, readable
    assert b"235 " in seen and b"STARTTLS\r\n" not in seen.split(b"EHLO", 1)[0]


def test_not_sealed_is_readable(peer, wire_tap):
    """What the two tests above would see without a layer."""
    mark, _ = send(peer, wire_tap, auth="GSSAPI", **MACHINE)
    assert mark.encode() in wire_tap.octets


@pytest.mark.root
@pytest.mark.parametrize("seal", [False, True], ids=["plain", "sealed"])
def test_ntlm(peer, wire_tap, seal):
    """What the old Internet Mail Service called NT challenge/response, and the same encrypted."""
    mark, _ = send(peer, wire_tap, auth="NTLM", seal=seal, sender="alice@corp.test", user="CORP\\\\alice",
                   password_file="{dir}/password")
    assert (mark.encode() in wire_tap.octets) != seal


def test_rights_of_a_peer(peer, wire_tap):
    """mail2$ may send as anyone, and what it may is told behind its login; alice may not."""
    since = peer.log.mark()
    send(peer, wire_tap, auth="GSSAPI", sender="stranger@elsewhere.test", **MACHINE)
    line = peer.log.wait(r"event=auth\.accept ", since=since)
    assert "relay" in line and "any-sender" in line, line
    text = f'krb5_config = "{LAB}/krb5.conf"\n' + server(
        "mail2.corp.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"])
    text += domain("corp.test", via=[wire_tap.hop], tls="none", auth="GSSAPI", **PERSON)
    with Postern(text, start=False) as p:
        (p.dir / "password").write_text(USERS["alice"] + "\n")
        (p.dir / "password").chmod(0o600)
        p.cli("setup")
        p.start()
        queue_id = p.deliver("stranger@elsewhere.test", "bob@corp.test")
        assert "5.7.60" in p.sent(queue_id, "bob@corp.test", "bounced")
