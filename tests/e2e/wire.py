"""A raw SMTP client: it sends exactly the octets that a test gives it, and reads replies strictly."""
import base64
import re
import socket
import ssl
import time

DEADLINE_S = 60.0  # only a failing test waits that long


class Reply:
    """One whole reply, however many lines it had."""

    def __init__(self, code, lines):
        self.code, self.lines = code, lines

    @property
    def text(self):
        return "\n".join(self.lines)

    @property
    def enhanced(self):
        found = re.match(r"[245]\.\d{1,3}\.\d{1,3}(?= |$)", self.lines[-1])
        return found.group(0) if found else None

    @property
    def queue_id(self):
        found = re.search(r"\b([0-9A-F]{10,20})\b", self.text)
        return found.group(1) if found else None

    def __repr__(self):
        return f"{self.code} {self.text!r}"


class Closed(Exception):
    """The peer closed the connection where a reply was due."""


class Wire:
    def __init__(self, address, source=None, tls=None, greeting=220, sni=None):
        self.until = None
        self.pending = b""
        self.sock = socket.create_connection(address, DEADLINE_S, (source, 0) if source else None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname=sni)
        self.greeting = self.reply() if greeting else None
        if greeting:
            assert self.greeting.code == greeting, self.greeting

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, octets):
        self.sock.sendall(octets)

    def send_split(self, octets):
        """Every octet in a packet of its own."""
        for i in range(len(octets)):
            self.sock.sendall(octets[i:i + 1])

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def _line(self, timeout):
        until = time.monotonic() + timeout
        while b"\r\n" not in self.pending:
            self.sock.settimeout(max(0.001, until - time.monotonic()))
            got = self.sock.recv(65536)
            if not got:
                raise Closed(self.pending)
            self.pending += got
        line, self.pending = self.pending.split(b"\r\n", 1)
        assert b"\n" not in line and b"\r" not in line, f"a reply line with a bare CR or LF: {line!r}"
        return line.decode("utf-8")

    def reply(self, timeout=DEADLINE_S):
        lines = []
        while True:
            line = self._line(timeout)
            assert re.match(r"[2-5][0-9]{2}[ -]|[2-5][0-9]{2}$", line), f"not a reply line: {line!r}"
            assert not lines or line[:3] == code, f"a reply with two codes: {line!r}"
            code = line[:3]
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(code), lines)

    def cmd(self, line, code=None, enhanced=None):
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        reply = self.reply()
        if code is not None:
            assert reply.code == code, f"{line!r} -> {reply}"
        if enhanced is not None:
            assert reply.enhanced == enhanced, f"{line!r} -> {reply}"
        return reply

    def ehlo(self, name="client.test"):
        reply = self.cmd(f"EHLO {name}", 250)
        return {line.split(" ")[0].upper(): line.split(" ")[1:] for line in reply.lines[1:]}

    def starttls(self, context, sni=None):
        self.cmd("STARTTLS", 220)
        assert self.pending == b"", "octets in clear behind the 220 of STARTTLS"
        self.sock = context.wrap_socket(self.sock, server_hostname=sni)
        return self

    def closed(self, timeout=DEADLINE_S):
        """True when nothing more comes and the peer closes."""
        self.sock.settimeout(timeout)
        try:
            rest = self.pending + self.sock.recv(65536)
        except (ConnectionResetError, ssl.SSLError):
            rest = self.pending
        assert rest == b"", f"octets where the end was due: {rest!r}"
        return True

    def auth_plain(self, user, password, authzid="", code=None):
        token = base64.b64encode(f"{authzid}\0{user}\0{password}".encode()).decode()
        return self.cmd(f"AUTH PLAIN {token}", code)

    def envelope(self, sender, *recipients, params=""):
        self.cmd(f"MAIL FROM:<{sender}>{params}", 250)
        for recipient in recipients:
            self.cmd(f"RCPT TO:<{recipient}>", 250)

    def message(self, sender, recipient, content=b"Subject: t\r\n\r\nhello\r\n", params=""):
        """A whole transaction; the reply to the end of data."""
        self.envelope(sender, recipient, params=params)
        self.cmd("DATA", 354)
        self.send(content + b".\r\n")
        return self.reply()


def b64(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def client_context(ca=None, version=None):
    """What a client brings: trusts `ca`, or looks at nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca:
        context.load_verify_locations(str(ca))
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    return context
