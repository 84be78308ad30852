"""What is measured. Each measure loads one server, waits until its queue is empty, and returns a dictionary of numbers;
rows.py says what becomes of them."""
import json
import os
import signal
import subprocess
import threading
import time

MESSAGE_BYTES = 4096
LARGE_MIB = 50
LOAD_LIMIT_S = 120


class Sink:
    """`postern bench --sink`: takes what is relayed, and counts."""

    def __init__(self, postern, port):
        self.process = subprocess.Popen([postern, "bench", "--sink", f"127.0.0.1:{port}"], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.process.stderr.readline()  # it listens

    def counts(self):
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.terminate()
        self.process.communicate()


class Bench:
    def __init__(self, postern, sink, seconds, idle_connections, postfix_idle_connections, large_messages):
        self.postern, self.sink, self.seconds = postern, sink, seconds
        self.idle_connections, self.postfix_idle_connections = idle_connections, postfix_idle_connections
        self.large_messages = large_messages

    def load(self, server, *options, to="user@bench.test"):
        argv = ["timeout", str(LOAD_LIMIT_S), self.postern, "bench", "--json", "-P", "-t", to, "-w", "30"]
        argv += ["-e", "1000000"]
        done = subprocess.run(argv + [str(o) for o in options] + [f"127.0.0.1:{server.port}"], capture_output=True,
                              text=True)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(f"postern bench {' '.join(str(o) for o in options)} against {server.name}: exit "
                               f"{done.returncode}: {done.stderr.strip()[-300:]}") from None

    def drained(self, server, result):
        result["drained"] = server.drain()
        return result

    def accept(self, server, connections, per_connection):
        cpu, start = server.group.cpu_s(), time.monotonic()
        load = self.load(server, "-n", connections, "-k", per_connection, "-d", self.seconds, "-s", MESSAGE_BYTES)
        result = {"per_s": load["messages_per_s"], "p50_ms": load["message_ms"]["p50"],
                  "p99_ms": load["message_ms"]["p99"], "errors": load["error_count"], "error_texts": load["errors"],
                  "generator_share": load["cpu_share"], "messages": load["messages"]}
        self.drained(server, result)
        result["cpu_s_per_1000"] = (server.group.cpu_s() - cpu) / max(load["messages"], 1) * 1000
        result["until_drained_s"] = time.monotonic() - start
        return result

    def relay(self, server):
        before, cpu, start = self.sink.counts(), server.group.cpu_s(), time.monotonic()
        load = self.load(server, "-n", 20, "-k", 100, "-d", self.seconds, "-s", MESSAGE_BYTES, to="user@relay.test")
        counts, deadline = self.sink.counts(), time.monotonic() + 90
        while counts["messages"] - before["messages"] < load["messages"] and time.monotonic() < deadline:
            time.sleep(0.05)
            counts = self.sink.counts()
        relayed = counts["messages"] - before["messages"]
        result = {"messages": load["messages"], "relayed": relayed, "errors": load["error_count"],
                  "error_texts": load["errors"], "sink_connections": counts["connections"] - before["connections"],
                  "per_s": relayed / max(counts["last_s"] - start, 1e-6) if relayed else 0}
        self.drained(server, result)
        result["cpu_s_per_1000"] = (server.group.cpu_s() - cpu) / max(relayed, 1) * 1000
        return result

    def starttls(self, server):
        cpu = server.group.cpu_s()
        load = self.load(server, "-q", "-T", "-n", 20, "-d", self.seconds)
        return {"per_s": load["sessions_per_s"], "errors": load["error_count"], "error_texts": load["errors"],
                "generator_share": load["cpu_share"],
                "cpu_ms": (server.group.cpu_s() - cpu) / max(load["sessions"], 1) * 1000}

    def large(self, server):
        """Two connections, 50 MiB messages; memory is watched while they come."""
        start_kib = peak_kib = server.group.memory_kib()
        over = threading.Event()

        def watch():
            nonlocal peak_kib
            while not over.wait(0.05):
                peak_kib = max(peak_kib, server.group.memory_kib())

        watcher = threading.Thread(target=watch)
        watcher.start()
        cpu = server.group.cpu_s()
        try:
            load = self.load(server, "-n", 2, "-m", self.large_messages, "-s", f"{LARGE_MIB}M")
        finally:
            over.set()
            watcher.join()
        result = {"mb_per_s": load["megabytes_per_s"], "errors": load["error_count"], "error_texts": load["errors"],
                  "generator_share": load["cpu_share"], "memory_before_mib": start_kib / 1024,
                  "memory_peak_mib": peak_kib / 1024}
        self.drained(server, result)
        result["cpu_s_per_message"] = (server.group.cpu_s() - cpu) / max(load["messages"], 1)
        return result

    def idle(self, server, tls):
        """Holds connections after EHLO, and compares the memory of all processes with what it was before."""
        wanted = self.postfix_idle_connections if server.name == "postfix" else self.idle_connections
        self.load(server, "-n", 4, "-m", 20, *(["-T"] if tls else []))
        server.drain()
        time.sleep(0.5)
        before = server.group.memory_kib()
        argv = [self.postern, "bench", "--json", "-I", "0", "-n", str(wanted), "-w", "30", "-e", "1000000"]
        holder = subprocess.Popen(argv + (["-T"] if tls else []) + [f"127.0.0.1:{server.port}"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        try:
            line = holder.stdout.readline()
            ready = json.loads(line)["ready"] if line else 0
            time.sleep(1)
            after = server.group.memory_kib()
        finally:
            holder.terminate()
            holder.communicate()
        return {"connections": wanted, "ready": ready, "before_kib": before, "after_kib": after,
                "kib_per_connection": (after - before) / max(ready, 1), "errors": wanted - ready, "error_texts": []}


def all_measures(bench, disk_only):
    """(key, function of a server); those that do not touch the disk are left out for the second disk."""
    rows = [("accept_100_100", lambda s: bench.accept(s, 100, 100)), ("accept_20_1", lambda s: bench.accept(s, 20, 1)),
            ("relay", bench.relay), ("large", bench.large)]
    if not disk_only:
        rows += [("starttls", bench.starttls), ("idle_plain", lambda s: bench.idle(s, False)),
                 ("idle_tls", lambda s: bench.idle(s, True))]
    return rows
