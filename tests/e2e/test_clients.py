"""Stock clients: curl, swaks, msmtp and Python's smtplib over {plain, STARTTLS, TLS} × {none, PLAIN, LOGIN,
SCRAM-SHA-256}, with right and wrong passwords."""
import itertools
import os
import smtplib
import ssl
import subprocess

import pytest

from conftest import HOSTS, PASSWORD
from daemon import fresh_source
from wire import client_context

TRANSPORTS = {"plain": 2525, "starttls": 2587, "tls": 2465}
_count = itertools.count()


def marker():
    return f"marker-{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}-{next(_count)}"


def content(mark, to):
    return f"From: Alice <alice@corp.test>\r\nTo: {to}\r\nSubject: {mark}\r\nMessage-ID: <{mark}@client.test>\r\n\r\nhello {mark}\r\n"


class Client:
    """What one client does: `send` returns (exit status or 0, everything that it said)."""

    def __init__(self, main, pki, tmp_path):
        self.main, self.pki, self.tmp_path = main, pki, tmp_path

    def run(self, *argv, input=None):
        done = subprocess.run([str(a) for a in argv], input=input, capture_output=True, text=True, timeout=60,
                              env=dict(os.environ, HOME=str(self.tmp_path)))
        return done.returncode, done.stdout + done.stderr


class Curl(Client):
    mechanisms = {"PLAIN", "LOGIN"}

    def send(self, transport, mechanism, password, mark, source, to):
        letter = self.tmp_path / "letter"
        letter.write_text(content(mark, to), newline="")
        scheme = "smtps" if transport == "tls" else "smtp"
        argv = ["curl", "-sS", "-v", "--max-time", "50", "--interface", source, "--cacert", self.pki.ca.certificate,
                "--connect-to", f"::{self.main.address}:", "--mail-from", "alice@corp.test", "--mail-rcpt", to,
                "--upload-file", letter, f"{scheme}://mail.corp.test:{TRANSPORTS[transport]}/client.test"]
        if transport == "starttls":
            argv += ["--ssl-reqd"]
        if mechanism:
            argv += ["--user", f"alice:{password}", "--login-options", f"AUTH={mechanism}"]
        return self.run(*argv)


class Swaks(Client):
    mechanisms = {"PLAIN", "LOGIN"}

    def send(self, transport, mechanism, password, mark, source, to):
        argv = ["swaks", "--server", self.main.address, "--port", TRANSPORTS[transport], "--local-interface", source,
                "--helo", "client.test", "--from", "alice@corp.test", "--to", to, "--data", content(mark, to),
                "--timeout", "40"]
        if transport != "plain":
            argv += ["--tls" if transport == "starttls" else "--tls-on-connect", "--tls-verify", "--tls-ca-path",
                     self.pki.ca.certificate, "--tls-sni", "mail.corp.test"]
        if mechanism:
            argv += ["--auth", mechanism, "--auth-user", "alice", "--auth-password", password]
        return self.run(*argv)


class Msmtp(Client):
    mechanisms = {"PLAIN", "LOGIN", "SCRAM-SHA-256"}

    def send(self, transport, mechanism, password, mark, source, to):
        argv = ["msmtp", "-d", "--file", "/dev/null", "--host", self.main.address, "--port", TRANSPORTS[transport],
                f"--source-ip={source}", "--from", "alice@corp.test", "--timeout=40", "--domain=client.test"]
        if transport == "plain":
            argv += ["--tls=off"]
        else:
            argv += ["--tls=on", f"--tls-starttls={'on' if transport == 'starttls' else 'off'}",
                     f"--tls-trust-file={self.pki.ca.certificate}", "--tls-host-override=mail.corp.test"]
        if mechanism:
            argv += [f"--auth={mechanism.lower()}", "--user=alice", "--passwordeval", f"printf '%s' '{password}'"]
        return self.run(*argv, to, input=content(mark, to).replace("\r\n", "\n"))


class Smtplib(Client):
    mechanisms = {"PLAIN", "LOGIN"}

    def send(self, transport, mechanism, password, mark, source, to):
        context = client_context(self.pki.ca.certificate)
        context.check_hostname = False
        port = TRANSPORTS[transport]
        try:
            if transport == "tls":
                client = smtplib.SMTP_SSL(self.main.address, port, "client.test", timeout=40, context=context,
                                          source_address=(source, 0))
            else:
                client = smtplib.SMTP(self.main.address, port, "client.test", timeout=40, source_address=(source, 0))
            with client:
                client.ehlo()
                if transport == "starttls":
                    client.starttls(context=context)
                    client.ehlo()
                if mechanism:
                    client.user, client.password = "alice", password
                    step = client.auth_plain if mechanism == "PLAIN" else client.auth_login
                    client.auth(mechanism, step)
                client.sendmail("alice@corp.test", [to], content(mark, to))
            return 0, ""
        except (smtplib.SMTPException, ssl.SSLError) as problem:
            return 1, str(problem)


