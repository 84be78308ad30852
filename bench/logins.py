"""Logins: Postern, Postfix with Cyrus SASL, and Postfix with Dovecot's auth, the servers on one core, the load on the
other; and other sessions' times while logins hang on a silent KDC and a silent winbind. A KDC of MIT's (tests/lab/mit)
gives the tickets; all three servers have a replay cache."""
import glob
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time

import machine
import servers
from servers import write

HERE = os.path.dirname(os.path.abspath(__file__))
HOST = "mx.bench.test"
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[-1], CORES[0]
PASSWORD = "Alice-pass1"
CONNECTIONS = 20
SERVERS = ("postfix+cyrus", "postfix+dovecot", "postern")
MECHANISMS = ("GSSAPI", "NTLM", "SCRAM-SHA-256")
TARGET = 2.0
HANGING, SILENT_S = 16, 3
favour = None
PEER_PACKAGES = ("postfix", "dovecot-core", "dovecot-gssapi", "libsasl2-modules", "libsasl2-modules-db", "sasl2-bin")


class Realm:
    """The KDC, a keytab, and the load's password."""

    def __init__(self, root):
        self.folder = f"{root}/realm"
        self.lab = f"{HERE}/../tests/lab/mit"
        subprocess.run([self.lab, "start", self.folder], check=True)
        self.config = f"{self.folder}/krb5.conf"
        self.keytab, self.password = f"{self.folder}/smtp.keytab", f"{self.folder}/password"
        rows = f"addprinc -randkey smtp/{HOST}\nktadd -k {self.keytab} smtp/{HOST}\n"
        subprocess.run([self.lab, "kadmin", self.folder], input=rows, text=True, check=True)
        write(self.password, PASSWORD + "\n", 0o600)
        os.chmod(self.folder, 0o755)
        os.chmod(self.keytab, 0o644)  # of a key that lives for minutes; each server has users of its own
        os.chmod(self.config, 0o644)

    def end(self):
        subprocess.run([self.lab, "stop", self.folder])


def fetch(folder, *packages):
    """Downloads packages, and what they need that is not here, without installing anything."""
    if os.path.exists(f"{folder}/done"):
        return folder
    plan = subprocess.run(["apt-get", "-s", "install", "--no-install-recommends", *packages], capture_output=True,
                          text=True).stdout
    names = re.findall(r"^Inst (\S+)", plan, re.M) or list(packages)
    os.makedirs(f"{folder}/debs", exist_ok=True)
    subprocess.run(["apt-get", "download", "-qq"] + names, cwd=f"{folder}/debs", check=True, capture_output=True)
    for deb in glob.glob(f"{folder}/debs/*.deb"):
        subprocess.run(["dpkg", "-x", deb, folder], check=True)
    write(f"{folder}/done", "")
    return folder


def pinned(core):
    """Shell commands: this process and its children on one core, before others."""
    return f"taskset -cp {core} $$ >/dev/null; {favour.enter_command()}"


class Postern(servers.Postern):
    realm = None
    mechanisms = MECHANISMS
    tokens_each_s = 4000
    more = ""

    def configure(self):
        self.config = f"{self.folder}/postern.conf"
        write(self.config, f"""spool = "{self.folder}/spool"
users = "{self.folder}/users/users.db"
keys = "{self.folder}/keys"
log = "{self.folder}/log/postern.log"
krb5_config = "{self.krb5_config()}"
max_sessions_per_address = 0
auth_failure_limit = 0
server "{HOST}" {{
    submission = {{"127.0.0.1:{self.port}"}}
    certificate = "{self.folder}/tls/cert.pem"
    key = "{self.folder}/tls/key.pem"
    keytab = "{self.realm.keytab}"
    mechanisms = {{{", ".join(f'"{name}"' for name in MECHANISMS)}}}
    send_as = "any"
    host "127.0.0.0/8" {{ plaintext = true }}
}}
domain "bench.test" {{ deliver = "discard" }}
{self.more}""")

    def krb5_config(self):
        return self.realm.config

    def mounts(self):
        return super().mounts() + pinned(SERVER_CORE)

    def command(self):
        postern, config = f"{self.build}/postern", self.config
        return (f"{postern} setup -c {config}; {postern} user add --ntlm --address alice@bench.test alice -c {config} < {self.realm.password}; "
                f"exec {self.build}/posternd -f -c {config}")


