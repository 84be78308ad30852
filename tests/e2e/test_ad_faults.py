"""What goes wrong in a real domain, and the one right explanation for each: the event, its cause, the sentence, and the
reply, which is 454 where waiting or an administrator helps and 535 where the client is wrong."""
import base64
import shutil
import subprocess
import threading

import pytest

import clients
from daemon import Postern, domain, fresh_source, host, server
from peers import SilentPort, Sink
from realm import ADDRESS, LAB, PASSWORDS, REALM, SCRIPT, USERS, Context, clock, config, end_point, any_tls, login, token
from wire import Wire

SPN = "SMTPSVC/fault.corp.test"
AES256, AES128 = "aes256-cts-hmac-sha1-96", "aes128-cts-hmac-sha1-96"
ADMIN, CLIENT = 454, 535


def daemon(pki, top="", env=None, **kw):
    text = f'krb5_config = "{LAB}/krb5.conf"\n' if "krb5_config" not in top else ""
    text += top + 'auth_failure_limit = 0\nmax_sessions_per_address = 0\n' + server(
        "fault.corp.test", host("127.9.0.3", channel_binding="require"), listen=["{address}:2525"],
        keytab="{dir}/fault.keytab", certificate=pki.mail[0], key=pki.mail[1],
        mechanisms=["GSSAPI", "GSS-SPNEGO", "NTLM"], accept="auth", exps=True)
    text += domain("corp.test", deliver="maildir:{dir}/mail/%u")
    p = Postern(text, start=False, address=ADDRESS["fault"], env=env, **kw)
    shutil.copyfile(LAB / "fault.keytab", p.dir / "fault.keytab")
    (p.dir / "fault.keytab").chmod(0o600)
    try:
        p.cli("setup")
        p.start()
    except BaseException:
        p.__exit__(AssertionError)
        raise
    return p


@pytest.fixture(scope="module")
def fault(ad, pki):
    with daemon(pki) as p:
        yield p


class Account:
    """The service account fault$: its password and the version of its key."""

    def __init__(self, ad, p):
        self.log = p.log
        self.ad, self.path, self.password = ad, p.dir / "fault.keytab", PASSWORDS["fault"]
        self.kvno = ad.kvno(ad.kinit("alice", fresh=True), SPN)

    def rekey(self, password):
        self.ad.set_password("fault$", password)
        self.password = password
        self.kvno = self.ad.kvno(self.ad.kinit("alice", fresh=True), SPN)

    def replaced(self, event="changed"):
        """Waits until the daemon has seen the file: a second at most, and no reload."""
        self.log.wait(rf"event=master\.keytab\.{event} file={self.path} ", since=self.since)

    def keytab(self, kvno=None, enctypes=(AES256, AES128), password=None, principal=SPN, account="fault$"):
        self.since = self.log.mark()
        self.ad.keytab(self.path, *((principal, self.kvno if kvno is None else kvno, enctype, password or self.password,
                                     account) for enctype in enctypes))
        self.replaced()

    def put(self, content):
        self.since = self.log.mark()
        new = self.path.with_suffix(".new")
        new.write_bytes(content)
        new.chmod(0o600)
        new.rename(self.path)
        self.replaced()


@pytest.fixture
def account(ad, fault, request):
    found = getattr(request.module, "_account", None)
    if not found:
        found = request.module._account = Account(ad, fault)
    yield found
    found.keytab()


def attempt(env, spn=SPN, tls=False, source=None, **kw):
    with Wire((ADDRESS["fault"], 2525), source=source or fresh_source()) as wire:
        wire.ehlo()
        if tls:
            wire.starttls(any_tls())
            wire.ehlo()
        channel = {"channel": end_point(wire)} if kw.pop("bound", False) else {}
        return login(wire, Context(env, spn, **channel, **kw))


def send_token(octets, address=ADDRESS["fault"]):
    """AUTH GSSAPI with a token as it is; when the server goes on, the client gives up."""
    with Wire((address, 2525), source=fresh_source()) as wire:
        wire.ehlo()
        reply = wire.cmd("AUTH GSSAPI " + octets)
        if reply.code == 334:
            wire.cmd("*")
        return reply


