"""Relaying: routes, TLS levels, outbound AUTH, MX and the DNS's bad days, next hops that misbehave."""
import re

import pytest

from daemon import Postern, domain, free_address, fresh_source, host, server, until
from peers import DnsServer, SilentPort, Sink, server_context

SHORT = 'retry_min = "1s"\nretry_max = "2s"\n'
IMPATIENT = 'connect_timeout = "3s"\nreply_timeout = "3s"\n'  # only where a hop hangs
RELAY_HOST = host("127.0.0.0/8", relay=True)


class Net:
    """A relay, and the peers that its routes lead to."""

    def __init__(self, pki):
        self.pki = pki
        good, wrong, untrusted = (server_context(*pair) for pair in (pki.sink, pki.wrong_name, pki.untrusted))
        users = {"relay": "secret-9"}
        self.sinks = {
            "clear": Sink("127.4.0.1"), "good": Sink("127.4.0.2", context=good), "wrong": Sink("127.4.0.3", context=wrong),
            "stranger": Sink("127.4.0.4", context=untrusted),
            "plain": Sink("127.4.0.5", context=good, mechanisms="PLAIN LOGIN", users=users),
            "login": Sink("127.4.0.6", context=good, mechanisms="LOGIN", users=users),
            "noauth": Sink("127.4.0.7", context=good), "clearauth": Sink("127.4.0.8", mechanisms="PLAIN LOGIN", users=users),
            "ascii": Sink("127.4.0.9", extensions=("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN")),
            "old": Sink("127.4.0.10", extensions=()), "chunking": Sink("127.4.0.11", extensions=(
                "PIPELINING", "8BITMIME", "CHUNKING", "ENHANCEDSTATUSCODES")),
        }
        self.sinks["old"].keep = False
        # Next hops by name: verify compares the name.
        here = [self.sinks["good"].address]
        self.zone = {("sink.test", "A"): here, ("smtp.partner.test", "A"): here}
        self.dns = DnsServer("127.4.0.200", self.zone)

    def close(self):
        for sink in self.sinks.values():
            sink.close()
        self.dns.close()


@pytest.fixture(scope="module")
def net(pki):
    n = Net(pki)
    yield n
    n.close()


def relay_text(pki, net, domains, top=""):
    return SHORT + f'resolver = {{"{net.dns.resolver}"}}\nca_file = "{pki.ca.certificate}"\n' + top + server(
        "relay.test", RELAY_HOST, listen=["{address}:2525"]) + domain("ours.test", deliver="maildir:{dir}/mail/%u") + domains


@pytest.fixture(scope="module")
def impatient(pki, net):
    """A relay that waits seconds, not minutes, for a hop that hangs."""
    with Postern(relay_text(pki, net, domain("old.test", via=[net.sinks["old"].hop]), top=IMPATIENT)) as p:
        yield p


def level(name, sinkname, tls, net, hop=None):
    sink = net.sinks[sinkname]
    return domain(name, via=[hop or sink.hop], tls=tls)


@pytest.fixture(scope="module")
def relay(pki, net):
    s = net.sinks
    d = ""
    for tls in ("none", "opportunistic", "require", "verify"):
        for name in ("clear", "wrong", "stranger"):
            d += level(f"{name}-{tls}.test", name, tls, net)
        d += level(f"good-{tls}.test", "good", tls, net, f"sink.test:{s['good'].port}")
    d += domain("san.test", via=[f"smtp.partner.test:{s['good'].port}"], tls="verify")
    d += domain("ascii.test", via=[s["ascii"].hop]) + domain("old.test", via=[s["old"].hop])
    d += domain("chunking.test", via=[s["chunking"].hop])
    d += domain("second.test", via=["[127.4.0.99]:2599", s["clear"].hop], tls="none")
    with Postern(relay_text(pki, net, d)) as p:
        yield p