class PostfixCyrus(servers.Postfix):
    name = "postfix+cyrus"
    realm = None
    mechanisms = MECHANISMS
    tokens_each_s = 1200

    def environment(self):
        return f"KRB5_CONFIG={self.realm.config} KRB5_KTNAME={self.realm.keytab} KRB5RCACHEDIR={self.folder}/rcache"

    def sasl(self):
        return "smtpd_sasl_type = cyrus\nsmtpd_sasl_path = smtpd\n"

    def configure(self):
        self.variant = f"""smtpd_sasl_auth_enable = yes
smtpd_sasl_security_options = noanonymous
smtpd_sasl_local_domain = {HOST}
import_environment = MAIL_CONFIG MAIL_LOGTAG PATH {self.environment()}
{self.sasl()}"""
        super().configure()
        os.makedirs(f"{self.folder}/rcache")
        os.chmod(f"{self.folder}/rcache", 0o777)
        write(f"{self.folder}/etc/postfix/sasl/smtpd.conf", f"""pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: /etc/sasldb2
mech_list: {" ".join(self.mechanisms)}
""")

    def mounts(self):
        users = f"{self.folder}/etc/sasldb2"
        return (f"{self.package}/usr/sbin/saslpasswd2 -p -c -f {users} -u {HOST} alice < {self.realm.password}; "
                f"chmod 644 {users}; " + super().mounts() + pinned(SERVER_CORE))


class PostfixDovecot(PostfixCyrus):
    name = "postfix+dovecot"
    mechanisms = ("GSSAPI", "SCRAM-SHA-256")  # its own NTLM was removed in 2.3.13

    def sasl(self):
        return "smtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/dovecot-auth\n"

    def configure(self):
        super().configure()
        with open(f"{self.folder}/etc/passwd", "a") as f:
            f.write("dovecot:x:903:903::/nonexistent:/bin/false\ndovenull:x:904:904::/nonexistent:/bin/false\n")
        with open(f"{self.folder}/etc/group", "a") as f:
            f.write("dovecot:x:903:\ndovenull:x:904:\n")
        write(f"{self.folder}/dovecot.conf", f"""base_dir = {self.folder}/dovecot
state_dir = {self.folder}/dovecot-state
log_path = {self.folder}/log/dovecot.log
protocols =
ssl = no
disable_plaintext_auth = no
import_environment = PATH {self.environment()}
auth_mechanisms = {" ".join(name.lower() for name in self.mechanisms)}
auth_krb5_keytab = {self.realm.keytab}
auth_gssapi_hostname = {HOST}
passdb {{
  driver = passwd-file
  args = username_format=%n {self.folder}/dovecot.users
}}
userdb {{
  driver = static
  args = uid=904 gid=904 home=/nonexistent
}}
service auth {{
  unix_listener {self.folder}/spool/private/dovecot-auth {{
    mode = 0666
  }}
}}
""")

    def command(self):
        conf = f"{self.folder}/dovecot.conf"
        verifier = f'echo "alice:$(doveadm -c {conf} pw -s SCRAM-SHA-256 -p {PASSWORD})" > {self.folder}/dovecot.users'
        return f"{verifier}; dovecot -c {conf}; " + servers.Postfix.command(self)


class SilentKdc:
    """Takes packets and connections, and answers none."""

    def __init__(self):
        self.tcp = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(self.tcp.getsockname())
        self.port = self.tcp.getsockname()[1]
        self.udp.settimeout(1)

    def wait_for(self, clients, limit_s):
        """How many ask, at most `clients`: MIT's library has a socket for each request."""
        seen, deadline = set(), time.monotonic() + limit_s
        while len(seen) < clients and time.monotonic() < deadline:
            try:
                seen.add(self.udp.recvfrom(4096)[1])
            except TimeoutError:
                pass
        return len(seen)

    def end(self):
        self.tcp.close()
        self.udp.close()


