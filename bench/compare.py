"""bench/run [--json]: the same load against Postern and Debian's Postfix, in turns, on this machine.

Called by `make bench`. Takes about 8 minutes; BENCH_QUICK=1 about two.
  BENCH_PART=both|mail|logins    what (default both)
  BENCH_DISK=both|here|journal   which disks (default both; quick: here)
  BENCH_SERVERS=postern          only these of postfix,postern
  BENCH_ROUNDS=N                 how often (default 3; quick: 1)
  BENCH_FULL=1                   5,000 idle connections for Postfix too (8 GiB of memory, several minutes)
  BENCH_ROOT=DIR                 where the spools are (default /var/tmp)
  BENCH_KEEP=1                   keep the servers' folders and logs
Without root, or where mounts are not allowed: Postern alone.
"""
import os
import shutil
import signal
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import logins  # noqa: E402
import machine  # noqa: E402
import measures  # noqa: E402
import rows  # noqa: E402
import servers  # noqa: E402

BUILD = os.path.abspath(os.environ.get("BUILD", f"{HERE}/../build"))
QUICK = bool(os.environ.get("BENCH_QUICK"))
FULL = bool(os.environ.get("BENCH_FULL"))
PORT = int(os.environ.get("BENCH_PORT", "2600"))
SECONDS = 1 if QUICK else 2
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "1" if QUICK else "3"))
PART = os.environ.get("BENCH_PART", "both")
# Postfix has a process for each connection, at most 100 by default: what one costs shows with 90 as well.
POSTERN_IDLE, POSTFIX_IDLE = 5000, 5000 if FULL else 90


def say(text):
    print(text, file=sys.stderr, flush=True)


def chosen_disks():
    choice = os.environ.get("BENCH_DISK", "here" if QUICK else "both")
    if choice not in ("both", "here", "journal"):
        sys.exit("bench/run: BENCH_DISK is both, here or journal")
    disks = [machine.HostDisk] if choice in ("both", "here") else []
    if choice in ("both", "journal"):
        if os.environ.get("BENCH_NAMESPACE"):
            disks.append(machine.JournalDisk)
        else:
            say("bench: no journalled loop mount: that needs root")
    return disks


def peers(root):
    """The servers to be compared, and why Postfix is not among them."""
    wanted = os.environ.get("BENCH_SERVERS", "postfix,postern").split(",")
    if "postfix" not in wanted:
        return [servers.Postern], "BENCH_SERVERS says so"
    if not machine.is_root():
        return [servers.Postern], "not root, so Postfix cannot run beside it"
    if not machine.can_overlay(root):
        return [servers.Postern], "overlay mounts are not allowed here, so Postfix cannot run beside it"
    try:
        servers.Postfix.fetch(f"{BUILD}/bench")
    except (OSError, servers.subprocess.CalledProcessError) as error:
        return [servers.Postern], f"the postfix package cannot be fetched ({error})"
    return [cls for cls in (servers.Postfix, servers.Postern) if cls.name in wanted], ""


def run_disk(disk, classes, certificate, sink, results, first_disk):
    bench = measures.Bench(f"{BUILD}/postern", sink, SECONDS, POSTERN_IDLE, POSTFIX_IDLE, 4 if QUICK else 8)
    if FULL:
        servers.Postfix.variant = "default_process_limit = 6000\n"
    namespace = bool(os.environ.get("BENCH_NAMESPACE"))
    running = []
    try:
        for i, cls in enumerate(classes):
            server = cls(disk.folder, PORT + i, PORT + 9, certificate, namespace)
            running.append(server)
            server.start()
        for round_number in range(ROUNDS):
            for key, measure in measures.all_measures(bench, disk_only=not first_disk):
                if key.startswith("idle") and round_number > 0:
                    continue  # it does not vary
                order = running if round_number % 2 == 0 else running[::-1]
                for server in order:
                    if key.startswith("idle"):  # memory is compared with that of a fresh server
                        server.stop()
                        server.start()
                    if not server.drain():
                        raise RuntimeError(f"{server.name}: the queue is not empty before {key}")
                    say(f"bench: {disk.name}, round {round_number + 1}, {key}, {server.name}")
                    results.add(disk.name, key, server.name, measure(server))
    finally:
        for server in running:
            server.stop(keep=bool(os.environ.get("BENCH_KEEP")))


def main():
    as_json = sys.argv[1:] == ["--json"]
    if sys.argv[1:] and not as_json:
        sys.exit(__doc__)
    for name in ("postern", "posternd"):
        if not os.path.exists(f"{BUILD}/{name}"):
            sys.exit(f"bench/run: {BUILD}/{name} is missing; run make first")
    machine.own_mount_namespace()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = tempfile.mkdtemp(prefix="postern-bench.", dir=os.environ.get("BENCH_ROOT", "/var/tmp"))
    os.chmod(root, 0o755)
    results, sink = rows.Results(), None
    try:
        classes, why_alone = peers(root)
        servers.Postern.build = BUILD
        servers.make_certificate(f"{root}/tls")
        if why_alone:
            say(f"bench: Postern alone: {why_alone}")
        if PART != "mail":
            logins.run(root, BUILD, servers.Postfix in classes, why_alone, PORT + 20, ROUNDS, SECONDS, as_json, say)
        if PART == "logins":
            return
        sink = measures.Sink(f"{BUILD}/postern", PORT + 9)
        for i, make_disk in enumerate(chosen_disks()):
            disk = make_disk(root)
            try:
                run_disk(disk, classes, f"{root}/tls", sink, results, first_disk=i == 0)
            finally:
                if not os.environ.get("BENCH_KEEP"):
                    disk.end()
            found = list(results.rows(disk.name))
            if as_json:
                rows.print_json(found)
            else:
                rows.print_table(disk.text, found, results.remarks(disk.name))
    except RuntimeError as error:
        sys.exit(f"bench/run: {error}")
    finally:
        if sink:
            sink.end()
        if not os.environ.get("BENCH_KEEP"):
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