def relayed(p, net, sink, to, content=b"Subject: r\r\n\r\nx\r\n", sender="a@b.test", **kw):
    queue_id = p.deliver(sender, to, content, source=fresh_source(), **kw)
    line = p.sent(queue_id, to)
    return until(lambda: (m := net.sinks[sink].get()) and to in m.recipients and m, f"{to} at {sink}"), line


LEVELS = [  # next hop, level, does it go out, under TLS?
    ("clear", "none", True, False), ("clear", "opportunistic", True, False), ("clear", "require", False, None),
    ("clear", "verify", False, None),
    ("good", "none", True, False), ("good", "opportunistic", True, True), ("good", "require", True, True),
    ("good", "verify", True, True),
    ("wrong", "none", True, False), ("wrong", "opportunistic", True, True), ("wrong", "require", True, True),
    ("wrong", "verify", False, None),
    ("stranger", "opportunistic", True, True), ("stranger", "require", True, True), ("stranger", "verify", False, None),
]


@pytest.mark.parametrize("name, tls, goes, encrypted", LEVELS)
def test_tls_levels(relay, net, name, tls, goes, encrypted):
    to = f"x@{name}-{tls}.test"
    if goes:
        mail, line = relayed(relay, net, name, to)
        assert bool(mail.tls) == encrypted
        assert ("TLSv1" in line) == encrypted, f"what TLS it really had is in the line: {line}"
        if tls == "verify":
            assert "verified" in line.lower(), line
        assert mail.helo == "relay.test" and mail.sender == "a@b.test"
    else:
        before = net.sinks[name].mails.qsize()
        queue_id = relay.deliver("a@b.test", to, source=fresh_source())
        line = relay.sent(queue_id, to, "deferred")
        assert re.search(r"dsn=4\.7\.\d", line), line
        assert net.sinks[name].mails.qsize() == before, "nothing went out"
        relay.forget(queue_id)


def test_verify_by_alternative_name(relay, net):
    relayed(relay, net, "good", "x@san.test")


def test_next_hop_list(relay, net):
    """The first is not there: the second is tried at once."""
    _, line = relayed(relay, net, "clear", "x@second.test")
    assert net.sinks["clear"].address in line


def test_relay_line(relay, net):
    _, line = relayed(relay, net, "clear", "line@clear-none.test")
    sink = net.sinks["clear"]
    assert re.search(rf"relay=\S*\[{re.escape(sink.address)}\]:{sink.port}, delay=[\d.]+, delays=[\d.]+/[\d.]+/[\d.]+/[\d.]+, "
                     r"dsn=2\.0\.0, status=sent \(250 2\.0\.0 taken.*\)", line), line


def test_old_hop_without_ehlo_words(relay, net):
    mail, _ = relayed(relay, net, "old", "x@old.test")
    assert mail.params == "", "nothing that the hop does not know"


def test_hop_that_knows_only_helo(relay, net):
    sink = net.sinks["old"]
    sink.answer = lambda session, verb, line: "500 what" if verb == "EHLO" else setattr(session, "helo", line) \
        if verb == "HELO" else None
    try:
        relayed(relay, net, "old", "helo@old.test")
    finally:
        sink.answer = lambda *_: None


def test_chunking_hop(relay, net):
    big = b"Subject: chunky\r\n\r\n" + b".\r\n" * 100_000
    mail, _ = relayed(relay, net, "chunking", "x@chunking.test", None)
    with relay.connect(source=fresh_source()) as w:
        w.ehlo()
        w.envelope("a@b.test", "big@chunking.test")
        w.send(b"BDAT %d LAST\r\n" % len(big) + big)
        assert w.reply().code == 250
    mail = net.sinks["chunking"].get()
    assert mail.content.endswith(b"Subject: chunky\r\n\r\n" + b".\r\n" * 100_000)


