"""TLS: versions, kinds of keys, names between virtual servers on one address, resumption, the seams of STARTTLS."""
import re
import socket
import ssl
import subprocess
import time

import pytest

from daemon import Postern, domain, fresh_source, server
from wire import Closed, Wire, client_context

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("name, key", [("mail.corp.test", "P-256"), ("partner.corp.test", "RSA")])
@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
def test_version_key_and_name(main, pki, name, key, version, implicit):
    context = client_context(pki.ca.certificate, version)
    if implicit:
        wire = main.connect(2465, tls=context, sni=name)
    else:
        wire = main.connect(2525)
        wire.ehlo()
        wire.starttls(context, sni=name)
    with wire:
        assert wire.sock.version() == {V12: "TLSv1.2", V13: "TLSv1.3"}[version]
        cipher = wire.sock.cipher()[0]
        if version == V12:
            assert ("ECDSA" if key == "P-256" else "RSA") in cipher
            assert "ECDHE" in cipher  # forward secrecy; no RSA key exchange
        reply = wire.cmd("EHLO client.test", 250)
        assert reply.lines[0].split(" ")[0] == name, "the name that the client asked for decides who we are"
        assert not any(line.startswith("STARTTLS") for line in reply.lines)


def test_unknown_name_gets_the_first_server(main, pki):
    context = client_context()
    with main.connect(2525) as wire:
        wire.ehlo()
        wire.starttls(context, sni="nobody.test")
        assert wire.cmd("EHLO c.test", 250).lines[0].split(" ")[0] == "mail.corp.test"


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(main, version):
    done = subprocess.run(["openssl", "s_client", version, "-cipher", "ALL:@SECLEVEL=0", "-connect",
                           f"{main.address}:2465"], input="", capture_output=True, text=True, timeout=30)
    assert "Cipher is (NONE)" in done.stdout or done.returncode != 0
    assert "protocol version" in done.stderr + done.stdout or "alert" in done.stderr + done.stdout, done.stderr
    with main.connect() as wire:  # and nobody fell over
        wire.ehlo()


def test_no_rsa_key_exchange(main):
    done = subprocess.run(["openssl", "s_client", "-tls1_2", "-cipher", "kRSA:@SECLEVEL=0", "-servername",
                           "partner.corp.test", "-connect", f"{main.address}:2465"],
                          input="", capture_output=True, text=True, timeout=30)
    assert "Cipher is (NONE)" in done.stdout, done.stdout


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("name", ["mail.corp.test", "partner.corp.test"])
def test_resumption_across_processes(main, pki, tmp_path, version, name):
    """A ticket of one smtpd is good for the others: of several connections, spread by the kernel, each resumes."""
    ticket = tmp_path / "session"
    argv = ["openssl", "s_client", version, "-connect", f"{main.address}:2465", "-servername", name,
            "-CAfile", str(pki.ca.certificate), "-ign_eof", "-crlf"]
    first = subprocess.run([*argv, "-sess_out", str(ticket)], input="QUIT\n", capture_output=True, text=True, timeout=30)
    assert ticket.exists(), first.stdout
    for _ in range(6):
        again = subprocess.run([*argv, "-sess_in", str(ticket)], input="QUIT\n", capture_output=True, text=True,
                               timeout=30)
        assert re.search(r"^Reused,", again.stdout, re.M), again.stdout


def test_ticket_of_another_server_is_not_taken(main, pki, tmp_path):
    ticket = tmp_path / "session"
    base = ["openssl", "s_client", "-connect", f"{main.address}:2465", "-CAfile", str(pki.ca.certificate), "-ign_eof", "-crlf"]
    subprocess.run([*base, "-servername", "mail.corp.test", "-sess_out", str(ticket)], input="QUIT\n",
                   capture_output=True, text=True, timeout=30)
    again = subprocess.run([*base, "-servername", "partner.corp.test", "-sess_in", str(ticket)], input="QUIT\n",
                           capture_output=True, text=True, timeout=30)
    assert re.search(r"^New,", again.stdout, re.M), again.stdout
    assert "CN = partner.corp.test" in again.stdout


def test_certificate_verifies(main, pki):
    done = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-connect", f"{main.address}:2525", "-servername",
                           "mail.corp.test", "-verify_return_error", "-verify_hostname", "mail.corp.test", "-CAfile",
                           str(pki.ca.certificate)], input="QUIT\n", capture_output=True, text=True, timeout=30)
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"EHLO evil\r\n", b"MAIL FROM:<a@b.test>\r\n", b"\r\n", b"N"],
                         ids=["noop", "ehlo", "mail", "empty", "partial"])
