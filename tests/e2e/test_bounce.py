"""Bounces as RFC 3461 and 3464 want them, expiry, and who never gets one."""
import email
import email.policy

import pytest

from daemon import Postern, domain, free_address, fresh_source, host, server, until
from peers import Sink


@pytest.fixture(scope="module")
def hop():
    with Sink("127.6.0.1") as sink:
        sink.answer = lambda session, verb, line: "550 5.1.1 <nobody> is unknown here" if verb == "RCPT" and "nobody" in line \
            else None
        yield sink


@pytest.fixture(scope="module")
def nodsn():
    with Sink("127.6.0.2", extensions=("PIPELINING",)) as sink:
        yield sink


@pytest.fixture(scope="module")
def p(hop, nodsn):
    text = 'retry_min = "1s"\nretry_max = "1s"\nexpire_after = "3s"\nbounce_expire_after = "3s"\n' \
        'delay_notice = "1s"\n'
    text += server("mx.ours.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"])
    text += domain("ours.test", deliver="maildir:{dir}/mail/%u")
    text += domain("hop.test", via=[hop.hop], tls="none") + domain("nodsn.test", via=[nodsn.hop], tls="none")
    text += domain("dead.test", via=[f"[{free_address()}]:2599"])
    with Postern(text) as daemon:
        yield daemon


def send(p, sender, recipient, rcpt="", mail="", content=b"Subject: original\r\nX-Mark: head\r\n\r\nbody-mark\r\n"):
    with p.connect(source=fresh_source()) as w:
        w.ehlo()
        w.cmd(f"MAIL FROM:<{sender}>{mail}", 250)
        w.cmd(f"RCPT TO:<{recipient}>{rcpt}", 250)
        w.cmd("DATA", 354)
        w.send(content + b".\r\n")
        return w.reply().queue_id


def report(p, user, marker):
    """A bounce, taken apart: (whole, fields of the message, fields of the recipient, the third part)."""
    whole = email.message_from_bytes(p.delivered(user, marker.encode()), policy=email.policy.SMTP)
    assert whole.get_content_type() == "multipart/report" and whole.get_param("report-type") == "delivery-status"
    human, machine, original = whole.iter_parts()
    assert human.get_content_type() == "text/plain"
    assert machine.get_content_type() in ("message/delivery-status", "message/global-delivery-status")
    blocks = machine.get_payload()
    return whole, human.get_content(), blocks[0], blocks[1], original


def test_failure(p):
    queue_id = send(p, "fail1@ours.test", "nobody@hop.test", " ORCPT=rfc822;old+40name.test", " ENVID=env+2D1")
    assert "550 5.1.1" in p.sent(queue_id, "nobody@hop.test", "bounced")
    p.removed(queue_id)
    whole, human, message, recipient, original = report(p, "fail1", "nobody@hop.test")
    assert whole["Return-Path"] == "<>" and "MAILER-DAEMON" in whole["From"] and whole["To"].strip("<>") == "fail1@ours.test"
    assert whole["Auto-Submitted"].startswith("auto-") and whole["Message-ID"] and whole["Date"] and whole["MIME-Version"]
    assert message["Reporting-MTA"].replace(" ", "").lower() == "dns;mx.ours.test"
    assert message["Original-Envelope-Id"] == "env-1"
    assert message["Arrival-Date"]
    assert recipient["Final-Recipient"].replace(" ", "").lower() == "rfc822;nobody@hop.test"
    assert recipient["Original-Recipient"].replace(" ", "").lower() == "rfc822;old@name.test"
    assert recipient["Action"] == "failed" and recipient["Status"] == "5.1.1"
    assert "550 5.1.1 <nobody> is unknown here" in recipient["Diagnostic-Code"]
    assert "127.6.0.1" in recipient["Remote-MTA"] or "sink.test" in recipient["Remote-MTA"]
    assert "nobody@hop.test" in human and "550 5.1.1" in human
    assert "X-Mark: head" in original.as_string()


@pytest.mark.parametrize("ret, body", [("FULL", True), ("HDRS", False)])
def test_ret(p, ret, body):
    send(p, f"ret-{ret.lower()}@ours.test", f"nobody-{ret.lower()}@hop.test", mail=f" RET={ret}")
    whole, *_, original = report(p, f"ret-{ret.lower()}", "X-Mark: head")
    assert original.get_content_type() in (("message/rfc822",) if body else ("text/rfc822-headers", "message/rfc822"))
    assert ("body-mark" in whole.as_string()) == body


@pytest.mark.parametrize("notify, bounced", [("NEVER", False), ("SUCCESS", False), ("DELAY", False), ("FAILURE", True),
                                             ("SUCCESS,FAILURE", True)])