def test_smtputf8(relay, net):
    """To a hop that has it, it goes; to one without, it bounces 5.6.7; plain mail of the same session is not touched."""
    mail, _ = relayed(relay, net, "clear", "jörg@clear-none.test", params=" SMTPUTF8")
    assert "SMTPUTF8" in mail.params.upper()
    queue_id = relay.deliver("sender@ours.test", "jörg@ascii.test", b"Subject: u8\r\n\r\nx\r\n", params=" SMTPUTF8",
                             source=fresh_source())
    line = relay.sent(queue_id, "jörg@ascii.test", "bounced")
    assert "dsn=5.6.7" in line, line
    relay.delivered("sender", b"5.6.7")
    mail, _ = relayed(relay, net, "ascii", "plain@ascii.test", sender="sender@ours.test", params=" SMTPUTF8")
    assert "SMTPUTF8" not in mail.params.upper(), "it was announced, but nothing in it needs it"


def test_dsn_parameters_are_passed_on(relay, net):
    with relay.connect(source=fresh_source()) as w:
        w.ehlo()
        w.cmd("MAIL FROM:<a@b.test> RET=HDRS ENVID=q+2B1", 250)
        w.cmd("RCPT TO:<dsn@clear-none.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;orig+40x.test", 250)
        w.cmd("DATA", 354)
        w.send(b"Subject: d\r\n\r\nx\r\n.\r\n")
        assert w.reply().code == 250
    mail = until(lambda: (m := net.sinks["clear"].get()) and "dsn@clear-none.test" in m.recipients and m, "it")
    assert "RET=HDRS" in mail.params and "ENVID=q+2B1" in mail.params
    [params] = mail.recipient_params
    assert re.search(r"ORCPT=rfc822;orig(@|\+40)x\.test", params) and "NOTIFY=" in params and "SUCCESS" in params and "FAILURE" not in params


def test_connection_is_used_again(relay, net):
    sink = net.sinks["clear"]
    before = len(sink.sessions)
    with relay.connect(source=fresh_source()) as w:
        w.ehlo()
        for i in range(60):
            assert w.message("a@b.test", f"reuse{i}@clear-none.test").code == 250
    got = set()
    until(lambda: got.add(sink.get().recipients[0]) or len([g for g in got if g.startswith("reuse")]) == 60, "60 messages", 60)
    assert len(sink.sessions) - before <= 25, "20 connections at most, not one a message"


def test_five_hundred_recipients(relay, net):
    with relay.connect(source=fresh_source()) as w:
        w.ehlo()
        w.cmd("MAIL FROM:<a@b.test>", 250)
        w.send(b"".join(b"RCPT TO:<many%d@clear-none.test>\r\n" % i for i in range(500)))
        assert {w.reply().code for _ in range(500)} == {250}
        w.cmd("DATA", 354)
        w.send(b"Subject: 500\r\n\r\nx\r\n.\r\n")
        queue_id = w.reply().queue_id
    relay.removed(queue_id)
    seen = set()
    until(lambda: seen.update(r for r in net.sinks["clear"].get().recipients if r.startswith("many")) or len(seen) == 500,
          "all 500")


# refusals by the next hop

@pytest.mark.parametrize("stage, reply, fate", [
    ("MAIL", "550 5.7.1 not from you", "bounced"), ("MAIL", "451 4.3.0 later", "deferred"), ("RCPT", "550 5.1.1 unknown", "bounced"),
    ("RCPT", "450 4.2.1 busy", "deferred"), ("DATA", "554 5.3.0 no", "bounced"), ("DATA", "421 4.3.2 closing", "deferred"),
    ("FINAL", "554 5.6.0 spam", "bounced"), ("FINAL", "452 4.3.1 full", "deferred"), ("EHLO", "554 5.3.2 no", None),
    ("RCPT", "599 strange", "bounced"), ("RCPT", "550 no enhanced code", "bounced")])