def test_injection_behind_starttls(main, behind):
    """Nothing sent before the handshake is read after it: octets in the same packet end the session."""
    with main.connect(source=fresh_source()) as wire:
        wire.ehlo()
        wire.send(b"STARTTLS\r\n" + behind)
        first = wire.reply()
        if first.code == 220:  # the octets came as a packet of their own: they can only be a broken handshake
            with pytest.raises((ssl.SSLError, ConnectionError, OSError)):
                client_context().wrap_socket(wire.sock)
        else:
            assert first.code // 100 in (4, 5), first
            assert wire.closed()


def test_starttls_forgets_what_was_said(main):
    with main.connect() as wire:
        wire.ehlo()
        wire.starttls(client_context(), sni="mail.corp.test")
        wire.cmd("MAIL FROM:<a@b.test>", 503)
        assert "STARTTLS" not in wire.ehlo()
        wire.cmd("STARTTLS", 503)


def test_starttls_rules(main):
    with main.connect() as wire:
        assert "STARTTLS" in wire.ehlo()
        wire.cmd("STARTTLS now", 501)
        wire.cmd("MAIL FROM:<a@b.test>", 250)
        wire.cmd("STARTTLS", 503)
        wire.cmd("RSET", 250)
        wire.starttls(client_context())
        wire.ehlo()


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00", b"\x80\x2e\x01\x00\x02", b"\x00" * 300,
                                    b"\xff" * 20000, b"EHLO x\r\n"], ids=["http", "short", "sslv2", "zeros", "ones", "smtp"])
def test_garbage_instead_of_a_handshake(main, octets):
    with socket.create_connection((main.address, 2465), 20) as sock:
        sock.sendall(octets)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(20)
        try:
            while sock.recv(4096):
                pass
        except ConnectionError:
            pass
    with main.connect(2465, tls=client_context()) as wire:
        wire.ehlo()


def test_handshake_that_stops_halfway_blocks_nobody(main):
    stuck = []
    try:
        for _ in range(30):
            sock = socket.create_connection((main.address, 2465), 20)
            sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            stuck.append(sock)
        with main.connect(2465, tls=client_context()) as wire:  # those that are stuck have minutes; the wire waits less
            wire.ehlo()
    finally:
        for sock in stuck:
            sock.close()


def test_smtps_client_on_the_smtp_port(main):
    with Wire((main.address, 2525)) as wire:
        wire.send(bytes.fromhex("1603010200010001fc0303") + b"\0" * 505)
        reply = wire.reply()
        assert reply.code in (500, 554, 421, 502), reply
    with main.connect() as wire:
        wire.ehlo()


def test_chain_and_key_in_one_file(pki):
    """certificate = a file that also holds the key; a chain is sent whole."""
    text = server("one.test", listen=["{address}:2525"], certificate="{dir}/both.pem") + domain("one.test", deliver="discard")
    p = Postern(text, start=False)
    certificate, key = pki.ca.issue("one.test")
    both = p.dir / "both.pem"
    both.write_text(certificate.read_text() + pki.ca.certificate.read_text() + key.read_text())
    both.chmod(0o600)
    with p:
        p.start()
        done = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-showcerts", "-connect", f"{p.address}:2525"],
                              input="QUIT\n", capture_output=True, text=True, timeout=30)
        assert done.stdout.count("BEGIN CERTIFICATE") == 2, done.stdout


def test_keys_process_dies_and_service_comes_back(pki):
    text = server("mail.corp.test", listen=["{address}:2525"], certificate=pki.mail[0], key=pki.mail[1]) + \
        domain("corp.test", deliver="discard")
    with Postern(text) as p:
        for _ in range(2):
            p.kill_role("keys")
            end = time.monotonic() + 60
            while True:  # until the new one serves, STARTTLS is answered with 454, never with a hang
                with p.connect() as wire:
                    wire.ehlo()
                    reply = wire.cmd("STARTTLS")
                    if reply.code == 220:
                        try:
                            wire.sock = client_context().wrap_socket(wire.sock)
                            wire.ehlo()
                            break
                        except (ssl.SSLError, OSError, Closed):
                            pass
                    else:
                        assert (reply.code, reply.enhanced) == (454, "4.7.0"), reply
                assert time.monotonic() < end, "no TLS 60 s after keys died"
