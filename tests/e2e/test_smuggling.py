"""Only CRLF ends a line. Each variant of a false end of data is refused, whole, in DATA and BDAT, and nothing behind
it is ever taken for a command."""
import pytest

from daemon import fresh_source

FALSE_ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r", b"\r.\r\n", b"\r\n.\r\r\n", b"\n.\r", b"\n\n.\n\n", b"\r\r\n.\r\r\n",
    b"\n\r.\n\r", b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\r\n\r.\r\n", b"\r\n.\n\r\n", b"\x00\r\n.\n", b"\n.\r\r\n", b"\r\n.\r.\r\n",
]
SMUGGLED = b"MAIL FROM:<evil@corp.test>\r\nRCPT TO:<bob@corp.test>\r\nDATA\r\nSubject: SMUGGLED\r\n\r\nevil\r\n"


def ids(v):
    return v.replace(b"\r", b"CR").replace(b"\n", b"LF").replace(b"\0", b"NUL").decode()


def begin(main):
    wire = main.connect(source=fresh_source())
    wire.ehlo()
    wire.envelope("a@b.test", "alice@corp.test")
    return wire


def nothing_came(main):
    assert not any(b"SMUGGLED" in m or b"smuggling-first" in m for user in ("alice", "bob") for m in main.maildir(user))


@pytest.mark.parametrize("split", [False, True], ids=["whole", "by-octet"])
@pytest.mark.parametrize("end", FALSE_ENDS, ids=ids)
def test_data(main, end, split):
    with begin(main) as wire:
        wire.cmd("DATA", 354)
        octets = b"Subject: smuggling-first\r\n\r\nx" + end + SMUGGLED + b"\r\n.\r\n"
        (wire.send_split if split else wire.send)(octets)
        reply = wire.reply()
        assert reply.code in (550, 554, 521), reply
        # One reply for the one message; the session goes on in step.
        assert wire.cmd("NOOP").code == 250
        wire.cmd("MAIL FROM:<a@b.test>", 250)
    nothing_came(main)


@pytest.mark.parametrize("end", FALSE_ENDS, ids=ids)
def test_bdat(main, end):
    with begin(main) as wire:
        octets = b"Subject: smuggling-first\r\n\r\nx" + end + SMUGGLED + b"\r\n"
        wire.send(b"BDAT %d LAST\r\n" % len(octets) + octets)
        assert wire.reply().code in (550, 554)
        assert wire.cmd("NOOP").code == 250
    nothing_came(main)


@pytest.mark.parametrize("first, second, good", [
    (b"Subject: s\r\n\r\nline\r", b"\nmore\r\n", True), (b"Subject: s\r\n\r\nline\r", b"more\r\n", False),
    (b"Subject: s\r\n\r\nline", b"\nmore\r\n", False), (b"Subject: s\r\n\r\nline\r\n.", b"\r\nmore\r\n", True),
    (b"Subject: s\r\n\r\nline\r", b"\r\nmore\r\n", False), (b"Subject: s\r\n\r\nline\r\n", b"last\r", False),
], ids=["CR|LF", "CR|x", "x|LF", "dot|CRLF", "CR|CRLF", "CR|end"])
def test_line_end_across_chunks(main, first, second, good):
    with begin(main) as wire:
        wire.send(b"BDAT %d\r\n" % len(first) + first)
        one = wire.reply()
        wire.send(b"BDAT %d LAST\r\n" % len(second) + second)
        two = wire.reply()
        if good:
            assert (one.code, two.code) == (250, 250), (one, two)
        else:
            assert one.code in (250, 554) and two.code in (554, 503), (one, two)
        wire.cmd("NOOP", 250)


def test_bdat_dot_is_content(main):
    """In BDAT a dot on a line of its own means nothing; nor do two."""
    body = b"Subject: bdat-dots\r\n\r\n.\r\n..\r\n.x\r\nend\r\n"
    with begin(main) as wire:
        wire.send(b"BDAT %d LAST\r\n" % len(body) + body)
        assert wire.reply().code == 250
    assert main.delivered("alice", b"bdat-dots").endswith(b"\r\n\r\n.\r\n..\r\n.x\r\nend\r\n")


def test_data_dots_are_unstuffed_once(main):
    with begin(main) as wire:
        wire.cmd("DATA", 354)
        wire.send_split(b"Subject: data-dots\r\n\r\n..\r\n...\r\n..x\r\nend\r\n.\r\n")
        assert wire.reply().code == 250
    assert main.delivered("alice", b"data-dots").endswith(b"\r\n\r\n.\r\n..\r\n.x\r\nend\r\n")


@pytest.mark.parametrize("line", [b"NOOP\n", b"NOOP\r", b"NO\nOP", b"NO\rOP", b"NOOP\r\r", b"NO\0OP", b"\0", b"NOOP\n\r"],
                         ids=ids)
def test_command_lines(main, line):
    with main.connect(source=fresh_source()) as wire:
        wire.ehlo()
        wire.send(line + b"\r\n")
        reply = wire.reply()
        assert reply.code == 500, reply
        wire.cmd("NOOP", 250)


def test_bare_lf_between_commands_is_one_line(main):
    """RFC 5321 section 2.3.8: the LF does not end the first command, so the second is never run."""
    with main.connect(source=fresh_source()) as wire:
        wire.ehlo()
        wire.send(b"MAIL FROM:<a@b.test>\nRCPT TO:<alice@corp.test>\r\n")
        assert wire.reply().code == 500
        wire.cmd("RCPT TO:<alice@corp.test>", 503)


def test_end_of_data_and_next_command_in_one_packet(main):
    with begin(main) as wire:
        wire.cmd("DATA", 354)
        wire.send(b"Subject: pipelined-end\r\n\r\nx\r\n.\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@corp.test>\r\nQUIT\r\n")
        assert [wire.reply().code for _ in range(4)] == [250, 250, 250, 221]
        assert wire.closed()
    main.delivered("alice", b"pipelined-end")


def test_empty_message(main):
    with begin(main) as wire:
        wire.cmd("DATA", 354)
        wire.send(b".\r\n")
        assert wire.reply().code == 250


def test_nothing_smuggled_reached_a_next_hop(main, out_sink):
    """What we relay is what we took: a message with dots and long lines goes out dot-stuffed and whole."""
    from conftest import HOSTS
    body = b"Subject: relay-dots\r\n\r\n.\r\n.MAIL FROM:<evil@x>\r\n" + b"y" * 2000 + b"\r\n"
    with main.connect(source=HOSTS.scanner) as wire:
        wire.ehlo()
        wire.envelope("a@b.test", "x@out.test")
        wire.send(b"BDAT %d LAST\r\n" % len(body) + body)
        assert wire.reply().code == 250
    while True:
        mail = out_sink.get()
        if b"relay-dots" in mail.content:
            break
    assert mail.content.endswith(body[20:]), mail.content[-300:]