def test_refusals(relay, net, stage, reply, fate):
    sink = net.sinks["old"]
    sink.drop()  # no connection of before is used again
    if stage == "FINAL":
        sink.final = lambda session, mail: [reply]
    else:
        sink.answer = lambda session, verb, line: reply if verb == stage or (stage == "EHLO" and verb == "HELO") else None
    try:
        queue_id = relay.deliver("sender@ours.test", "r@old.test", source=fresh_source())
        line = relay.sent(queue_id, "r@old.test", fate or "(deferred|bounced)")
        assert reply in line, line
        wanted = re.match(r"\d{3} ([45]\.\d\.\d)", reply)
        assert stage == "EHLO" or f"dsn={wanted.group(1) if wanted else reply[0]}" in line, line
    finally:
        sink.answer, sink.final = lambda *_: None, sink.accept_all
    if fate == "deferred":
        relay.sent(queue_id, "r@old.test")  # and later it goes
        relay.removed(queue_id)


@pytest.mark.parametrize("stage", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "body", "FINAL"])
@pytest.mark.parametrize("how", ["closes", "hangs", "garbage"])
def test_misbehaviour(impatient, net, stage, how):
    """Whatever the next hop does at whatever moment: the message is deferred, kept, and sent when the hop is well."""
    import threading
    release = threading.Event()
    sink = net.sinks["old"]
    assert not sink.keep, "an open connection would be used again, and nothing would misbehave"
    sink.drop()  # those that a refusal left open, too

    def misbehave(session):
        if how == "hangs":
            release.wait(120)
        elif how == "garbage":
            session.wfile.write(b"\x00\xff garbage \r\r\n" + b"z" * 9000)
            session.wfile.flush()
        return False

    def answer(session, verb, line):
        if verb == stage:
            return misbehave(session)
        if stage == "body" and verb == "DATA":
            session.say("354 go")
            session.rfile.readline()
            return misbehave(session)

    if stage == "greeting":
        class Greeting(str):
            def encode(self, *a):
                if how == "hangs":
                    release.wait(120)
                if how == "garbage":
                    return b"\x00\xffgarbage"
                raise OSError
        sink.greeting = Greeting("x")
    elif stage == "FINAL":
        sink.final = lambda session, mail: misbehave(session) or []
    sink.answer = answer
    try:
        queue_id = impatient.deliver("sender@ours.test", f"m-{stage.lower()}-{how}@old.test",
                                     b"Subject: x\r\n\r\n" + b"y\r\n" * 50, source=fresh_source())
        impatient.sent(queue_id, status="deferred")
    finally:
        release.set()
        sink.greeting, sink.answer, sink.final = "220 sink.test ESMTP", lambda *_: None, sink.accept_all
    impatient.sent(queue_id)


# outbound AUTH

@pytest.fixture(scope="module")
def hop(pki):
    """A second posternd that takes mail of authenticated clients only."""
    text = "auth_failure_limit = 0\n" + server(
        "sink.test", listen=["{address}:2525"], certificate=pki.sink[0], key=pki.sink[1], accept="auth+tls",
        mechanisms=["SCRAM-SHA-256"]) + domain("far.test", deliver="maildir:{dir}/mail/%u")
    with Postern(text, users={"relay": "secret-9"}) as p:
        yield p


@pytest.fixture(scope="module")
def authed(pki, net, hop):
    net.zone["hop.partner.test", "A"] = [hop.address]
    s = net.sinks
    d = ""
    for name, mechanism, sink in (("plain", "PLAIN", "plain"), ("login", "LOGIN", "login"), ("missing", "PLAIN", "noauth")):
        d += domain(f"{name}.test", via=[s[sink].hop], tls="require", auth=mechanism,
                    user="relay", password_file="{dir}/good.pw")
    d += domain("wrong.test", via=[s["plain"].hop], tls="require", auth="PLAIN", user="relay", password_file="{dir}/bad.pw")
    for name, pw in (("scram", "good"), ("scramwrong", "bad")):
        d += domain(f"{name}.far.test", via=[f"[{hop.address}]:2525"], tls="require", auth="SCRAM-SHA-256", user="relay",
                    password_file="{dir}/" + pw + ".pw")
    d += domain("far.test", via=["hop.partner.test:2525"], tls="verify", auth="SCRAM-SHA-256", user="relay",
                password_file="{dir}/good.pw")
    p = Postern(relay_text(pki, net, d), start=False)
    for name, word in (("good", "secret-9"), ("bad", "wrong-8")):
        (p.dir / f"{name}.pw").write_text(word + "\n")
        (p.dir / f"{name}.pw").chmod(0o600)
    p.start()
    with p:
        yield p