def explained(p, since, cause, *words):
    """The refusal's one line, with its cause and a sentence in which these words stand."""
    line = p.log.wait(r"event=auth\.reject ", since=since)
    assert f" cause={cause} " in line, line
    assert ' why="' in line, line
    for word in words:
        assert str(word) in line, (word, line)
    assert len(p.log.find(r"event=auth\.reject ", since)) == 1
    return line


# --- the key table

def test_password_reset_and_keytab_older(ad, fault, account):
    account.keytab()
    old = account.kvno
    account.rekey("Fault-pass2")
    since = fault.log.mark()
    assert attempt(ad.kinit("alice", fresh=True)).code == ADMIN
    explained(fault, since, "kvno-old", SPN, f"kvno {old}", f"kvno {account.kvno}", "aes256")


def test_keytab_newer_than_the_ticket(ad, fault, account):
    env = ad.kinit("alice", fresh=True)
    old = ad.kvno(env, SPN)
    account.rekey("Fault-pass3")
    account.keytab()
    since = fault.log.mark()
    assert attempt(env).code == ADMIN
    explained(fault, since, "kvno-new", SPN, f"kvno {old}", f"kvno {account.kvno}")
    assert attempt(ad.kinit("alice", fresh=True)).code == 235


@pytest.mark.parametrize("spnego", [False, True], ids=["krb5", "spnego"])
def test_wrong_key(ad, fault, account, spnego):
    account.keytab(password="another-pass")
    since = fault.log.mark()
    assert attempt(ad.kinit("alice"), spnego=spnego).code == ADMIN
    explained(fault, since, "wrong-key", SPN, f"kvno {account.kvno}")


@pytest.mark.parametrize("kvno", [0, 1])
def test_wrong_number_of_the_right_key_is_no_fault(ad, fault, account, kvno):
    account.keytab(kvno=kvno)
    assert attempt(ad.kinit("alice", fresh=True)).code == 235


def test_keytab_lacks_the_enctype(ad, fault, account):
    account.keytab(enctypes=(AES128,))
    since = fault.log.mark()
    assert attempt(ad.kinit("alice")).code == ADMIN
    explained(fault, since, "enctype-missing", SPN, "aes256")


def test_keytab_of_another_account(ad, fault, account):
    account.put((LAB / "peer.keytab").read_bytes())
    since = fault.log.mark()
    assert attempt(ad.kinit("alice")).code == CLIENT
    explained(fault, since, "not-our-service", SPN)


def test_ticket_for_another_account(ad, fault, account):
    """A client that took the wrong name: its ticket is for a service of a neighbour."""
    account.keytab()
    since = fault.log.mark()
    assert attempt(ad.kinit("alice"), "SMTPSVC/peer.corp.test").code in (ADMIN, CLIENT)
    line = fault.log.wait(r"event=auth\.reject ", since=since)
    assert (" cause=service-not-allowed " in line or " cause=not-our-service " in line) and "SMTPSVC/peer.corp.test" in line, line


def test_ticket_for_another_service_of_the_account(ad, fault, account):
    account.keytab()
    ad.change("fault$", "servicePrincipalName", SPN, "smtp/fault.corp.test", "HTTP/fault.corp.test")
    since = fault.log.mark()
    assert attempt(ad.kinit("alice"), "HTTP/fault.corp.test").code == CLIENT
    explained(fault, since, "service-not-allowed", "HTTP/fault.corp.test", SPN)


@pytest.mark.parametrize("content, cause", [(b"\x05\x02", "keytab-empty"), (b"not a keytab", "keytab-unreadable")])
def test_no_usable_keytab(ad, fault, account, content, cause):
    account.put(content)
    since = fault.log.mark()
    assert attempt(ad.kinit("alice")).code == ADMIN
    explained(fault, since, cause, "fault.keytab")


def test_removed_keytab_stays_in_use(ad, fault, account):
    """That is told, and is no reason to refuse anybody."""
    account.keytab()
    account.since = fault.log.mark()
    account.path.unlink()
    account.replaced("failed")
    assert attempt(ad.kinit("alice", fresh=True)).code == 235


# --- clocks

def test_clock_of_the_client(ad, fault, account):
    account.keytab()
    since = fault.log.mark()
    alice = ad.kinit("alice")
    Context(alice, SPN).step()  # the ticket is got while the clock is right: the KDC would not give one later
    assert send_token(token(alice, SPN, "+10m")).code == ADMIN
    explained(fault, since, "clock-skew", SPN)


