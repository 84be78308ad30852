"""The domain that `tests/lab/ad` brings up, as tests use it: tickets, keytabs, the directory, and clients that speak
GSS-API by hand. A test file whose name begins with test_ad_ runs in the domain's namespaces: see conftest.py."""
import base64
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import gssapi
import gssapi.raw
from OpenSSL import SSL

TREE = Path(__file__).resolve().parents[2]
SCRIPT = TREE / "tests" / "lab" / "ad"
KRB5, SPNEGO = gssapi.OID.from_int_seq("1.2.840.113554.1.2.2"), gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
FLAGS = gssapi.RequirementFlag


def load_script():
    loader = importlib.machinery.SourceFileLoader("lab_ad", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("lab_ad", loader))
    dont, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = dont
    return module


lab = load_script()
LAB, REALM, USERS = lab.LAB, lab.REALM, lab.USERS
ADDRESS = lab.NAMES
PASSWORDS = {**USERS, **{name: password for name, _, password, *_ in lab.SERVICES}}


class Domain:
    """What the whole test process shares; credential caches are in a folder of its own."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.caches = {}

    def run(self, *argv, input=None, env=None, status=0, timeout=60):
        done = subprocess.run([str(a) for a in argv], input=input, env=env, capture_output=True, text=True, timeout=timeout)
        said = done.stdout + done.stderr
        assert status is None or done.returncode == status, f"{argv} -> {done.returncode}\n{said}"
        return said

    def env(self, cache, config=None):
        return dict(os.environ, KRB5CCNAME=f"FILE:{cache}", KRB5_CONFIG=str(config or LAB / "krb5.conf"))

    def kinit(self, user, password=None, fresh=False, options=(), config=None):
        """The environment of somebody with a ticket of `user`."""
        if user not in self.caches or fresh:
            cache = Path(tempfile.mkdtemp(dir=self.folder)) / "cc"
            self.run("kinit", *options, user, input=(password or PASSWORDS[user]) + "\n", env=self.env(cache, config))
            if fresh:
                return self.env(cache, config)
            self.caches[user] = cache
        return self.env(self.caches[user], config)

    def kvno(self, env, spn):
        """Gets a ticket; its key's version number."""
        said = self.run("kvno", spn, env=env)
        return int(re.search(r"kvno = (\d+)", said).group(1))

    def ldap(self, ldif):
        """A change by the administrator."""
        self.run("ldapmodify", "-x", "-H", f"ldaps://{lab.DC}.{lab.DOMAIN}", "-D", f"Administrator@{lab.DOMAIN}", "-w",
                 lab.ADMIN, input=ldif, env=dict(os.environ, LDAPTLS_CACERT=str(LAB / "ca.pem")))

    @staticmethod
    def dn(account):
        users = not account.endswith("$")
        return f"CN={account.rstrip('$')},CN={'Users' if users else 'Computers'},{lab.BASE}"

    def change(self, account, attribute, *values):
        rows = "".join(f"{attribute}: {value}\n" for value in values)
        self.ldap(f"dn: {self.dn(account)}\nchangetype: modify\nreplace: {attribute}\n{rows}-\n")

    def set_password(self, account, password):
        quoted = base64.b64encode(f'"{password}"'.encode("utf-16-le")).decode()
        self.ldap(f"dn: {self.dn(account)}\nchangetype: modify\nreplace: unicodePwd\nunicodePwd:: {quoted}\n-\n")

    def computer(self, name, password, *spns, enctypes="24"):
        """A service account for one test alone."""
        quoted = base64.b64encode(f'"{password}"'.encode("utf-16-le")).decode()
        rows = "".join(f"servicePrincipalName: {spn}\n" for spn in spns)
        self.ldap(f"dn: {self.dn(name + '$')}\nchangetype: add\nobjectClass: computer\nsAMAccountName: {name}$\n"
                  f"dNSHostName: {name}.corp.test\nuserAccountControl: {0x1000}\nunicodePwd:: {quoted}\n"
                  f"msDS-SupportedEncryptionTypes: {enctypes}\n{rows}")

    def delete(self, account):
        self.ldap(f"dn: {self.dn(account)}\nchangetype: delete\n")

    def keytab(self, path, *rows):
        """Rows are (principal, kvno, enctype, password, account): a computer's salt has its host name in it."""
        path = Path(path)
        lines = ""
        for principal, kvno, enctype, password, account in rows:
            salt = f"{REALM}host{account.rstrip('$')}.{lab.DOMAIN}" if account.endswith("$") else f"{REALM}{account}"
            lines += f"addent -password -p {principal}@{REALM} -k {kvno} -e {enctype} -s {salt}\n{password}\n"
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        self.run("ktutil", input=f"{lines}wkt {new}\nquit\n", env=dict(os.environ, KRB5_CONFIG=str(LAB / "krb5.conf")))
        assert new.exists(), lines
        new.chmod(0o600)
        new.rename(path)
        return path