CLIENTS = {"curl": Curl, "swaks": Swaks, "msmtp": Msmtp, "smtplib": Smtplib}

def cases():
    for name, kind in CLIENTS.items():
        for transport in TRANSPORTS:
            for mechanism in (None, *sorted(kind.mechanisms)):
                yield pytest.param(name, transport, mechanism, id=f"{name}-{transport}-{mechanism or 'none'}")


@pytest.fixture(scope="module")
def ascii_main(main):
    """A password of ASCII alone: smtplib and curl on some locales cannot say another one."""
    done = main.run("user", "passwd", "alice", input="ascii-password\n")
    assert done.returncode == 0, done.stderr
    yield main
    main.run("user", "passwd", "alice", input=PASSWORD + "\n")


@pytest.mark.parametrize("client, transport, mechanism", cases())
def test_right(ascii_main, pki, tmp_path, client, transport, mechanism):
    # Without TLS only a listed old device may say its password.
    source = HOSTS.old if transport == "plain" and mechanism in ("PLAIN", "LOGIN") else fresh_source()
    mark = marker()
    status, said = CLIENTS[client](ascii_main, pki, tmp_path).send(
        transport, mechanism, "ascii-password", mark, source, "bob@corp.test")
    if transport != "plain" and mechanism is None:  # submission ports
        assert status != 0 and ("530" in said or "Authentication required" in said), said
        return
    assert status == 0, said
    got = ascii_main.delivered("bob", f"hello {mark}".encode())
    protocol = {("plain", False): "ESMTP", ("plain", True): "ESMTPA"}.get((transport, bool(mechanism)), "ESMTPSA")
    assert f"with {protocol} ".encode() in got.replace(b"\r\n\t", b" ").replace(b"\r\n ", b" "), got


@pytest.mark.parametrize("client, transport, mechanism",
                         [c for c in cases() if c.values[2] and c.values[1] == "starttls"])
def test_wrong_password(ascii_main, pki, tmp_path, client, transport, mechanism):
    mark = marker()
    status, said = CLIENTS[client](ascii_main, pki, tmp_path).send(
        transport, mechanism, "not-the-password", mark, fresh_source(), "bob@corp.test")
    assert status != 0 and ("535" in said or "uthentication failed" in said or "Login denied" in said), said
    assert not any(mark.encode() in m for m in ascii_main.maildir("bob"))


@pytest.mark.parametrize("client, mechanism", [("curl", "PLAIN"), ("swaks", "LOGIN"), ("msmtp", "SCRAM-SHA-256")])
def test_wrong_password_over_tls(ascii_main, pki, tmp_path, client, mechanism):
    status, said = CLIENTS[client](ascii_main, pki, tmp_path).send(
        "tls", mechanism, "not-the-password", marker(), fresh_source(), "bob@corp.test")
    assert status != 0, said


def test_password_is_not_said_in_clear(ascii_main, pki, tmp_path):
    """A host that is not listed is offered no PLAIN and LOGIN without TLS; swaks then refuses to go on."""
    status, said = Swaks(ascii_main, pki, tmp_path).send("plain", "PLAIN", "ascii-password", marker(), fresh_source(),
                                                         "bob@corp.test")
    assert status != 0 and "AUTH PLAIN" not in said, said


def test_curl_relays_for_a_user(ascii_main, pki, tmp_path, out_sink):
    mark = marker()
    status, said = Curl(ascii_main, pki, tmp_path).send("starttls", "PLAIN", "ascii-password", mark, fresh_source(),
                                                        "friend@out.test")
    assert status == 0, said
    mail = out_sink.get_for("friend@out.test")
    assert mark.encode() in mail.content and mail.recipients == ["friend@out.test"]
    assert mail.sender == "alice@corp.test" and mail.helo == "mail.corp.test"


def test_sendmail_by_swaks_pipelined(ascii_main, pki, tmp_path):
    mark = marker()
    done = subprocess.run(["swaks", "--server", ascii_main.address, "--port", "2525", "--pipeline", "--from", "x@y.test",
                           "--to", "alice@corp.test,bob@corp.test", "--header", f"Subject: {mark}", "--timeout", "40",
                           "--local-interface", fresh_source()],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    for user in ("alice", "bob"):
        ascii_main.delivered(user, mark.encode())