@pytest.mark.parametrize("shift, cause, code", [("+10m", "clock-skew", ADMIN), ("-10m", "ticket-not-yet-valid", ADMIN),
                                                ("+11h", "ticket-expired", CLIENT)])
def test_clock_of_the_server(ad, fault, account, shift, cause, code):
    """A second daemon with the same keys, whose clock is off. A ticket lasts ten hours."""
    address = "127.0.0.29"
    text = f'krb5_config = "{LAB}/krb5.conf"\n' + server(
        "fault.corp.test", listen=["{address}:2525"], keytab="{dir}/fault.keytab", mechanisms=["GSSAPI"], accept="auth")
    p = Postern(text + domain("corp.test", deliver="discard"), start=False, address=address, env=clock(shift))
    with p:
        account.keytab()
        shutil.copy(account.path, p.dir / "fault.keytab")
        p.cli("setup")
        p.start()
        context = Context(ad.kinit("alice", fresh=True), SPN)
        with Wire((address, 2525)) as wire:
            wire.ehlo()
            assert login(wire, context).code == code
        explained(p, 0, cause, SPN)


def test_replay(ad, fault, account):
    account.keytab()
    octets = token(ad.kinit("alice"), SPN, "+0s")
    assert send_token(octets).code == 334
    fault.log.wait(r"cause=cancelled", since=0)
    since = fault.log.mark()
    assert send_token(octets).code == CLIENT
    explained(fault, since, "replay", SPN)


# --- bindings, tokens, enctypes

def test_bindings(ad, fault, account):
    account.keytab()
    env = ad.kinit("alice", fresh=True)
    assert attempt(env, tls=True, bound=True, source="127.9.0.3").code == 235
    since = fault.log.mark()
    assert attempt(env, tls=True, source="127.9.0.3").code == CLIENT
    explained(fault, since, "bindings-missing")
    since = fault.log.mark()
    assert attempt(env, tls=True, channel=b"tls-server-end-point:somebody else's", source="127.9.0.3").code == CLIENT
    explained(fault, since, "bad-bindings")


@pytest.mark.parametrize("octets, cause", [
    (b"\x60\x23\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x01\x00\x6e\x16" + b"\x30" * 22, "defective-token"),
    (b"\x01" * 18, "unknown-token")], ids=["no-request", "nothing-known"])
def test_junk(fault, account, octets, cause):
    since = fault.log.mark()
    assert send_token(base64.b64encode(octets).decode()).code in (501, CLIENT)
    explained(fault, since, cause)


def test_enctype_that_is_not_permitted(ad, pki, tmp_path):
    """The machine permits AES alone, and the ticket is RC4, because the account has nothing else."""
    tmp_path.chmod(0o755)
    text = f'krb5_config = "{{dir}}/krb5.conf"\n' + server(
        "old.corp.test", listen=["{address}:2525"], keytab="{dir}/old.keytab", mechanisms=["GSSAPI"], accept="auth")
    p = Postern(text + domain("corp.test", deliver="discard"), start=False, address=ADDRESS["old"])
    with p:
        config(p.dir, "127.0.0.10", f" permitted_enctypes = {AES256} {AES128}\n")
        shutil.copyfile(LAB / "old.keytab", p.dir / "old.keytab")
        (p.dir / "old.keytab").chmod(0o600)
        p.cli("setup")
        p.start()
        with Wire((p.address, 2525)) as wire:
            wire.ehlo()
            assert login(wire, Context(ad.kinit("alice"), "SMTPSVC/old.corp.test")).code == ADMIN
        explained(p, 0, "enctype-unsupported", "rc4")


def test_old_account_is_no_fault(ad, pki):
    """RC4 alone is weak, and works."""
    text = f'krb5_config = "{LAB}/krb5.conf"\n' + server(
        "old.corp.test", listen=["{address}:2525"], keytab="{dir}/old.keytab", mechanisms=["GSSAPI"], accept="auth")
    p = Postern(text + domain("corp.test", deliver="discard"), start=False, address=ADDRESS["old"])
    with p:
        shutil.copyfile(LAB / "old.keytab", p.dir / "old.keytab")
        (p.dir / "old.keytab").chmod(0o600)
        p.cli("setup")
        p.start()
        with Wire((p.address, 2525)) as wire:
            wire.ehlo()
            assert login(wire, Context(ad.kinit("alice"), "SMTPSVC/old.corp.test")).code == 235


