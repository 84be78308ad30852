"""What stands around the daemon in a test: next hops that behave and misbehave, an LMTP server, a DNS server."""
import base64
import queue
import socket
import socketserver
import ssl
import threading

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

DEADLINE_S = 60.0


class Mail:
    def __init__(self, **fields):
        self.__dict__.update(fields)


class _Session(socketserver.StreamRequestHandler):
    """One connection to a Sink. `sink.answer(self, verb, line)` may return a reply of its own for any command."""
    timeout = 60

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")
        self.wfile.flush()

    def line(self):
        got = self.rfile.readline(65536)
        return got[:-2].decode("utf-8", "surrogateescape") if got.endswith(b"\r\n") else None

    def setup(self):
        self.tls = self.user = None
        self.reset()
        if self.server.sink.implicit_tls:
            self.request = self.server.sink.context.wrap_socket(self.request, server_side=True)
        super().setup()
        self.server.sink.sessions.append(self)

    def reset(self):
        self.sender, self.params, self.recipients, self.chunks = None, "", [], b""

    def handle(self):
        try:
            self.server.sink.connected.release()
            self.say(self.server.sink.greeting)
            while (line := self.line()) is not None:
                self.server.sink.commands.append(line)
                if self.command(line.split(" ")[0].upper(), line) is False:
                    return
        except (OSError, ssl.SSLError, ValueError):
            pass

    def command(self, verb, line):
        own = self.server.sink.answer(self, verb, line)
        if own is False:
            return False
        if own is not None:
            return self.say(own)
        return getattr(self, f"do_{verb.lower()}", self.unknown)(line)

    def unknown(self, line):
        self.say("502 5.5.1 not here")

    def do_ehlo(self, line):
        self.helo = line[5:]
        sink = self.server.sink
        words = list(sink.extensions)
        if sink.context and not self.tls and not sink.implicit_tls:
            words.append("STARTTLS")
        if sink.mechanisms:
            words.append("AUTH " + sink.mechanisms)
        rows = [sink.name, *words]
        for row in rows[:-1]:
            self.say("250-" + row)
        self.say("250 " + rows[-1])

    do_lhlo = do_ehlo

    def do_helo(self, line):
        self.say("250 sink.test")

    def do_starttls(self, line):
        self.say("220 2.0.0 go")
        self.request = self.server.sink.context.wrap_socket(self.request, server_side=True)
        self.tls = self.request.version()
        self.rfile = self.request.makefile("rb")
        self.wfile = self.request.makefile("wb")
        self.reset()

    def challenge(self, text):
        self.say("334 " + base64.b64encode(text.encode()).decode())
        return base64.b64decode(self.line() or "").decode()

    def do_auth(self, line):
        words = line.split(" ")
        if words[1].upper() == "PLAIN":
            token = words[2] if len(words) > 2 else None
            plain = base64.b64decode(token).decode() if token else self.challenge("")
            _, user, password = plain.split("\0")
        else:
            user = base64.b64decode(words[2]).decode() if len(words) > 2 else self.challenge("Username:")
            password = self.challenge("Password:")
        if self.server.sink.users.get(user) == password:
            self.user = user
            self.mechanism = words[1].upper()
            self.say("235 2.7.0 ok")
        else:
            self.say("535 5.7.8 no")

    def do_mail(self, line):
        self.sender, _, self.params = line[10:].lstrip("<").partition(">")
        self.say("250 2.1.0 ok")

    def do_rcpt(self, line):
        address, _, params = line[8:].lstrip("<").partition(">")
        self.recipients.append((address, params.strip()))
        self.say("250 2.1.5 ok")

    def do_data(self, line):
        self.say("354 go")
        content = b""
        while True:
            row = self.rfile.readline()
            if not row:
                return False
            if row == b".\r\n":
                break
            content += row[1:] if row.startswith(b".") else row
        return self.stored(content)

    def do_bdat(self, line):
        words = line.split(" ")
        self.chunks += self.rfile.read(int(words[1]))
        if len(words) > 2:
            return self.stored(self.chunks)
        self.say("250 2.0.0 more")

    def stored(self, content):
        sink = self.server.sink
        mail = Mail(sender=self.sender, params=self.params, recipients=[r for r, _ in self.recipients],
                    recipient_params=[p for _, p in self.recipients], content=content, tls=self.tls, user=self.user,
                    helo=self.helo, client=self.client_address[0])
        replies = sink.final(self, mail)
        sink.mails.put(mail)
        for reply in replies:
            self.say(reply)
        self.reset()
        return None if sink.keep else False

    def do_rset(self, line):
        self.reset()
        self.say("250 2.0.0 ok")

    def do_noop(self, line):
        self.say("250 2.0.0 ok")

    def do_quit(self, line):
        self.say("221 2.0.0 bye")
        return False


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


