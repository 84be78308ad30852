"""Stock clients log in to a server of a real domain: curl, msmtp, swaks, Cyrus's smtptest, Samba's and impacket's NTLM,
Postfix as a sending server, and GSS-API by hand for what no stock client does."""
import itertools
import json
import os
import re
import subprocess

import pytest

import clients
from clients import letter
from conftest import ROOT
from daemon import Postern, domain, fresh_source, host, server, until
from postfix import Postfix
from realm import ADDRESS, FLAGS, LAB, USERS, Context, Exporting, Sealed, any_tls, end_point, login, say
from wire import Wire

# Source addresses with rules of their own.
LAYER, ANY, BOUND, OLD, TLS, KRB_ONLY, LOGIN_LINE, PLAIN = (f"127.9.0.{n}" for n in range(1, 9))
_count = itertools.count()


def marker():
    return f"ad-{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}-{next(_count)}"


def top():
    return f'''krb5_config = "{LAB}/krb5.conf"
ca_file = "{LAB}/ca.pem"
auth_failure_limit = 0
max_sessions_per_address = 0
session_log = "{{dir}}/log/sessions.jsonl"
directory "CORP.TEST" {{
    servers = {{"ldap://dc1.corp.test"}}
    bind = "gssapi"
    principal = "mail$@CORP.TEST"
    keytab = "{{dir}}/mail.keytab"
    netbios = "CORP"
}}
identity "the directory knows" {{ realm = "CORP.TEST" attribute = {{"mail", "proxyAddresses"}} netbios = "CORP" }}
identity "otherwise" {{ realm = "CORP.TEST" domain = "corp.test" netbios = "CORP" }}
'''


def install_keytab(p, name, source=None):
    """A copy in the daemon's folder, with the owner and mode that `postern setup` wants."""
    path = p.dir / name
    new = path.with_suffix(".new")
    new.write_bytes((source or LAB / name).read_bytes())
    new.chmod(0o600)
    since = p.log.mark() if p.log else None
    new.rename(path)
    if p.log:
        p.log.wait(rf"event=master\.keytab\.changed file={path} ", since=since)
    return path


@pytest.fixture(scope="module")
def mail(ad, pki):
    text = top() + server(
        "mail.corp.test",
        host(LAYER, accept="auth+tls", encryption="layer"),
        host(ANY, accept="auth+tls", encryption="any"),
        host("127.0.0.1", encryption="any"),
        host(BOUND, channel_binding="require"),
        host(OLD, ntlm_v1=True),
        host(TLS, accept="auth+tls"),
        host(KRB_ONLY, mechanisms=["GSSAPI"]),
        host(LOGIN_LINE, login_line=True, plaintext=True),
        host(PLAIN, plaintext=True),
        listen=["{address}:2525"], submission=["{address}:2587"], certificate=pki.mail[0], key=pki.mail[1],
        keytab="{dir}/mail.keytab", mechanisms=["GSSAPI", "GSS-SPNEGO", "NTLM", "SCRAM-SHA-256", "PLAIN", "LOGIN"],
        exps=True, accept="auth", aliases=["mail"])
    text += domain("corp.test", deliver="maildir:{dir}/mail/%u")
    p = Postern(text, start=False, address=ADDRESS["mail"])
    try:
        install_keytab(p, "mail.keytab")
        p.cli("setup")
        p.add_user("local@corp.test", "Local-pass1")
        p.start()
    except BaseException:
        p.__exit__(AssertionError)
        raise
    with p:
        yield p


@pytest.fixture
def alice(ad):
    return ad.kinit("alice")


def arrived(p, mark, user="bob"):
    return p.delivered(user, f"hello {mark}".encode())


def accepted(p, since, **fields):
    """The line of a login that went well, with these fields. A peer of the test before may still log in: not that one."""
    wanted = "".join(rf"(?=[^\n]*\b{name}={value}(?: |$))" for name, value in fields.items())
    return p.log.wait(r"event=auth\.accept " + wanted, since=since)


# --- stock clients with Kerberos