# --- accounts, as winbind tells of them (root's pipe)

@pytest.mark.root
@pytest.mark.parametrize("user, password, cause", [
    ("alice", "wrong", "wrong-password"), ("nosuch", "x", "no-such-user"), ("disabled", None, "account-disabled"),
    ("expired", None, "account-expired"), ("locked", None, "account-locked"), ("mustchange", None, "password-must-change")])
def test_account(fault, user, password, cause):
    since = fault.log.mark()
    ask = clients.samba_ntlm(user, "CORP", password or USERS[user])
    assert clients.ntlm(fault.address, ask, fresh_source()).code == CLIENT
    explained(fault, since, cause, user)


def test_version_1(fault):
    since = fault.log.mark()
    ask = clients.impacket_ntlm("alice", "CORP", USERS["alice"], v2=False, workstation="SCANNER9")
    assert clients.ntlm(fault.address, ask, fresh_source()).code == CLIENT
    explained(fault, since, "ntlm-v1", "alice")


# --- outbound: a domain that demands a login, and cannot have it

class Outbound:
    """A sender with a next hop that announces a name, and what it logs when it cannot log in there."""

    def __init__(self, ad, hop, name, top="", auth="GSSAPI", env=None, files=(), **block):
        self.sink = Sink("127.4.9.1", name=name, mechanisms="GSSAPI GSS-SPNEGO NTLM") if hop is None else None
        text = f'krb5_config = "{LAB}/krb5.conf"\n' if "krb5_config" not in top else ""
        text += top + 'retry_min = "1m"\nretry_max = "1m"\n' + server(
            "mail2.corp.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"])
        text += domain("one.test", via=[hop or self.sink.hop], tls="none", auth=auth, **block)
        self.p = Postern(text, start=False, env=env)
        for name, content in files:
            (self.p.dir / name).write_bytes(content if isinstance(content, bytes) else content.encode())
            (self.p.dir / name).chmod(0o644 if name.endswith(".conf") else 0o600)

    def __enter__(self):
        self.p.__enter__()
        try:
            self.p.cli("setup")
            self.p.start()
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def __exit__(self, kind, *rest):
        self.p.__exit__(kind, *rest)
        if self.sink:
            self.sink.close()

    def told(self, cause, *words):
        queue_id = self.p.deliver("a@corp.test", "friend@one.test", source="127.0.0.1")
        line = self.p.log.wait(r"event=delivery\.login\.failed ")
        assert f" cause={cause} " in line and ' why="' in line, line
        for word in words:
            assert str(word) in line, (word, line)
        self.p.sent(queue_id, "friend@one.test", "deferred")
        assert not self.sink or self.sink.mails.empty()


def with_keytab(ad, name="nospn.corp.test", **kw):
    return Outbound(ad, None, name, principal="mail$@CORP.TEST", keytab="{dir}/mail.keytab",
                    files=[("mail.keytab", (LAB / "mail.keytab").read_bytes())], **kw)


def with_password(ad, principal, password, name="peer.corp.test", files=(), **kw):
    return Outbound(ad, None, name, principal=principal, password_file="{dir}/password",
                    files=[("password", password + "\n"), *files], **kw)


def test_target_without_spn(ad):
    with with_keytab(ad) as o:
        o.told("spn-unknown", "nospn.corp.test", "setspn")


@pytest.mark.root
def test_target_spn_on_two_accounts(ad):
    for account in ("bob", "dave"):
        subprocess.run([SCRIPT, "duplicate", account, "SMTPSVC/twice.corp.test"], check=True)
    with with_keytab(ad, "twice.corp.test") as o:
        o.told("spn-unknown", "twice.corp.test", "setspn -Q")


@pytest.mark.parametrize("name", ["localhost", "mail.elsewhere.test"])
def test_target_of_a_wrong_name(ad, name):
    with with_keytab(ad, name) as o:
        o.told("spn-unknown", name)


def test_target_enctype_unsupported(ad):
    with with_keytab(ad, "des.corp.test") as o:
        o.told("enctype-unsupported", "SMTPSVC/des.corp.test")


@pytest.mark.parametrize("user, password, cause", [
    ("alice", "wrong-pass", "preauth-failed"), ("nosuch", "x", "client-unknown"), ("disabled", None, "client-revoked"),
    ("expired", None, "client-revoked"), ("locked", None, "client-revoked"), ("mustchange", None, "password-expired")])
