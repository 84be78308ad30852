"""The machine under the measurements: groups of processes and their CPU time, memory, namespaces, disks."""
import os
import shutil
import signal
import subprocess
import time

CLOCK_TICK_HZ = os.sysconf("SC_CLK_TCK")


def is_root():
    return os.geteuid() == 0


def own_mount_namespace():
    """Starts this program again in a mount namespace of its own, so that every mount is gone when it ends."""
    if not is_root() or os.environ.get("BENCH_NAMESPACE"):
        return
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    if probe.returncode != 0:
        return
    os.environ["BENCH_NAMESPACE"] = "1"
    import sys
    os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable] + sys.argv)


def can_overlay(folder):
    """Whether this process may mount an overlay over /usr."""
    if not os.environ.get("BENCH_NAMESPACE"):
        return False
    os.makedirs(f"{folder}/probe", exist_ok=True)
    command = f"mount -t overlay probe -o ro,lowerdir={folder}/probe:/usr /usr"
    return subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True).returncode == 0


class Group:
    """The processes of one server. As root a control group, which also counts those that have died; otherwise the
    descendants of the first process, whose parents count their dead children."""

    def __init__(self, name):
        self.folder, self.usage, self.first = None, None, None
        for base, usage in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage"), ("/sys/fs/cgroup", "cpu.stat"),
                            ("/sys/fs/cgroup/unified", "cpu.stat")):
            folder = f"{base}/postern-bench-{os.getpid()}-{name}"
            try:
                os.mkdir(folder)
            except OSError:
                continue
            if os.path.exists(f"{folder}/{usage}"):
                self.folder, self.usage = folder, usage
                break
            os.rmdir(folder)

    def enter_command(self):
        return f"echo $$ > {self.folder}/cgroup.procs; " if self.folder else ""

    def pids(self):
        if self.folder:
            with open(f"{self.folder}/cgroup.procs") as f:
                return [int(line) for line in f]
        return descendants(self.first) if self.first else []

    def cpu_s(self):
        if not self.folder:
            return sum(process_cpu_s(pid) for pid in self.pids())
        with open(f"{self.folder}/{self.usage}") as f:
            text = f.read()
        if self.usage == "cpuacct.usage":
            return int(text) / 1e9
        return int(text.split("usage_usec ")[1].split()[0]) / 1e6

    def memory_kib(self):
        return sum(process_memory_kib(pid) for pid in self.pids())

    def end(self):
        for sig, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            deadline = time.monotonic() + seconds
            pids = self.pids()
            for pid in pids:
                try:
                    os.kill(pid, sig)
                except OSError:
                    pass
            while pids and time.monotonic() < deadline:
                time.sleep(0.05)
                pids = self.pids()
        if self.folder:
            try:
                os.rmdir(self.folder)
            except OSError:
                pass


class Favour:
    """A control group whose processes come before whatever else the machine does: of a core that is shared, a server of
    twenty processes would otherwise get more than one of three. Without effect where it cannot be made."""

    def __init__(self):
        self.folder = None
        for base, name, value in (("/sys/fs/cgroup/cpu", "cpu.shares", 100000), ("/sys/fs/cgroup", "cpu.weight", 10000)):
            folder = f"{base}/postern-bench-{os.getpid()}-favour"
            try:
                os.mkdir(folder)
            except OSError:
                continue
            try:
                with open(f"{folder}/{name}", "w") as f:
                    f.write(str(value))
                self.folder = folder
                return
            except OSError:
                os.rmdir(folder)

    def enter_command(self):
        return f"echo $$ > {self.folder}/cgroup.procs; " if self.folder else ""

    def end(self):
        if self.folder:
            os.rmdir(self.folder)


def stat_fields(pid):
    """The fields of /proc/PID/stat behind the name; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()
    except OSError:
        return None


def descendants(first):
    children = {}
    for name in os.listdir("/proc"):
        fields = stat_fields(name) if name.isdigit() else None
        if fields and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = [], [first]
    while todo:
        pid = todo.pop()
        fields = stat_fields(pid)
        if fields and fields[0] != "Z":
            found.append(pid)
        todo += children.get(pid, [])
    return found


def process_cpu_s(pid):
    fields = stat_fields(pid)
    return sum(int(x) for x in fields[11:15]) / CLOCK_TICK_HZ if fields else 0


def process_memory_kib(pid):
    """Proportional set size; what is private when the kernel does not let us see that."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for line in f:
                if line.startswith("Pss:"):
                    return int(line.split()[1])
    except OSError:
        pass
    try:
        with open(f"/proc/{pid}/status") as f:
            return sum(int(line.split()[1]) for line in f if line.startswith("RssAnon:"))
    except OSError:
        return 0


class HostDisk:
    """A folder on the disk that the bench folder is on."""
    name = "here"

    def __init__(self, folder):
        self.folder = f"{folder}/here"
        os.makedirs(self.folder)
        os.chmod(self.folder, 0o755)
        kind = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True).stdout.split()[-1]
        self.text = f"this machine's disk ({kind})"

    def end(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class JournalDisk:
    """An ext4 with a journal in a file of its own, whatever the machine's disk is."""
    name = "journal"
    text = "ext4 with a journal, on a loop mount"

    def __init__(self, folder, gib=6):
        self.image, self.folder = f"{folder}/journal.img", f"{folder}/journal"
        os.makedirs(self.folder)
        # Blocks that are really there, so that the first write to each is not the image's own allocation.
        with open(self.image, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, gib << 30)
        options = "lazy_itable_init=0,lazy_journal_init=0"
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", options, self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=True)

    def end(self):
        subprocess.run(["umount", self.folder])
        os.unlink(self.image)