class SilentWinbind:
    """winbindd's pipe, over which nobody answers, in a folder that is mounted where libwbclient looks."""

    def __init__(self, folder):
        self.folder = f"{folder}/winbindd"
        os.makedirs(self.folder)
        os.chmod(self.folder, 0o755)
        self.pipe = socket.socket(socket.AF_UNIX)
        self.pipe.bind(f"{self.folder}/pipe")
        os.chmod(f"{self.folder}/pipe", 0o777)
        self.pipe.listen(64)
        self.pipe.settimeout(1)
        self.connections = []

    def wait_for(self, clients, limit_s):
        deadline = time.monotonic() + limit_s
        while len(self.connections) < clients and time.monotonic() < deadline:
            try:
                self.connections.append(self.pipe.accept()[0])
            except TimeoutError:
                pass
        return len(self.connections)

    def end(self):
        for connection in self.connections + [self.pipe]:
            connection.close()


class PosternSilent(Postern):
    """With a next hop (itself) whose KDC is silent, and a domain whose winbind is."""
    name = "postern-silent"
    kdc = None
    winbind_folder = ""

    def krb5_config(self):
        path = f"{self.folder}/krb5.conf"
        text = open(self.realm.config).read()
        write(path, text.replace("[realms]\n", f"[realms]\n SILENT.TEST = {{\n  kdc = 127.0.0.1:{self.kdc.port}\n }}\n"))
        return path

    def configure(self):
        write(f"{self.folder}/password", PASSWORD + "\n", 0o600)
        self.more = f"""domain "silent.test" {{
    via = {{"127.0.0.1:{self.port}"}}
    tls = "none"
    auth = "GSSAPI"
    principal = "mail@SILENT.TEST"
    password_file = "{self.folder}/password"
}}
identity "people" {{ realm = "CORP.TEST" match = "(.*)@CORP\\\\.TEST" mailbox = "\\\\1@bench.test" }}
"""
        super().configure()

    def mounts(self):
        folder = "/run/samba/winbindd"
        winbind = f"mount -t tmpfs run /run; mkdir -p {folder}; mount --bind {self.winbind_folder} {folder}; "
        return (winbind if self.namespace else "") + super().mounts()