def test_own_account(ad, user, password, cause):
    with with_password(ad, f"{user}@{REALM}", password or USERS[user]) as o:
        o.told(cause, user)


def test_own_keytab_old(ad, tmp_path):
    """The key of an account whose password was changed."""
    old = ad.keytab(tmp_path / "old", ("mail$", 1, AES256, "Mail-pass0", "mail$")).read_bytes()
    with Outbound(ad, None, "peer.corp.test", principal="mail$@CORP.TEST", keytab="{dir}/mail.keytab",
                  files=[("mail.keytab", old)]) as o:
        o.told("preauth-failed", "mail$")


@pytest.mark.parametrize("content, cause", [(b"\x05\x02", "keytab-empty"), (b"not a keytab", "keytab-unreadable")])
def test_own_keytab_unusable(ad, content, cause):
    with Outbound(ad, None, "peer.corp.test", principal="mail$@CORP.TEST", keytab="{dir}/mail.keytab",
                  files=[("mail.keytab", content)]) as o:
        o.told(cause, "mail.keytab")


def elsewhere(kdc, libdefaults="", realm=REALM):
    return ("krb5.conf", f"[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n rdns = false\n"
            f" dns_canonicalize_hostname = false\n{libdefaults}[realms]\n {realm} = {{\n  kdc = {kdc}\n }}\n"
            f"[domain_realm]\n .corp.test = {REALM}\n")


OWN_CONFIG = 'krb5_config = "{dir}/krb5.conf"\n'


def test_kdc_down(ad):
    with with_password(ad, f"alice@{REALM}", USERS["alice"], top=OWN_CONFIG, files=[elsewhere("127.0.0.99:88")]) as o:
        o.told("kdc-silent", REALM)


def test_kdc_silent(ad):
    silent = SilentPort("127.0.0.98")
    with with_password(ad, f"alice@{REALM}", USERS["alice"], top=OWN_CONFIG,
                       files=[elsewhere(f"127.0.0.98:{silent.port}", " udp_preference_limit = 1\n")]) as o:
        o.told("kdc-silent", REALM)
    silent.close()


def test_no_kdc_is_known(ad):
    with with_password(ad, "alice@NOWHERE.TEST", "x") as o:
        o.told("no-kdc", "NOWHERE.TEST")


def test_own_clock(ad):
    """MIT's library corrects a wrong clock by the KDC's, unless it is told not to."""
    with with_password(ad, f"alice@{REALM}", USERS["alice"], top=OWN_CONFIG, env=clock("+10m"),
                       files=[elsewhere("127.0.0.10", " kdc_timesync = 0\n")]) as o:
        o.told("clock-skew")


def test_mechanism_not_offered(ad):
    with with_keytab(ad, "peer.corp.test") as o:
        o.sink.mechanisms = "LOGIN"
        o.told("mechanism-not-offered", "GSSAPI", "LOGIN")


def test_peer_refuses(ad):
    with with_keytab(ad, "peer.corp.test") as o:
        o.sink.answer = lambda session, verb, line: "535 5.7.3 Authentication unsuccessful" if verb == "AUTH" else None
        o.told("peer-refused", "535 5.7.3 Authentication unsuccessful", "AUTH GSSAPI")


def test_optional_login_is_logged(ad):
    """Only where it is said to be optional does mail go out without it, and each time that is told."""
    with with_keytab(ad, "nospn.corp.test", auth="optional:GSSAPI") as o:
        queue_id = o.p.deliver("a@corp.test", "friend@one.test", source="127.0.0.1")
        o.p.sent(queue_id, "friend@one.test")
        assert o.sink.get().user is None
        line = o.p.log.wait(r"event=delivery\.login\.failed ")
        assert " cause=spn-unknown " in line, line


# --- what stands behind the daemon is gone, or says nothing (faults that no table of Kerberos has)

