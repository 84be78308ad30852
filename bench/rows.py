"""The table: which figure of which measure, what it must reach, what it should reach."""
import json
import statistics

# key of the measure, its figure, text, unit, better is more, must, aim; ("x", 6) = six times Postfix's in this run.
ROWS = [
    ("accept_100_100", "per_s", "accepted, 100 connections, 100 messages each", "/s", True, ("x", 6), ("x", 11)),
    ("accept_20_1", "per_s", "accepted, 20 connections, 1 message each", "/s", True, ("x", 5), ("x", 9)),
    ("relay", "per_s", "relayed to a sink until drained", "/s", True, ("x", 5), ("x", 10)),
    ("accept_100_100", "cpu_s_per_1000", "CPU per 1,000 accepted", "s", False, ("is", 0.22), ("is", 0.10)),
    ("relay", "cpu_s_per_1000", "CPU per 1,000 relayed", "s", False, ("is", 0.5), ("is", 0.20)),
    ("accept_100_100", "p99_ms", "p99 at 100 connections", "ms", False, ("is", 40), ("is", 20)),
    ("starttls", "cpu_ms", "CPU per new STARTTLS session, P-256", "ms", False, ("is", 0.7), ("is", 0.5)),
    ("large", "mb_per_s", "50 MiB messages", "MB/s", True, ("x", 1.5), ("x", 2.5)),
    ("large", "memory_growth_mib", "memory growth with 50 MiB messages", "MiB", False, ("is", 16), ("is", 16)),
    ("idle_plain", "kib_per_connection", "memory per idle connection", "KiB", False, ("is", 4), ("is", 1)),
    ("idle_tls", "kib_per_connection", "memory per idle TLS connection", "KiB", False, ("is", 24), ("is", 16)),
]


def number(value):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def limit_text(limit, more):
    kind, value = limit
    return f"{value:g} x" if kind == "x" else f"{value:g}"


def reached(limit, more, postern, postfix):
    kind, value = limit
    if kind == "x":
        return postern >= value * postfix if postfix else None
    return postern >= value if more else postern <= value


def verdict(row, postern, postfix):
    more, must, aim = row[4], row[5], row[6]
    if postern is None:
        return "not measured"
    good, best = reached(must, more, postern, postfix), reached(aim, more, postern, postfix)
    if good is None:
        return "no Postfix"
    return "aim reached" if best else "reached" if good else "SHORT"


class Results:
    """All single results, and their medians."""

    def __init__(self):
        self.all = {}

    def add(self, disk, key, server, result):
        if "memory_peak_mib" in result:
            result["memory_growth_mib"] = result["memory_peak_mib"] - result["memory_before_mib"]
        self.all.setdefault((disk, key, server), []).append(result)

    def values(self, disk, key, server, figure):
        return [r[figure] for r in self.all.get((disk, key, server), []) if figure in r]

    def rows(self, disk):
        for row in ROWS:
            key, figure, text, unit, more, must, aim = row
            values = {name: self.values(disk, key, name, figure) for name in ("postfix", "postern")}
            if not values["postern"] and not values["postfix"]:
                continue
            median = {name: statistics.median(v) if v else None for name, v in values.items()}
            # Neither grows: what is left is the noise of the measurement, and has no ratio.
            comparable = median["postern"] and median["postfix"] and figure != "memory_growth_mib"
            ratio = median["postern"] / median["postfix"] if comparable else None
            yield {"disk": disk, "measure": f"{key}.{figure}", "text": text, "unit": unit, "postfix": median["postfix"],
                   "postern": median["postern"], "ratio": ratio, "must": limit_text(must, more),
                   "aim": limit_text(aim, more), "verdict": verdict(row, median["postern"], median["postfix"]),
                   "values": values}

    def remarks(self, disk):
        """What makes a figure worth less than it looks."""
        for (d, key, server), results in self.all.items():
            if d != disk:
                continue
            errors = sum(r.get("errors", 0) for r in results)
            if errors:
                texts = {e["text"] for r in results for e in r.get("error_texts", [])}
                yield f"{server}, {key}: {errors} errors {'; '.join(sorted(texts))[:200]}"
            if not all(r.get("drained", True) for r in results):
                yield f"{server}, {key}: the queue was not empty in time"
            share = max(r.get("generator_share", 0) for r in results)
            if share > 0.9:
                yield f"{server}, {key}: the generator used {share:.0%} of a core: the server could do more"
            counts = {r["connections"] for r in results if "connections" in r}
            if counts and server == "postfix" and key.startswith("idle"):
                yield f"{server}, {key}: measured with {max(counts)} connections (a process each)"


def print_table(disk_text, rows, remarks):
    head = ["measure", "unit", "Postfix", "Postern", "ratio", "must", "aim", "verdict"]
    lines = [[r["text"], r["unit"], number(r["postfix"]), number(r["postern"]),
              f"{r['ratio']:.2f}" if r["ratio"] else "-", r["must"], r["aim"], r["verdict"]] for r in rows]
    widths = [max(len(line[i]) for line in [head] + lines) for i in range(len(head))]

    def show(line):
        cells = [line[0].ljust(widths[0]), line[1].ljust(widths[1])]
        cells += [cell.rjust(width) for cell, width in zip(line[2:7], widths[2:7])] + [line[7]]
        print("  ".join(cells).rstrip())

    print(f"\nOn {disk_text}; medians, 4 KiB messages:")
    show(head)
    show(["-" * width for width in widths])
    for line in lines:
        show(line)
    for remark in remarks:
        print(f"  note: {remark}")


def print_json(rows):
    for row in rows:
        print(json.dumps(row), flush=True)
