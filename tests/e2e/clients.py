"""Stock clients that log in with Kerberos or NTLM: each sends one message, and says what it saw."""
import base64
import os
import subprocess

from wire import Wire

HOST = "mail.corp.test"
SMTPTEST = "/usr/lib/cyrus/bin/smtptest"


def letter(mark, to="bob@corp.test", sender="alice@corp.test"):
    return f"From: {sender}\r\nTo: {to}\r\nSubject: {mark}\r\nMessage-ID: <{mark}@client.test>\r\n\r\nhello {mark}\r\n"


def run(argv, env=None, input=None):
    done = subprocess.run([str(a) for a in argv], input=input, capture_output=True, timeout=90, env=env or dict(os.environ))
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def curl(env, mark, *, login="GSSAPI", user="alice@CORP.TEST:", source="127.0.0.1", service=None, ca=None, to="bob@corp.test",
         sender="alice@corp.test", port=2525, host=HOST):
    argv = ["curl", "-sS", "-v", "--max-time", "60", "--interface", source, "--mail-from", sender, "--mail-rcpt", to,
            "--upload-file", "-", f"smtp://{host}:{port}/client.test", "--login-options", f"AUTH={login}", "--user", user]
    if ca:
        argv += ["--ssl-reqd", "--cacert", ca]
    if service:
        argv += ["--service-name", service]
    return run(argv, env, letter(mark, to, sender).encode())


def msmtp(env, mark, *, ca=None, source="127.0.0.1", to="bob@corp.test"):
    argv = ["msmtp", "-d", "--file", "/dev/null", "--host", HOST, "--port", "2525", f"--source-ip={source}", "--from",
            "alice@corp.test", "--timeout=40", "--domain=client.test", "--auth=gssapi", "--user=alice", "--tls=off"]
    if ca:
        argv[-1:] = ["--tls=on", "--tls-starttls=on", f"--tls-trust-file={ca}"]
    return run([*argv, to], env, letter(mark, to).replace("\r\n", "\n").encode())


def swaks(mechanism, user, password, mark, *, ca=None, source="127.0.0.1", domain=None, to="bob@corp.test",
          sender="alice@corp.test"):
    argv = ["swaks", "--server", HOST, "--port", "2525", "--local-interface", source, "--helo", "client.test", "--from",
            sender, "--to", to, "--data", letter(mark, to, sender), "--timeout", "40", "--auth", mechanism,
            "--auth-user", user, "--auth-password", password]
    if domain:
        argv += ["--auth-extra", f"domain={domain}"]
    if ca:
        argv += ["--tls", "--tls-verify", "--tls-ca-path", ca, "--tls-sni", HOST]
    return run(argv)


def smtptest(env, mechanism, least, most, *, ca=None, mark=None, user="alice@CORP.TEST", host=HOST, authzid=None):
    """With `mark`, a message goes through behind the login. Cyrus wants a strength between `least` and `most`."""
    argv = [SMTPTEST, "-p", "2525", "-m", mechanism, "-k", str(least), "-l", str(most), "-a", user]
    argv += ["-u", authzid] if authzid else []
    argv += ["-t", ""] if ca else []
    commands = "NOOP\r\nQUIT\r\n"
    if mark:
        commands = "EHLO client.test\r\nMAIL FROM:<alice@corp.test>\r\nRCPT TO:<bob@corp.test>\r\nDATA\r\n" + \
            letter(mark) + ".\r\nQUIT\r\n"
    return run([*argv, host], env, commands.encode())


def samba_ntlm(user, domain, password):
    """Samba's NTLM as a client: ask(b"") gives the first message, ask(challenge) the last."""
    helper = subprocess.Popen(["ntlm_auth", "--helper-protocol=ntlmssp-client-1", f"--username={user}",
                               f"--domain={domain}", f"--password={password}"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(challenge):
        helper.stdin.write("TT " + base64.b64encode(challenge).decode() + "\n" if challenge else "YR\n")
        word, _, token = helper.stdout.readline().strip().partition(" ")
        if word == "AF":
            helper.stdin.close()
            helper.wait()
        assert word in ("YR", "AF", "KK"), (word, token)
        return base64.b64decode(token)
    return ask


def impacket_ntlm(user, domain, password, v2=True, workstation="PC7"):
    from impacket import ntlm
    first = ntlm.getNTLMSSPType1(workstation, domain, use_ntlmv2=v2)

    def ask(challenge):
        if not challenge:
            return first.getData()
        last, _ = ntlm.getNTLMSSPType3(first, challenge, user, password, domain, use_ntlmv2=v2)
        return last.getData()
    return ask


def in_spnego(ask):
    """The same inside SPNEGO, as a client offers it that has no Kerberos: NTLM is its only mechanism."""
    from impacket.spnego import SPNEGO_NegTokenInit, SPNEGO_NegTokenResp, TypesMech

    def outer(challenge):
        if not challenge:
            first = SPNEGO_NegTokenInit()
            first["MechTypes"] = [TypesMech["NTLMSSP - Microsoft NTLM Security Support Provider"]]
            first["MechToken"] = ask(b"")
            return first.getData()
        last = SPNEGO_NegTokenResp()
        last["ResponseToken"] = ask(SPNEGO_NegTokenResp(challenge)["ResponseToken"])
        return last.getData()
    return outer


def elsewhere(ask, name, other):
    """The client believes to talk to `other`: what a relayed login looks like."""
    assert len(name) == len(other)

    def outer(challenge):
        for change in (str.upper, str.lower):
            challenge = challenge.replace(change(name).encode("utf-16-le"), change(other).encode("utf-16-le"))
        return ask(challenge)
    return outer


def say_ntlm(wire, ask, verb="AUTH", mechanism="NTLM", initial=False):
    """The dialogue of MS-SMTPNTLM; the last reply."""
    first = base64.b64encode(ask(b"")).decode()
    if initial:
        reply = wire.cmd(f"{verb} {mechanism} {first}")
    else:
        reply = wire.cmd(f"{verb} {mechanism}")
        if reply.code != 334:
            return reply
        reply = wire.cmd(first)
    if reply.code != 334:
        return reply
    reply = wire.cmd(base64.b64encode(ask(base64.b64decode(reply.lines[-1]))))
    return wire.cmd("") if reply.code == 334 else reply  # SPNEGO's last word comes from the server


def ntlm(address, ask, source="127.0.0.1", tls=None, **kw):
    with Wire((address, 2525), source=source) as wire:
        wire.ehlo()
        if tls:
            wire.starttls(tls)
            wire.ehlo()
        return say_ntlm(wire, ask, **kw)