class Context:
    """A client's GSS-API context; `channel` is the application data of channel bindings."""

    def __init__(self, env, spn, spnego=False, flags=(FLAGS.mutual_authentication, FLAGS.integrity, FLAGS.confidentiality),
                 channel=None):
        mech = SPNEGO if spnego else KRB5
        creds = gssapi.Credentials(usage="initiate", mechs=[mech], store={"ccache": env["KRB5CCNAME"]})
        bindings = gssapi.raw.ChannelBindings(application_data=channel) if channel is not None else None
        self.gss = gssapi.SecurityContext(name=gssapi.Name(f"{spn}@{REALM}", gssapi.NameType.kerberos_principal),
                                          creds=creds, mech=mech, usage="initiate", flags=list(flags),
                                          channel_bindings=bindings)

    def step(self, token=None):
        return self.gss.step(token) or b""

    def wrap(self, plain, seal):
        return self.gss.wrap(plain, seal).message

    def unwrap(self, token):
        return self.gss.unwrap(token).message


def end_point(wire):
    """tls-server-end-point of a connection (RFC 5929): these tests' certificates are signed with SHA-256."""
    return b"tls-server-end-point:" + hashlib.sha256(wire.sock.getpeercert(True)).digest()


def say(wire, octets):
    """A line with a token; the reply."""
    return wire.cmd(base64.b64encode(octets) or b"")


def token_of(reply):
    return base64.b64decode(reply.lines[-1]) if reply.lines[-1] else b""


def login(wire, context, mechanism="GSSAPI", verb="AUTH", layer=1, authzid="", initial=False):
    """The whole of AUTH GSSAPI (RFC 4752) or GSS-SPNEGO; the last reply, 235 or otherwise."""
    token = context.step()
    if initial:
        reply = wire.cmd(f"{verb} {mechanism} {base64.b64encode(token).decode()}")
    else:
        reply = wire.cmd(f"{verb} {mechanism}")
        if reply.code != 334:
            return reply
        reply = say(wire, token)
    while reply.code == 334 and not context.gss.complete:
        reply = say(wire, context.step(token_of(reply)))
    if mechanism == "GSSAPI" and reply.code == 334:
        offer = context.unwrap(token_of(reply))
        wire.offer = offer
        size = b"\0\0\0" if layer == 1 else b"\1\0\0"
        reply = say(wire, context.wrap(bytes([layer]) + size + authzid.encode(), False))
    return reply


def token(env, spn, clock):
    """The first token of a client whose clock is off by `clock`, for example "+10m"."""
    code = "import base64, realm, os, sys; " \
        "print(base64.b64encode(realm.Context(os.environ, sys.argv[1]).step()).decode())"
    done = subprocess.run(["faketime", "-f", clock, sys.executable, "-B", "-c", code, spn], env=env, capture_output=True,
                          text=True, cwd=Path(__file__).parent, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def clock(shift):
    """The environment of a daemon whose clock is off."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return dict(os.environ, LD_PRELOAD=str(library), FAKETIME=shift, FAKETIME_DONT_FAKE_MONOTONIC="1")


def config(folder, kdc, libdefaults=""):
    """A krb5.conf that leads elsewhere."""
    path = Path(folder) / "krb5.conf"
    path.write_text(f"[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_canonicalize_hostname = false\n"
                    f" rdns = false\n{libdefaults}[realms]\n {REALM} = {{\n  kdc = {kdc}\n }}\n"
                    f"[domain_realm]\n .{lab.DOMAIN} = {REALM}\n")
    path.chmod(0o644)
    return path


class Sealed:
    """Stands where a Wire has its socket, when a layer is on."""

    def __init__(self, sock, context, seal=True):
        self.sock, self.context, self.seal, self.pending = sock, context, seal, b""

    def sendall(self, octets):
        token = self.context.wrap(octets, self.seal)
        self.sock.sendall(len(token).to_bytes(4, "big") + token)

    def settimeout(self, seconds):
        self.sock.settimeout(seconds)

    def _exactly(self, n):
        while len(self.pending) < n:
            got = self.sock.recv(65536)
            if not got:
                return b""
            self.pending += got
        head, self.pending = self.pending[:n], self.pending[n:]
        return head

    def recv(self, _):
        head = self._exactly(4)
        return self.context.unwrap(self._exactly(int.from_bytes(head, "big"))) if head else b""

    def close(self):
        self.sock.close()


class Exporting:
    """Stands where a Wire has its socket: TLS 1.3 that tells its exporter (RFC 9266), which Python's own does not."""

    def __init__(self, sock):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        sock.settimeout(None)  # pyOpenSSL wants it so
        self.tls = SSL.Connection(context, sock)
        self.tls.set_connect_state()
        self.tls.do_handshake()

    def exporter(self):
        return self.tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")

    def sendall(self, octets):
        self.tls.sendall(octets)

    def recv(self, n):
        return self.tls.recv(n)

    def settimeout(self, seconds):
        pass  # the test's own limit stands

    def close(self):
        self.tls.close()


def any_tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