@pytest.mark.parametrize("service", ["smtp", "SMTPSVC"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "starttls"])
def test_curl(mail, pki, alice, service, tls):
    mark, since = marker(), mail.log.mark()
    status, said = clients.curl(alice, mark, service=service, ca=pki.ca.certificate if tls else None)
    assert status == 0, said
    accepted(mail, since, user="alice@CORP.TEST", mech="GSSAPI", mailbox="alice@corp.test")
    assert f"with ESMTP{'S' if tls else ''}A " in arrived(mail, mark).decode().replace("\r\n\t", " ").replace("\r\n ", " ")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "starttls"])
def test_msmtp(mail, pki, alice, tls):
    mark = marker()
    status, said = clients.msmtp(alice, mark, ca=pki.ca.certificate if tls else None)
    assert status == 0, said
    arrived(mail, mark)


@pytest.mark.parametrize("strength", [0, 1, 256], ids=["none", "integrity", "confidentiality"])
def test_smtptest_gssapi(mail, alice, strength):
    """Cyrus asks for exactly this layer, and the whole transaction goes through it."""
    mark, since = marker(), mail.log.mark()
    status, said = clients.smtptest(alice, "GSSAPI", strength, strength, mark=mark)
    assert "Authenticated." in said and f"Security strength factor: {strength}" in said, said
    arrived(mail, mark)
    accepted(mail, since, mech="GSSAPI", user="alice@CORP.TEST")


@pytest.mark.parametrize("strength", [0, 256], ids=["none", "confidentiality"])
def test_smtptest_spnego(mail, alice, strength):
    """Cyrus's GSS-SPNEGO has no word about layers: it starts what the context's flags allow, at once. It reports 256
    whenever it asked for any."""
    mark, since = marker(), mail.log.mark()
    status, said = clients.smtptest(alice, "GSS-SPNEGO", strength, strength, mark=mark)
    assert "Authenticated." in said and f"Security strength factor: {strength}" in said, said
    arrived(mail, mark)
    accepted(mail, since, mech="GSS-SPNEGO", user="alice@CORP.TEST")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_password(mail, pki, mechanism):
    mark = marker()
    status, said = clients.swaks(mechanism, "local@corp.test", "Local-pass1", mark, ca=pki.ca.certificate,
                                 sender="local@corp.test")
    assert status == 0, said
    arrived(mail, mark)


@pytest.mark.root
def test_postfix_sends(mail, ad, tmp_path):
    """A Debian Postfix relays through us and logs in with a ticket of its own."""
    env = ad.kinit("bob")
    mark = marker()
    with Postfix(tmp_path, relay=f"[mail.corp.test]:2525", env=env) as postfix:
        postfix.inject("bob@corp.test", "bob@corp.test", letter(mark, sender="bob@corp.test"))
        assert f"with ESMTPA " in arrived(mail, mark).decode().replace("\r\n\t", " ").replace("\r\n ", " ")


# --- by hand: what RFC 4752 and Microsoft allow

def session(source=None, tls=False, port=2525):
    wire = Wire((ADDRESS["mail"], port), source=source or fresh_source())
    offered = wire.ehlo("client.test")
    if tls:
        wire.starttls(any_tls())
        offered = wire.ehlo("client.test")
    wire.offered = offered
    return wire


SPNS = ("SMTPSVC/mail.corp.test", "smtp/mail.corp.test", "SMTPSVC/mail", "smtp/mail", "smtpsvc/MAIL.corp.test")


@pytest.mark.parametrize("spn", SPNS)
@pytest.mark.parametrize("spnego", [False, True], ids=["krb5", "spnego"])
def test_names_of_the_server(mail, alice, spn, spnego):
    """Both classes, in any case, of every name of the server; AUTH GSSAPI takes raw Kerberos and Microsoft's SPNEGO."""
    since = mail.log.mark()
    with session() as wire:
        assert login(wire, Context(alice, spn, spnego=spnego)).code == 235
    accepted(mail, since, inner="spnego-krb5" if spnego else "krb5", user="alice@CORP.TEST")


@pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
@pytest.mark.parametrize("mechanism, spnego", [("GSSAPI", False), ("GSSAPI", True), ("GSS-SPNEGO", True)])
@pytest.mark.parametrize("initial", [False, True], ids=["empty", "initial"])
def test_verbs(mail, alice, verb, mechanism, spnego, initial):
    with session() as wire:
        flags = (FLAGS.mutual_authentication,) if mechanism == "GSS-SPNEGO" else \
            (FLAGS.mutual_authentication, FLAGS.integrity, FLAGS.confidentiality)
        reply = login(wire, Context(alice, SPNS[0], spnego=spnego, flags=flags), mechanism, verb, initial=initial)
        assert reply.code == 235, reply
        wire.cmd("MAIL FROM:<alice@corp.test>", 250)


def test_without_mutual_authentication(mail, alice):
    """curl asks for none: then the offer of layers comes straight behind the client's token."""
    with session() as wire:
        assert login(wire, Context(alice, SPNS[0], flags=(FLAGS.integrity,))).code == 235


def test_what_is_offered(mail):
    with session() as wire:
        assert wire.offered["X-EXPS"] == ["GSSAPI", "GSS-SPNEGO", "NTLM"], wire.offered
        assert {"GSSAPI", "GSS-SPNEGO", "NTLM"} <= set(wire.offered["AUTH"])
        assert not any("=" in word for word in wire.offered), wire.offered
    with session(LOGIN_LINE) as wire:
        assert "AUTH=LOGIN" in wire.offered and "X-EXPS=LOGIN" in wire.offered, wire.offered
    with session(KRB_ONLY) as wire:
        assert wire.offered["AUTH"] == ["GSSAPI"] and wire.offered["X-EXPS"] == ["GSSAPI"]
        assert wire.cmd("AUTH NTLM").code in (504, 534)


@pytest.mark.parametrize("authzid, code", [("", 235), ("alice", 235), ("alice@corp.test", 235), ("alice@CORP.TEST", 235),
                                           ("bob", 535), ("bob@corp.test", 535)])
def test_authorization_identity(mail, alice, authzid, code):
    with session() as wire:
        assert login(wire, Context(alice, SPNS[0]), authzid=authzid).code == code


@pytest.mark.parametrize("user, groups", [("one", 1), ("many", 300), ("crowd", 1000)])
@pytest.mark.parametrize("initial", [False, True], ids=["empty", "initial"])
def test_users_in_many_groups(mail, ad, user, groups, initial):
    """A token of 1,000 groups is longer in base64 than RFC 4954's 12,288 octets."""
    context = Context(ad.kinit(user), SPNS[0])
    with session() as wire:
        assert login(wire, context, initial=initial).code == 235


# --- layers

@pytest.mark.parametrize("layer", [2, 4], ids=["integrity", "confidentiality"])
@pytest.mark.parametrize("spnego", [False, True], ids=["krb5", "spnego"])
def test_layers(mail, alice, layer, spnego):
    """Behind 235 all goes through the layer; the client says EHLO again, and a whole message passes."""
    mark = marker()
    context = Context(alice, SPNS[0], spnego=spnego)
    with session(ANY) as wire:
        assert login(wire, context, layer=layer).code == 235
        assert wire.offer[0] == 6 and int.from_bytes(wire.offer[1:4], "big") >= 4096
        wire.sock = Sealed(wire.sock, context.gss and context, layer == 4)
        offered = wire.ehlo("client.test")
        assert "STARTTLS" not in offered and "AUTH" not in offered
        reply = wire.message("alice@corp.test", "bob@corp.test", letter(mark).encode() + b"x" * 70 + b"\r\n" * 3000)
        assert reply.code == 250, reply
    arrived(mail, mark)


def test_pipelined_behind_a_layer(mail, alice):
    """Several commands in one packet, and one command in several packets."""
    context = Context(alice, SPNS[0])
    with session(ANY) as wire:
        assert login(wire, context, layer=4).code == 235
        wire.sock = Sealed(wire.sock, context)
        wire.send(b"EHLO c.test\r\nNOOP\r\nNO")
        assert wire.reply().code == 250 and wire.reply().code == 250
        wire.send(b"OP\r\nQUIT\r\n")
        assert wire.reply().code == 250 and wire.reply().code == 221
        assert wire.sock.recv(1) == b""