def behind(text, address, keytab="mail.keytab", wrapper=(), **kw):
    """A daemon of the server mail.corp.test with the rest of its configuration in `text`."""
    p = Postern(f'krb5_config = "{LAB}/krb5.conf"\nauth_failure_limit = 0\n' + text + server(
        "mail.corp.test", listen=["{address}:2525"], keytab="{dir}/mail.keytab", accept="auth",
        mechanisms=["GSSAPI", "NTLM", "SCRAM-SHA-256"], aliases=["mail"]) + domain("corp.test", deliver="discard"),
        start=False, address=address, wrapper=wrapper, **kw)
    (p.dir / "mail.keytab").write_bytes((LAB / keytab).read_bytes())
    (p.dir / "mail.keytab").chmod(0o600)
    return p


def directory(server_url):
    return f'''directory "CORP.TEST" {{
    servers = {{"{server_url}"}}
    bind = "gssapi"
    principal = "mail$@CORP.TEST"
    keytab = "{{dir}}/mail.keytab"
    netbios = "CORP"
}}
identity "the directory knows" {{ realm = "CORP.TEST" attribute = {{"mail"}} }}
'''


def started(p):
    p.cli("setup")
    p.start()


@pytest.mark.parametrize("silent", [False, True], ids=["down", "silent"])
def test_directory(ad, silent):
    """Who somebody is cannot be said for the moment: 454, and the client comes again."""
    port = SilentPort("127.0.0.10")
    if not silent:
        port.close()
    with behind(directory(f"ldap://dc1.corp.test:{port.port}"), "127.0.0.62") as p:
        started(p)
        with Wire((p.address, 2525)) as wire:
            wire.ehlo()
            assert login(wire, Context(ad.kinit("alice"), "SMTPSVC/mail.corp.test")).code == ADMIN
        explained(p, 0, "directory-down", "alice")
    port.close()


HIDE = "mount -t tmpfs tmpfs /run/samba/winbindd && "


@pytest.mark.root
def test_winbind_down(ad):
    wrapper = ["unshare", "-m", "--propagation", "private", "sh", "-c", HIDE + '"$@"; exit $?', "sh"]
    with behind(directory("ldap://dc1.corp.test"), "127.0.0.63", wrapper=wrapper) as p:
        started(p)
        ask = clients.samba_ntlm("alice", "CORP", USERS["alice"])
        assert clients.ntlm(p.address, ask, fresh_source()).code == ADMIN
        explained(p, 0, "winbind-down", "alice")


@pytest.mark.root
def test_winbind_silent(ad, tmp_path):
    """It takes connections and does not answer: NTLM gets 454 after its deadline, and Kerberos notices nothing."""
    pipe, over = "/run/samba/winbindd/pipe", tmp_path / "over"
    code = f"import os, socket, time; s = socket.socket(socket.AF_UNIX); s.bind('{pipe}'); os.chmod('{pipe}', 0o777); " \
        f"s.listen(64); n = [time.sleep(0.1) for _ in iter(lambda: os.path.exists('{over}'), True)]"
    script = HIDE + f'chmod 755 /run/samba/winbindd; (/usr/bin/python3 -c "{code}" &); ' \
        f'while [ ! -S {pipe} ]; do sleep 0.05; done; "$@"; status=$?; touch {over}; exit $status'
    wrapper = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]
    with behind("", "127.0.0.64", wrapper=wrapper) as p:
        started(p)
        replies = []
        waiting = threading.Thread(target=lambda: replies.append(clients.ntlm(
            p.address, clients.samba_ntlm("alice", "CORP", USERS["alice"]), fresh_source())))
        waiting.start()
        with Wire((p.address, 2525)) as wire:
            wire.ehlo()
            assert login(wire, Context(ad.kinit("alice"), "SMTPSVC/mail.corp.test")).code == 235
        assert waiting.is_alive()
        waiting.join(60)
        assert replies[0].code == ADMIN
        explained(p, 0, "winbind-silent", "alice")


def test_peer_with_a_wrong_keytab(ad, tmp_path):
    """The next hop cannot let anybody in for a reason of its own: its whole reply stands in our log."""
    with behind("", "127.0.0.65") as peer:
        ad.keytab(peer.dir / "mail.keytab", ("SMTPSVC/mail.corp.test", 2, AES256, "not-it", "mail$"))
        started(peer)
        with Outbound(ad, "[127.0.0.65]:2525", None, principal=f"alice@{REALM}", password_file="{dir}/password",
                      files=[("password", USERS["alice"] + "\n")]) as o:
            o.told("peer-temporary", "454 4.7.0", "AUTH GSSAPI")
        explained(peer, 0, "wrong-key", "SMTPSVC/mail.corp.test")