class Logins:
    def __init__(self, build, realm, seconds):
        self.postern, self.realm, self.seconds = f"{build}/postern", realm, seconds

    def command(self, server, mechanism, *options):
        if mechanism == "GSSAPI":
            tokens = int(server.tokens_each_s * self.seconds)
            who = ["-u", "alice@CORP.TEST", "--spn", f"smtp/{HOST}", "--tokens", str(tokens)]
        else:
            realm = f"@{HOST}" if server.name == "postfix+cyrus" else ""
            who = ["-u", "alice" + realm]
        return ["sh", "-c", pinned(LOAD_CORE) + 'exec "$@"', "sh", "timeout", "120", self.postern, "bench", "--json", "-w",
                "30", "-e", "1000", "-p", self.realm.password, "-a", mechanism, *who, *[str(o) for o in options],
                f"127.0.0.1:{server.port}"]

    def load(self, server, mechanism, *options):
        return self.run(server, self.command(server, mechanism, *options))

    def load_ntlm1(self, server, seconds):
        argv = ["sh", "-c", pinned(LOAD_CORE) + 'exec "$@"', "sh", sys.executable, f"{HERE}/ntlm1.py", str(server.port),
                f"alice@{HOST}", self.realm.password, str(CONNECTIONS), str(seconds)]
        return self.run(server, argv)

    def run(self, server, argv):
        done = subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ, KRB5_CONFIG=self.realm.config))
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(f"{' '.join(argv)} against {server.name}: {done.stderr.strip()[-300:]}") from None

    def measure(self, server, mechanism):
        if mechanism == "NTLM" and server.name != "postern":
            self.load_ntlm1(server, 0.2)
            cpu = server.group.cpu_s()
            return self.figures(server, cpu, self.load_ntlm1(server, self.seconds))
        self.load(server, mechanism, "-q", "-n", CONNECTIONS, "-m", 2 * CONNECTIONS)  # processes, credentials, caches
        cpu = server.group.cpu_s()
        load = self.load(server, mechanism, "-q", "-n", CONNECTIONS, "-d", self.seconds)
        return self.figures(server, cpu, load)

    @staticmethod
    def figures(server, cpu, load):
        return {"per_s": load["sessions_per_s"], "p99_ms": load["session_ms"]["p99"], "errors": load["error_count"],
                "error_texts": load["errors"], "generator_share": load["cpu_share"],
                "cpu_ms": (server.group.cpu_s() - cpu) / max(load["sessions"], 1) * 1000}

    def submissions(self, server):
        """Sessions of SCRAM and a message each, far below what the server can do."""
        load = self.load(server, "SCRAM-SHA-256", "-n", 4, "-k", 1, "-d", SILENT_S, "-f", "alice@bench.test", "-t", "user@bench.test")
        return {"login_p99_ms": load["session_ms"]["p99"], "message_p99_ms": load["message_ms"]["p99"],
                "errors": load["error_count"], "error_texts": load["errors"], "per_s": load["sessions_per_s"]}

    def hang_kerberos(self, server):
        """Messages whose next hop wants a ticket of the silent realm."""
        self.load(server, "SCRAM-SHA-256", "-n", HANGING, "-m", HANGING, "-k", 1, "-f", "alice@bench.test", "-t",
                  "user@silent.test")
        return server.kdc.wait_for(8, 3), None

    def hang_winbind(self, server):
        argv = self.command(server, "NTLM", "-q", "-n", HANGING, "-m", HANGING)
        argv[argv.index("-u") + 1] = "CORP.TEST\\nobody"
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return server.winbind.wait_for(2, 3), process

    def silence(self, server):
        """A fresh server, since what hangs keeps its threads for minutes: quiet, then with hanging logins."""
        server.start()
        self.submissions(server)
        found = {"quiet": self.submissions(server)}
        hangs = [("silent KDC", self.hang_kerberos)]
        if server.namespace:
            hangs.insert(0, ("silent winbind", self.hang_winbind))
        for name, hang in hangs:
            seen, process = hang(server)
            if seen == 0:
                raise RuntimeError(f"nobody asked the {name}; see {server.folder}/log")
            found[name] = self.submissions(server)
            found[name]["seen"] = seen
            if process:
                process.terminate()
                process.wait()
        server.stop()
        return found


def median(results, figure):
    return statistics.median(r[figure] for r in results)


def login_rows(results):
    """One row a mechanism: the faster of the two peers is the one that counts."""
    for mechanism in MECHANISMS:
        of = {name: found for (m, name), found in results.items() if m == mechanism}
        rates = {name: median(found, "per_s") for name, found in of.items()}
        peers = {name: rate for name, rate in rates.items() if name != "postern"}
        best = max(peers, key=peers.get) if peers else None
        ratio = rates["postern"] / peers[best] if best else None
        yield {"measure": f"logins.{mechanism}", "unit": "/s", **{name: rates.get(name) for name in SERVERS},
               "cpu_ms": {name: median(found, "cpu_ms") for name, found in of.items()},
               "p99_ms": {name: median(found, "p99_ms") for name, found in of.items()},
               "generator_share": {name: median(found, "generator_share") for name, found in of.items()},
               "errors": {name: sum(r["errors"] for r in found) for name, found in of.items()},
               "ratio": ratio, "must": TARGET,
               "verdict": "no peer" if ratio is None else "reached" if ratio >= TARGET else "SHORT"}


def silence_rows(rounds):
    for name in [key for key in rounds[0] if key != "quiet"]:
        for figure, text in (("login_p99_ms", "login"), ("message_p99_ms", "message")):
            quiet = median([r["quiet"] for r in rounds], figure)
            during = median([r[name] for r in rounds], figure)
            yield {"measure": f"{name}, p99 of others' {text}", "unit": "ms", "quiet": quiet, "during": during,
                   "ratio": during / quiet, "must": TARGET, "verdict": "reached" if during < TARGET * quiet else "SHORT"}


