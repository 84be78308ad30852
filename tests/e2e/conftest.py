"""Fixtures that many tests share. The big daemon (`main`) is started once a test process."""
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from daemon import ROOT, Postern, domain, fresh_source, host, server
from peers import Sink
from pki import Authority

PASSWORD = "Correct-Horse 9é"


LAB = Path(__file__).resolve().parents[1] / "lab"


def wants_domain(config):
    paths = [Path(config.invocation_params.dir, arg.split("::")[0]) for arg in config.args]
    return any(path.name.startswith("test_ad_") or any(path.glob("test_ad_*.py")) for path in paths)


def pytest_configure(config):
    """Tests of the domain live in namespaces where it has the ports and files that every client expects. The whole run
    moves there, once, before anything else."""
    if "POSTERN_AD" in os.environ or hasattr(config, "workerinput") or not wants_domain(config):
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture:
        capture.stop_global_capturing()
    if sys.dont_write_bytecode:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    if ROOT:  # what needs a network: a peer that is unpacked, not installed
        subprocess.run([LAB / "unpack", "postfix"], check=True)
    os.chdir(config.invocation_params.dir)
    os.execv(LAB / "ad", [str(LAB / "ad"), "run", sys.executable, "-m", "pytest", *config.invocation_params.args])


@pytest.fixture(scope="session")
def ad(tmp_path_factory):
    """The domain, when it answers."""
    done = subprocess.run([LAB / "ad", "ready"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from realm import Domain
    return Domain(tmp_path_factory.mktemp("domain"))


def pytest_collection_modifyitems(config, items):
    keep, drop = [], []
    for item in items:
        wrong = item.get_closest_marker("ordinary" if ROOT else "root")
        (drop if wrong else keep).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
    items[:] = keep


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for daemon in Postern.live:
            report.sections.append((f"log of {daemon.dir}", "\n".join(daemon.log.lines[-25:])))


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    parent = folder
    while parent.stat().st_uid == os.geteuid() and str(parent) != "/tmp":
        parent.chmod(0o755)
        parent = parent.parent
    ca = Authority(folder / "ca")
    stranger = Authority(folder / "stranger", "Stranger CA")
    return types.SimpleNamespace(
        ca=ca, mail=ca.issue("mail.corp.test"), partner=ca.issue("partner.corp.test", "rsa"),
        sink=ca.issue("sink.test", names=["smtp.partner.test", "hop.partner.test"]), wrong_name=ca.issue("elsewhere.test"),
        untrusted=stranger.issue("sink.test"))


# Source addresses, each with rules of its own on mail.corp.test.
HOSTS = types.SimpleNamespace(
    plain="127.1.0.1", auth="127.1.1.1", tls="127.1.1.2", auth_tls="127.1.1.3", deny="127.1.1.4", scanner="127.1.1.5",
    repair="127.1.1.6", strip="127.1.1.7", old="127.1.1.8", denied_net="127.1.2.1", wins="127.1.2.9")


@pytest.fixture(scope="session")
def out_sink():
    with Sink("127.3.0.1") as sink:
        yield sink


@pytest.fixture(scope="session")
def main(pki, out_sink):
    """One daemon with two virtual servers, a host block for each rule and a domain for each way of delivery."""
    text = 'auth_failure_limit = 0\nmax_message_size = "4M"\npostmaster = "alice@corp.test"\n' \
        'session_log = "{dir}/log/sessions.jsonl"\nmax_sessions_per_address = 0\nmax_errors = 0\n'
    text += server(
        "mail.corp.test",
        host(HOSTS.auth, accept="auth"), host(HOSTS.tls, accept="tls"), host(HOSTS.auth_tls, accept="auth+tls"),
        host(HOSTS.deny, accept="deny"),
        host(HOSTS.scanner, accept="any", relay=True, plaintext=True, mechanisms=["LOGIN"]),
        host(HOSTS.repair, line_ends="repair"),
        host(HOSTS.strip, strip_headers=["X-MS-Exchange-Organization-*"]),
        host(HOSTS.old, plaintext=True),
        host("127.1.2.0/24", accept="deny"), host(HOSTS.wins, accept="any"),
        listen=["{address}:2525"], submission=["{address}:2587"], submissions=["{address}:2465"],
        certificate=pki.mail[0], key=pki.mail[1], mechanisms=["SCRAM-SHA-256", "PLAIN", "LOGIN"], accept="any",
        protocol_log="{dir}/log/mail.log")
    text += server("partner.corp.test", listen=["{address}:2525", "{address}:2526"], submissions=["{address}:2465"],
                   certificate=pki.partner[0], key=pki.partner[1], accept="any")
    text += domain("corp.test", deliver="maildir:{dir}/mail/%u", recipients="users")
    text += domain("any.test", deliver="maildir:{dir}/mail/any-%u")
    text += domain("file.test", deliver="maildir:{dir}/mail/file-%u", recipients="{dir}/recipients")
    text += domain("null.test", deliver="discard")
    text += domain("out.test", via=[out_sink.hop], tls="none")
    p = Postern(text, start=False)
    try:
        (p.dir / "recipients").write_text("# who exists\nlisted\nwhole@file.test\nother@corp.test\n")
        (p.dir / "recipients").chmod(0o644)
        for name in ("alice", "bob"):
            p.add_user(name, PASSWORD)
        p.start()
    except BaseException:
        p.__exit__(AssertionError)
        raise
    with p:
        yield p


@pytest.fixture
def source():
    return fresh_source()