def test_notify_on_failure(p, notify, bounced):
    user = "notify-" + notify.lower().replace(",", "-")
    queue_id = send(p, f"{user}@ours.test", f"nobody-{user}@hop.test", f" NOTIFY={notify}")
    p.sent(queue_id, f"nobody-{user}@hop.test", "bounced")
    p.removed(queue_id)
    if bounced:
        assert report(p, user, f"nobody-{user}@hop.test")[3]["Action"] == "failed"
    else:
        # A message sent later has come: had there been a bounce, it would be there too.
        p.sent(send(p, "x@y.test", f"{user}@ours.test", content=b"Subject: later\r\n\r\nx\r\n"))
        assert len(p.maildir(user)) == 1


def test_success_when_asked_local(p):
    queue_id = send(p, "succ1@ours.test", "inbox1@ours.test", " NOTIFY=SUCCESS")
    p.sent(queue_id, "inbox1@ours.test")
    _, _, _, recipient, _ = report(p, "succ1", "inbox1@ours.test")
    assert recipient["Action"] == "delivered" and recipient["Status"].startswith("2.")


def test_success_relayed_to_a_hop_without_dsn(p):
    queue_id = send(p, "succ2@ours.test", "x@nodsn.test", " NOTIFY=SUCCESS")
    p.sent(queue_id, "x@nodsn.test")
    assert report(p, "succ2", "x@nodsn.test")[3]["Action"] == "relayed"


def test_success_is_the_next_hops_duty_when_it_knows_dsn(p, hop):
    queue_id = send(p, "succ3@ours.test", "good@hop.test", " NOTIFY=SUCCESS")
    p.sent(queue_id, "good@hop.test")
    p.removed(queue_id)
    p.sent(send(p, "x@y.test", "succ3@ours.test", content=b"Subject: later\r\n\r\nx\r\n"))
    assert len(p.maildir("succ3")) == 1


def test_null_reverse_path_never_bounces(p):
    queue_id = send(p, "", "nobody-null@hop.test")
    p.sent(queue_id, "nobody-null@hop.test", "bounced")
    p.removed(queue_id)
    assert not p.queue() or all(row["sender"] not in ("", "<>") for row in p.queue())


def test_bounce_of_a_bounce_is_none(p):
    """The sender cannot be reached either: the bounce dies with an event; nothing turns in circles."""
    queue_id = send(p, "nobody-sender@hop.test", "nobody-both@hop.test")
    p.sent(queue_id, "nobody-both@hop.test", "bounced")
    line = p.log.wait(r"to=<nobody-sender@hop\.test>.*status=bounced")
    bounce_id = line.split(": ")[1]
    p.removed(bounce_id)
    assert not p.log.find(r"to=<>")


def test_delay_then_expiry(p):
    """A hop that cannot be reached: one notice of the delay, then the bounce with 4.4.7 or 5.4.7."""
    queue_id = send(p, "slow1@ours.test", "x@dead.test")
    p.sent(queue_id, "x@dead.test", "deferred")
    p.log.wait(rf"\]: {queue_id}: .*status=(bounced|expired)")
    p.removed(queue_id)
    whole, _, message, recipient, _ = report(p, "slow1", "Action: failed")
    assert recipient["Status"] in ("4.4.7", "5.4.7") or recipient["Status"].startswith(("4.4", "5.4")), recipient["Status"]
    delayed = [m for m in p.maildir("slow1") if b"Action: delayed" in m]
    assert len(delayed) <= 1


def test_delay_notice_only_if_wanted(p):
    queue_id = send(p, "slow2@ours.test", "x@dead.test", " NOTIFY=FAILURE")
    p.removed(queue_id)
    report(p, "slow2", "Action: failed")
    assert not [m for m in p.maildir("slow2") if b"Action: delayed" in m]


def test_one_bounce_for_several_recipients_of_a_hop(p):
    with p.connect(source=fresh_source()) as w:
        w.ehlo()
        w.envelope("group@ours.test", "nobody-1@hop.test", "nobody-2@hop.test", "fine@ours.test")
        w.cmd("DATA", 354)
        w.send(b"Subject: group\r\n\r\nx\r\n.\r\n")
        queue_id = w.reply().queue_id
    p.removed(queue_id)
    text = p.delivered("group", b"nobody-1@hop.test")
    assert b"nobody-1@hop.test" in text and b"nobody-2@hop.test" in text
    assert b"fine@ours.test" not in b"".join(part for part in text.split(b"Final-Recipient")[1:])[:400]