@pytest.mark.parametrize("name", ["plain", "login"])
def test_outbound_auth(authed, net, name):
    queue_id = authed.deliver("a@b.test", f"x@{name}.test", source=fresh_source())
    line = authed.sent(queue_id)
    mail = net.sinks[name].get()
    assert mail.user == "relay" and mail.tls
    assert name.upper() in line, f"what AUTH it really had is in the line: {line}"


def test_outbound_scram(authed, hop):
    queue_id = authed.deliver("a@b.test", "dora@far.test", b"Subject: scrammed\r\n\r\nx\r\n", source=fresh_source())
    line = authed.sent(queue_id)
    assert "SCRAM-SHA-256" in line and "verified" in line.lower(), line
    assert b"with ESMTPSA" in hop.delivered("dora", b"scrammed").replace(b"\r\n\t", b" ").replace(b"\r\n ", b" ")


@pytest.mark.parametrize("name, sink", [("wrong", "plain"), ("missing", "noauth")])
def test_without_login_nothing_goes(authed, net, name, sink):
    """A wrong password, or a hop that offers no AUTH: deferred, never sent unauthenticated."""
    before = net.sinks[sink].mails.qsize()
    queue_id = authed.deliver("a@b.test", f"x@{name}.test", source=fresh_source())
    line = authed.sent(queue_id, status="deferred")
    assert re.search(r"dsn=4\.7\.\d", line), line
    assert net.sinks[sink].mails.qsize() == before
    if name == "missing":
        assert "MAIL" not in net.sinks[sink].verbs()
    assert "wrong-8" not in "\n".join(authed.log.lines)


def test_wrong_scram_password_defers(authed, hop):
    queue_id = authed.deliver("a@b.test", "x@scramwrong.far.test", source=fresh_source())
    assert re.search(r"dsn=4\.7\.\d", authed.sent(queue_id, status="deferred"))


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
def test_password_is_not_said_in_clear(authed, net, tls):
    """PLAIN on a route without sure TLS: a mistake in the configuration, or a delivery that waits; never in clear."""
    before = authed.config.read_text()
    route = domain("clear.test", via=[net.sinks["clearauth"].hop], tls=tls, auth="PLAIN", user="relay",
                   password_file="{dir}/good.pw")
    authed.config.write_text(before + route.replace("{dir}", str(authed.dir)))
    done = authed.reload()
    if done.returncode == 0:
        authed.sent(authed.deliver("a@b.test", "x@clear.test", source=fresh_source()), status="deferred")
    else:
        assert done.returncode == 78 and "clear text" in done.stdout + done.stderr
    assert not any(c.upper().startswith("AUTH ") for c in net.sinks["clearauth"].commands)
    authed.config.write_text(before)
    assert authed.reload().returncode == 0


# MX

@pytest.fixture(scope="module")
def mx(pki):
    address, second, port = "127.5.0.1", "127.5.0.2", None
    one = Sink(address)
    port = one.port
    two = Sink(second, port)
    silent = SilentPort("127.5.0.3")
    zone = {
        ("one.test", "MX"): ["10 mx1.one.test."], ("mx1.one.test", "A"): [address],
        ("pref.test", "MX"): ["20 mx1.one.test.", "10 mx2.pref.test."], ("mx2.pref.test", "A"): [second],
        ("fall.test", "MX"): ["10 dead.test.", "20 mx1.one.test."], ("dead.test", "A"): ["127.5.0.77"],
        ("null.test", "MX"): ["0 ."], ("implicit.test", "A"): [address], ("nothing.test", "TXT"): ['"x"'],
        ("servfail.test", "MX"): "SERVFAIL", ("timeout.test", "MX"): None,
        ("badmx.test", "MX"): ["10 no-such-host.test."], ("six.test", "MX"): ["10 mx6.test."], ("mx6.test", "AAAA"): ["::1"],
        ("alias.test", "CNAME"): ["one.test."], ("xn--bcher-kva.test", "MX"): ["10 mx1.one.test."],
        ("self.test", "MX"): ["10 localhost-name.test."], ("localhost-name.test", "A"): ["127.5.0.77"],
    }
    dns = DnsServer("127.5.0.200", zone)
    text = SHORT + 'connect_timeout = "10s"\n' + f'resolver = {{"{dns.resolver}"}}\n' + server("relay.test", RELAY_HOST, listen=["{address}:2525"]) + \
        domain("ours.test", deliver="maildir:{dir}/mail/%u") + domain("*", via=[f"mx:{port}"], tls="opportunistic")
    with Postern(text) as p:
        p.one, p.two, p.dns = one, two, dns
        yield p
    for thing in (one, two, silent, dns):
        thing.close()