@pytest.mark.parametrize("broken", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x10" + b"x" * 16])
def test_broken_packet_ends_the_session(mail, alice, broken):
    context = Context(alice, SPNS[0])
    with session(ANY) as wire:
        assert login(wire, context, layer=4).code == 235
        wire.sock.sendall(broken)
        wire.sock.settimeout(20)
        assert wire.sock.recv(1) == b""


def test_no_layer_inside_tls(mail, alice):
    with session(ANY, tls=True) as wire:
        assert login(wire, Context(alice, SPNS[0])).code == 235
        assert wire.offer[0] == 1


def test_layer_stands_for_tls_where_the_rule_says_so(mail, alice):
    for source, layer, code in ((LAYER, 4, 250), (LAYER, 2, 530), (ANY, 2, 250), (ANY, 4, 250)):
        context = Context(alice, SPNS[0])
        with session(source) as wire:
            reply = login(wire, context, layer=layer)
            if reply.code != 235:  # refused at the login already
                assert code == 530 and reply.code in (530, 534, 535), (source, layer, reply)
                continue
            wire.sock = Sealed(wire.sock, context, layer == 4)
            wire.ehlo("c.test")
            assert wire.cmd("MAIL FROM:<alice@corp.test>").code == code, (source, layer)


def test_tls_rule_is_not_met_by_a_login(mail, alice):
    with session(TLS) as wire:
        assert wire.cmd("MAIL FROM:<alice@corp.test>").code == 530
    with session(TLS, tls=True) as wire:
        assert login(wire, Context(alice, SPNS[0])).code == 235
        wire.cmd("MAIL FROM:<alice@corp.test>", 250)


# --- channel bindings

@pytest.mark.parametrize("spnego", [False, True], ids=["krb5", "spnego"])
def test_channel_binding(mail, alice, spnego):
    with session(BOUND, tls=True) as wire:
        assert login(wire, Context(alice, SPNS[0], spnego=spnego, channel=end_point(wire))).code == 235
    since = mail.log.mark()
    with session(BOUND, tls=True) as wire:
        assert login(wire, Context(alice, SPNS[0], spnego=spnego)).code == 535
    assert "cause=bindings-missing" in mail.log.wait(r"event=auth\.reject ", since=since)
    since = mail.log.mark()
    with session(BOUND, tls=True) as wire:
        assert login(wire, Context(alice, SPNS[0], spnego=spnego, channel=b"tls-server-end-point:" + b"x" * 32)).code == 535
    assert "cause=bad-bindings" in mail.log.wait(r"event=auth\.reject ", since=since)


@pytest.mark.parametrize("spnego", [False, True], ids=["krb5", "spnego"])
def test_exporter_binding(mail, alice, spnego):
    """RFC 9266, where Windows binds to the certificate: a token does not say to which."""
    def bound(change):
        wire = session(BOUND)
        wire.cmd("STARTTLS", 220)
        wire.sock = Exporting(wire.sock)
        wire.ehlo("client.test")
        return wire, b"tls-exporter:" + change(wire.sock.exporter())
    wire, channel = bound(lambda octets: octets)
    with wire:
        token = Context(alice, SPNS[0], spnego=spnego, channel=channel)
        assert login(wire, token).code == 235
    wire, channel = bound(lambda octets: bytes(32))
    with wire:
        since = mail.log.mark()
        assert login(wire, Context(alice, SPNS[0], spnego=spnego, channel=channel)).code == 535
    assert "cause=bad-bindings" in mail.log.wait(r"event=auth\.reject ", since=since)


def test_exporter_binding_is_replayed_in_vain(mail, alice):
    wire = session(BOUND)
    wire.cmd("STARTTLS", 220)
    wire.sock = Exporting(wire.sock)
    wire.ehlo("client.test")
    with wire:
        token = Context(alice, SPNS[0], channel=b"tls-exporter:" + wire.sock.exporter()).step()
        wire.cmd("AUTH GSSAPI", 334)
        assert say(wire, token).code == 334
        wire.cmd("*", 501)
        since = mail.log.mark()
        wire.cmd("AUTH GSSAPI", 334)
        assert say(wire, token).code in (454, 535)
    assert "cause=replay" in mail.log.wait(r"event=auth\.reject .*cause=replay", since=since)


def test_channel_binding_is_welcome_where_it_is_not_demanded(mail, alice):
    with session(tls=True) as wire:
        assert login(wire, Context(alice, SPNS[0], channel=end_point(wire))).code == 235
    since = mail.log.mark()
    with session(tls=True) as wire:
        assert login(wire, Context(alice, SPNS[0], channel=b"tls-server-end-point:" + b"x" * 32)).code == 535
    assert "cause=bad-bindings" in mail.log.wait(r"event=auth\.reject ", since=since)


# --- identities

def test_mailbox_from_the_directory(mail, ad):
    """carol's attribute `mail` says caroline: by Kerberos, by `postern whoami`, and by who she may send as."""
    since = mail.log.mark()
    with session() as wire:
        assert login(wire, Context(ad.kinit("carol"), SPNS[0])).code == 235
        assert wire.cmd("MAIL FROM:<bob@corp.test>").code == 550
        wire.cmd("MAIL FROM:<caroline@corp.test>", 250)
    accepted(mail, since, user="carol@CORP.TEST", mailbox="caroline@corp.test")
    said = mail.cli("whoami", "carol@CORP.TEST")
    assert "caroline@corp.test" in said and "postern.conf:" in said, said


def test_further_addresses(mail, alice):
    with session() as wire:
        assert login(wire, Context(alice, SPNS[0])).code == 235
        wire.cmd("MAIL FROM:<sales@corp.test>", 250)
        wire.cmd("RSET", 250)
        refused = wire.cmd("MAIL FROM:<bob@corp.test>")
        assert refused.code == 550 and refused.enhanced == "5.7.60", refused


def test_whoami(mail):
    seen = json.loads(mail.cli("whoami", "--json", "alice@CORP.TEST"))
    assert "alice@corp.test" in json.dumps(seen) and "sales@corp.test" in json.dumps(seen), seen
    assert "alice@corp.test" in mail.cli("whoami", "CORP\\alice")


# --- NTLM: winbind decides, and asks for root's pipe

needs_winbind = pytest.mark.root


@needs_winbind
@pytest.mark.parametrize("user", ["CORP\\alice:", "alice@corp.test:"])
def test_curl_ntlm(mail, user):
    """curl sends a NEGOTIATE of 32 octets with empty names."""
    mark, since = marker(), mail.log.mark()
    status, said = clients.curl(None, mark, login="NTLM", user=user + USERS["alice"])
    assert status == 0, said
    arrived(mail, mark)
    accepted(mail, since, mech="NTLM", mailbox="alice@corp.test")


NTLM_CLIENTS = {"samba": clients.samba_ntlm, "impacket": clients.impacket_ntlm}


@needs_winbind
@pytest.mark.parametrize("client", NTLM_CLIENTS)
@pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
@pytest.mark.parametrize("initial", [False, True], ids=["empty", "initial"])
def test_ntlm(mail, client, verb, initial):
    since = mail.log.mark()
    ask = NTLM_CLIENTS[client]("alice", "CORP", USERS["alice"])
    assert clients.ntlm(mail.address, ask, fresh_source(), verb=verb, initial=initial).code == 235
    accepted(mail, since, mailbox="alice@corp.test")


@needs_winbind
@pytest.mark.parametrize("client", NTLM_CLIENTS)
def test_ntlm_wrong_password(mail, client):
    since = mail.log.mark()
    ask = NTLM_CLIENTS[client]("alice", "CORP", "wrong")
    assert clients.ntlm(mail.address, ask, fresh_source()).code == 535
    assert "cause=wrong-password" in mail.log.wait(r"event=auth\.reject ", since=since)


@needs_winbind
@pytest.mark.parametrize("client", NTLM_CLIENTS)
def test_ntlm_instead_of_kerberos(mail, client):
    """A client of the domain negotiates, and has only NTLM left: it gets in, and an event tells that it fell back."""
    since = mail.log.mark()
    ask = clients.in_spnego(NTLM_CLIENTS[client]("alice", "CORP", USERS["alice"]))
    assert clients.ntlm(mail.address, ask, fresh_source(), mechanism="GSS-SPNEGO").code == 235
    accepted(mail, since, inner="spnego-ntlm", mailbox="alice@corp.test")
    assert "cause=ntlm-instead-of-kerberos" in mail.log.wait(r"event=auth\.ntlm ", since=since)


@needs_winbind
def test_relayed_ntlm(mail):
    """The client's response is for another server: somebody in between passed it on."""
    since = mail.log.mark()
    ask = clients.elsewhere(clients.impacket_ntlm("alice", "CORP", USERS["alice"]), "mail", "evil")
    assert clients.ntlm(mail.address, ask, fresh_source()).code == 535
    assert "cause=target-name" in mail.log.wait(r"event=auth\.reject ", since=since)


def test_delegation_is_recorded(mail, ad):
    env = ad.kinit("dave", fresh=True, options=["-f"])
    since = mail.log.mark()
    with session() as wire:
        assert login(wire, Context(env, SPNS[0], flags=(FLAGS.mutual_authentication, FLAGS.delegate_to_peer))).code == 235
    accepted(mail, since, delegated="yes")


def test_swaks_speaks_version_1(mail):
    """Version 1 is refused whoever asks in the domain, with an event of its own."""
    for source in (fresh_source(), OLD):
        since = mail.log.mark()
        status, said = clients.swaks("NTLM", "alice", USERS["alice"], marker(), domain="CORP", source=source)
        assert status != 0 and "235" not in said, said
        if source != OLD:
            assert "cause=ntlm-v1" in mail.log.wait(r"event=auth\.reject ", since=since)


@needs_winbind
def test_report_of_old_mechanisms(mail):
    """Who still uses NTLM, PLAIN and LOGIN, and from where."""
    source = fresh_source()
    ask = clients.samba_ntlm("bob", "CORP", USERS["bob"])
    assert clients.ntlm(mail.address, ask, source).code == 235
    said = until(lambda: (text := mail.cli("auth", "report")) and source in text and text, "the session log has the login")
    row = next(line for line in said.splitlines() if source in line)
    assert "NTLM" in row and "bob" in row, said


# --- the keytab

def test_ticket_for_another_service(mail, ad, alice):
    """HOST/ is a service of the same account: its tickets decrypt, and are not for us."""
    since = mail.log.mark()
    with session() as wire:
        assert login(wire, Context(alice, "HOST/mail.corp.test")).code == 535
    line = mail.log.wait(r"event=auth\.reject ", since=since)
    assert "cause=service-not-allowed" in line and "HOST/mail.corp.test" in line, line


def test_keytab_change_is_noticed(mail, ad, alice):
    """No reload, no restart: the file alone."""
    right = mail.dir / "mail.keytab"
    kept = right.read_bytes()
    since = mail.log.mark()
    try:
        install_keytab(mail, "mail.keytab", LAB / "peer.keytab")
        with session() as wire:
            assert login(wire, Context(alice, SPNS[0])).code == 535
        assert "cause=not-our-service" in mail.log.wait(r"event=auth\.reject ", since=since)
    finally:
        install_keytab(mail, "mail.keytab")
        assert right.read_bytes() == kept
    with session() as wire:
        assert login(wire, Context(alice, SPNS[0])).code == 235


def test_healthy_domain_explains_nothing(mail, pki, ad):
    """A day on which all is well leaves no refusal, warning or error."""
    since = mail.log.mark()
    for user in ("alice", "bob"):
        with session(tls=True) as wire:
            assert login(wire, Context(ad.kinit(user, fresh=True), SPNS[0])).code == 235
    with session() as wire:
        assert login(wire, Context(ad.kinit("dave"), SPNS[2], spnego=True)).code == 235
    mail.log.wait(r"event=auth\.accept ", since=since, count=3)
    assert not mail.log.find(r"event=auth\.reject|\bcause=(?!none)|\b(warning|error):", since=since)