class Sink:
    """A next hop. Everything that a test may want to be different is an attribute or an argument."""

    def __init__(self, address, port=0, context=None, implicit_tls=False, mechanisms=None, users=None, lmtp=False,
                 name="sink.test",
                 extensions=("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "SIZE 100000000")):
        self.context, self.implicit_tls, self.mechanisms, self.users = context, implicit_tls, mechanisms, users or {}
        self.extensions, self.lmtp, self.name = extensions, lmtp, name
        self.greeting = f"220 {name} ESMTP"
        self.keep = True  # connections stay open after a message
        self.mails, self.commands, self.sessions = queue.Queue(), [], []
        self.connected = threading.Semaphore(0)
        self.answer = lambda session, verb, line: None
        self.final = self.accept_all
        self.server = _Server((address, port), _Session)
        self.server.sink = self
        self.address, self.port = self.server.server_address
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def accept_all(self, session, mail):
        return ["250 2.0.0 taken"] * (len(mail.recipients) if self.lmtp else 1)

    @property
    def hop(self):
        return f"[{self.address}]:{self.port}"

    def get(self, timeout=DEADLINE_S):
        return self.mails.get(timeout=timeout)

    def get_for(self, recipient):
        """The next message to `recipient`; what earlier tests left is passed over."""
        while recipient not in (mail := self.get()).recipients:
            pass
        return mail

    def verbs(self):
        return [line.split(" ")[0].upper() for line in self.commands]

    def drop(self):
        """Ends every connection that is open."""
        for session in self.sessions:
            try:
                session.request.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.drop()
        self.server.shutdown()
        self.server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Recorder:
    """Passes octets between whoever connects and `target`, and keeps a copy: what a capture on the wire would show."""

    def __init__(self, address, target):
        self.target, self.octets, self.lock = target, bytearray(), threading.Lock()
        self.sock = socket.create_server((address, 0), backlog=16)
        self.address, self.port = self.sock.getsockname()
        self.hop = f"[{self.address}]:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near = self.sock.accept()[0]
            except OSError:
                return
            far = socket.create_connection(self.target, DEADLINE_S)
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, source, sink):
        try:
            while got := source.recv(65536):
                with self.lock:
                    self.octets += got
                sink.sendall(got)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class SilentPort:
    """Takes connections and says nothing."""

    def __init__(self, address):
        self.sock = socket.create_server((address, 0), backlog=64)
        self.address, self.port = self.sock.getsockname()
        self.hop = f"[{self.address}]:{self.port}"

    def close(self):
        self.sock.close()


def server_context(certificate, key, version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(certificate), str(key))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


class DnsServer:
    """Answers from `zone`: {("name", "MX"): ["10 host.", …]}; a name without any row is NXDOMAIN; None: no answer."""

    def __init__(self, address, zone):
        self.zone = zone
        self.asked = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                reply = outer.reply(self.request[0])
                if reply is not None:
                    self.request[1].sendto(reply, self.client_address)

        class TcpHandler(socketserver.StreamRequestHandler):
            timeout = 5

            def handle(self):
                length = int.from_bytes(self.rfile.read(2), "big")
                reply = outer.reply(self.rfile.read(length))
                if reply is not None:
                    self.wfile.write(len(reply).to_bytes(2, "big") + reply)

        class Udp(socketserver.ThreadingUDPServer):
            daemon_threads = True

        self.tcp = _Server((address, 0), TcpHandler)
        self.address, self.port = self.tcp.server_address
        self.udp = Udp((address, self.port), Handler)
        for server in (self.tcp, self.udp):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.resolver = f"{self.address}:{self.port}"

    def reply(self, octets):
        query = dns.message.from_wire(octets)
        question = query.question[0]
        name, kind = question.name.to_text().lower().rstrip("."), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.AA | dns.flags.RA
        rows = self.zone.get((name, kind), ())
        if rows is None:
            return None
        if rows == "SERVFAIL":
            reply.set_rcode(2)
        elif rows:
            reply.answer.append(dns.rrset.from_text(question.name, 5, "IN", kind, *rows))
        elif not any(known == name for known, _ in self.zone):
            reply.set_rcode(3)
        return reply.to_wire()

    def close(self):
        for server in (self.tcp, self.udp):
            server.shutdown()
            server.server_close()