@pytest.mark.parametrize("name, sink", [("one.test", "one"), ("pref.test", "two"), ("fall.test", "one"), ("implicit.test", "one"),
                                        ("ONE.test", "one")])
def test_mx(mx, name, sink):
    queue_id = mx.deliver("a@b.test", f"x@{name}", source=fresh_source())
    line = mx.sent(queue_id)
    mail = getattr(mx, sink).get()
    assert mail.recipients == [f"x@{name}"] or mail.recipients == [f"x@{name.lower()}"]
    if name == "one.test":
        assert f"relay=mx1.one.test[{mx.one.address}]:{mx.one.port}" in line, line


def test_mx_of_a_name_in_utf8(mx):
    """The DNS knows bücher.test as xn--bcher-kva.test; the address stays as it was."""
    queue_id = mx.deliver("a@b.test", "jörg@bücher.test", params=" SMTPUTF8", source=fresh_source())
    mx.sent(queue_id, "jörg@bücher.test")
    assert mx.one.get().recipients == ["jörg@bücher.test"]
    assert ("xn--bcher-kva.test", "MX") in mx.dns.asked
    queue_id = mx.deliver("sender@ours.test", "x@büch\u2028er.test", params=" SMTPUTF8", source=fresh_source())
    assert "dsn=5.1.2" in mx.sent(queue_id, status="bounced"), "what IDNA forbids is never asked for"


@pytest.mark.parametrize("stage", ["greeting", "EHLO", "MAIL"])
def test_next_mx_when_the_first_takes_nothing_now(mx, stage):
    """RFC 5321 section 5.1: 4xx before there is a transaction: the next exchanger is asked at once."""
    reply = "451 4.3.2 not now"
    if stage == "greeting":
        mx.two.greeting = "421 4.3.2 not now"
    else:
        mx.two.answer = lambda session, verb, line: reply if verb == stage else None
    mx.two.keep = False
    mx.two.drop()
    try:
        before = mx.two.mails.qsize()
        queue_id = mx.deliver("a@b.test", f"next-{stage.lower()}@pref.test", source=fresh_source())
        line = mx.sent(queue_id)
        assert mx.one.address in line and not mx.log.find(rf"{queue_id}: to=.*deferred"), line
        assert mx.one.get_for(f"next-{stage.lower()}@pref.test") and mx.two.mails.qsize() == before
    finally:
        mx.two.greeting, mx.two.answer, mx.two.keep = "220 sink.test ESMTP", lambda *_: None, True


@pytest.mark.parametrize("name, fate, dsn", [
    ("null.test", "bounced", r"5\.1\.10"), ("no-such-domain.test", "bounced", r"5\.1\.2|5\.4\.4"),
    ("nothing.test", "bounced", r"5\.\d\.\d"), ("servfail.test", "deferred", r"4\.\d\.\d"),
    ("timeout.test", "deferred", r"4\.\d\.\d"), ("badmx.test", "(?:bounced|deferred)", r"[45]\.\d\.\d")])