def show(rows, figures, sign):
    head = ["measure", "unit", *figures, "ratio", "must", "verdict"]
    lines = [[r["measure"], r["unit"], *[f"{r[f]:,.2f}" if r[f] and r[f] < 100 else f"{r[f]:,.0f}" if r[f] else "-"
                                         for f in figures],
              f"{r['ratio']:.2f}" if r["ratio"] else "-", f"{sign} {r['must']:g} x", r["verdict"]] for r in rows]
    widths = [max(len(line[i]) for line in [head] + lines) for i in range(len(head))]
    for line in [head, ["-" * width for width in widths]] + lines:
        print("  ".join([line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:-1], widths[1:-1])] + line[-1:]))


def print_table(rows, silent, why_alone):
    print(f"\nLogins: connect, EHLO, AUTH, QUIT; {CONNECTIONS} connections, servers on one core, the load on the other"
          f"{'; no peers: ' + why_alone if why_alone else ''}:")
    show(rows, SERVERS, ">=")
    for r in rows:
        print(f"  {r['measure']}: " + "; ".join(f"{name}: {cpu:.3f} ms CPU a login, p99 {r['p99_ms'][name]:.1f} ms"
                                                for name, cpu in r["cpu_ms"].items()))
        for name, errors in r["errors"].items():
            if errors:
                print(f"  note: {name}, {r['measure']}: {errors} errors")
            if r["generator_share"][name] > 0.9:
                print(f"  note: {name}, {r['measure']}: the generator was the limit")
    print(f"\nOther sessions (SCRAM and a message each, 4 connections) while {HANGING} logins hang:")
    show(silent, ("quiet", "during"), "<")


def measure_logins(bench, classes, root, certificate, port, namespace, rounds, say):
    running, results = [], {}
    try:
        for i, cls in enumerate(classes):
            server = cls(root, port + i, port + 9, certificate, namespace)
            running.append(server)
            server.start()
        for number in range(rounds):
            for mechanism in MECHANISMS:
                for server in running if number % 2 == 0 else running[::-1]:
                    if mechanism not in server.mechanisms:
                        continue
                    say(f"bench: logins, round {number + 1}, {mechanism}, {server.name}")
                    results.setdefault((mechanism, server.name), []).append(bench.measure(server, mechanism))
    finally:
        for server in running:
            server.stop(keep=bool(os.environ.get("BENCH_KEEP")))
    return results


def measure_silence(bench, root, certificate, port, namespace, rounds, say):
    PosternSilent.kdc, found = SilentKdc(), []
    try:
        for number in range(rounds):
            say(f"bench: logins that hang, round {number + 1}")
            server = PosternSilent(root, port, port + 9, certificate, namespace)
            server.winbind = SilentWinbind(f"{root}/silent-{number}")
            server.winbind_folder = server.winbind.folder
            try:
                found.append(bench.silence(server))
            finally:
                server.stop(keep=bool(os.environ.get("BENCH_KEEP")))
                server.winbind.end()
    finally:
        PosternSilent.kdc.end()
    return found


def run(root, build, with_peers, why_alone, port, rounds, seconds, as_json, say):
    global favour
    namespace = bool(os.environ.get("BENCH_NAMESPACE"))
    classes = [Postern]
    if with_peers:
        PostfixCyrus.package = fetch(f"{build}/bench/logins", *PEER_PACKAGES)
        classes += [PostfixCyrus, PostfixDovecot]
    favour = machine.Favour()
    folder = f"{root}/logins"
    os.makedirs(folder)
    os.chmod(folder, 0o755)
    realm = Realm(folder)
    try:
        for cls in classes:
            cls.realm = realm
        bench = Logins(build, realm, seconds)
        results = measure_logins(bench, classes, folder, f"{root}/tls", port, namespace, rounds, say)
        silent = measure_silence(bench, folder, f"{root}/tls", port, namespace, rounds, say)
    finally:
        realm.end()
        favour.end()
    rows, silent_rows = list(login_rows(results)), list(silence_rows(silent))
    if as_json:
        for row in rows + silent_rows:
            print(json.dumps(row), flush=True)
    else:
        print_table(rows, silent_rows, why_alone)