def test_dns_trouble(mx, name, fate, dsn):
    queue_id = mx.deliver("sender@ours.test", f"x@{name}", source=fresh_source())
    line = mx.sent(queue_id, status=fate, timeout=60)
    assert re.search(rf"dsn=({dsn}),", line), line
    if "bounced" in line:
        mx.removed(queue_id)
        mx.delivered("sender", f"x@{name}".encode())


def test_dead_dns(pki):
    """No DNS server at all: deferred, and mail to our own domains still flows."""
    dead = free_address()
    text = SHORT + 'connect_timeout = "10s"\n' + f'resolver = {{"{dead}:5353"}}\n' + server("relay.test", RELAY_HOST, listen=["{address}:2525"]) + \
        domain("ours.test", deliver="maildir:{dir}/mail/%u") + domain("*", via=["mx:2526"])
    with Postern(text) as p:
        away = p.deliver("a@b.test", "x@away.test")
        p.sent(p.deliver("a@b.test", "me@ours.test"))
        assert "dsn=4." in p.sent(away, status="deferred", timeout=60)


def test_unreachable_is_retried_with_backoff(pki):
    dead = free_address()
    text = SHORT + server("relay.test", RELAY_HOST, listen=["{address}:2525"]) + domain("*", via=[f"[{dead}]:2599"])
    with Postern(text) as p:
        queue_id = p.deliver("a@b.test", "x@y.test")
        p.log.wait(rf"{queue_id}: to=.*status=deferred", count=2)
        [row] = p.queue()
        assert row["queue_id"] == queue_id and row["attempts"] >= 2
        assert row["recipients"][0]["address"] == "x@y.test" and row["recipients"][0]["delay_reason"]
        with Sink(dead, 2599) as sink:
            assert sink.get().recipients == ["x@y.test"]
            p.removed(queue_id)


def test_retry_at_once(pki):
    """queue retry does not wait for the hour that is due."""
    dead = free_address()
    text = 'retry_min = "1h"\nretry_max = "1h"\n' + server("relay.test", RELAY_HOST, listen=["{address}:2525"]) + \
        domain("*", via=[f"[{dead}]:2599"])
    with Postern(text) as p:
        queue_id = p.deliver("a@b.test", "x@y.test")
        p.sent(queue_id, status="deferred")
        [row] = until(lambda: (rows := p.queue()) and rows[0]["queue_name"] == "deferred" and rows, "it waits")
        assert row["queue_id"] == queue_id
        with Sink(dead, 2599) as sink:
            p.cli("queue", "retry", queue_id)
            assert sink.get().recipients == ["x@y.test"]
            p.removed(queue_id)
        assert p.cli("queue", "list", "--json") == "", "an empty queue prints nothing"


def test_silent_hop_holds_nobody_up(pki, net):
    silent = SilentPort("127.4.0.50")
    d = domain("silent.test", via=[silent.hop]) + domain("fine.test", via=[net.sinks["clear"].hop], tls="none")
    with Postern(relay_text(pki, net, d, top='connect_timeout = "1h"\nreply_timeout = "1h"\n')) as p:
        for i in range(30):
            p.deliver("a@b.test", f"x{i}@silent.test", source=fresh_source())
        p.sent(p.deliver("a@b.test", "quick@fine.test", source=fresh_source()))
        assert not p.log.find(r"to=<x\d+@silent\.test>"), "they still wait"
        silent.close()


def test_source_address_and_name_of_the_route(pki, net):
    """server = "…" in a route: whose name goes into EHLO and whose address is the source."""
    other = free_address()
    text = SHORT + server("first.test", RELAY_HOST, listen=["{address}:2525"]) + server("second.test", listen=[f"{other}:2525"]) + \
        domain("as-second.test", via=[net.sinks["clear"].hop], tls="none", server="second.test")
    with Postern(text) as p:
        p.sent(p.deliver("a@b.test", "x@as-second.test", source=fresh_source()))
        mail = until(lambda: (m := net.sinks["clear"].get()) and m.recipients == ["x@as-second.test"] and m, "it")
        assert (mail.helo, mail.client) == ("second.test", other)
