"""From runs to medians, the bounds Warren is held to, and the table."""

import statistics

# What is compared: the figure, what it is divided by (None: nothing), how it must compare with the limit, and whether a miss counts
# (CPU does; throughput moves with the machine and is only reported).
BOUNDS = [
    ("CPU per GB of one TCP flow / forwarder", "tcp1.cpu_s_per_gb", "forwarder", "<=", 1.6, True),
    ("CPU per 64-byte packet / forwarder", "udp64.cpu_us_per_packet", "forwarder", "<=", 2, True),
    ("CPU per GB of one TCP flow / wireguard-go", "tcp1.cpu_s_per_gb", "wireguard-go", "<=", 1 / 7, True),
    ("throughput of one TCP flow / wireguard-go", "tcp1.mbps", "wireguard-go", ">=", 6, False),
    ("throughput of one TCP flow / nebula", "tcp1.mbps", "nebula", ">=", 4, False),
    ("idle round trip / forwarder", "ping.median_ms", "forwarder", "<=", 1.5, True),
    ("peak RSS of a daemon, MB", "rss_peak_mb", None, "<=", 60, True),
    ("CPU of an idle daemon, %", "idle.cpu_percent", None, "<=", 0.5, True),
    ("allocations per further 64-byte packet of a burst", "allocations.small.both.per_further_packet", None, "<=", 0.05, True),
    ("allocations per further 1200-byte packet of a burst", "allocations.large.both.per_further_packet", None, "<=", 0.05, True),
    ("RSS growth in the soak, MB", "soak.growth_mb", None, "<=", 2, True),
    ("peak RSS in the soak, MB", "soak.rss_peak_mb", None, "<=", 60, True),
]

COLUMNS = [
    ("TCP x1 Mb/s", "tcp1.mbps", 0), ("x4", "tcp4.mbps", 0), ("reverse", "rev.mbps", 0), ("CPU s/GB", "tcp1.cpu_s_per_gb", 2),
    ("64 B us/pkt", "udp64.cpu_us_per_packet", 1), ("lost %", "udp64.lost_percent", 1),
    ("1200 B us/pkt", "udp1200.cpu_us_per_packet", 1), ("lost %", "udp1200.lost_percent", 1),
    ("ping ms", "ping.median_ms", 3), ("loaded", "pingload.median_ms", 2), ("p99", "pingload.p99_ms", 1),
    ("RSS MB", "rss_mb", 1), ("peak", "rss_peak_mb", 1), ("idle %", "idle.cpu_percent", 2), ("foreign", "foreign", 2),
]


def flatten(result, prefix=""):
    """{"tcp1": {"mbps": 5}} becomes {"tcp1.mbps": 5}; lists and words are left out."""
    flat = {}
    for key, value in result.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, (int, float)):
            flat[prefix + key] = value
    return flat


def medians(runs):
    """{entrant: {figure: median over its runs}}. `foreign` is that of the run's most disturbed measurement."""
    gathered = {}
    for run in runs:
        figures = gathered.setdefault(run["entrant"], {})
        flat = flatten(run["result"])
        disturbed = [value for key, value in flat.items() if key.endswith(".foreign")]
        if disturbed:
            flat["foreign"] = max(disturbed)
        for key, value in flat.items():
            figures.setdefault(key, []).append(value)
    return {name: {key: round(statistics.median(values), 4) for key, values in figures.items()} for name, figures in gathered.items()}


def judge(figures, subject="warren"):
    """Every bound whose figures are there."""
    verdicts = []
    for what, key, other, relation, limit, counts in BOUNDS:
        value = figures.get(subject, {}).get(key)
        base = figures.get(other, {}).get(key) if other else 1
        if value is None or not base:
            continue
        value /= base
        met = value <= limit if relation == "<=" else value >= limit
        verdicts.append({"what": what, "value": round(value, 3), "bound": f"{relation} {round(limit, 3):g}", "met": met, "judged": counts})
    return verdicts


def ratios(figures, base):
    """Every entrant's figures of the table over those of one of them."""
    keys = [key for _, key, _ in COLUMNS if key != "foreign" and figures.get(base, {}).get(key)]
    return {name: {key: round(mine[key] / figures[base][key], 3) for key in keys if key in mine} for name, mine in figures.items()}


def lines(rows):
    """Rows of words as aligned lines: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(word.rjust(width) if column else word.ljust(width) for column, (word, width) in enumerate(zip(row, widths)))


def table(figures, runs):
    shown = [column for column in COLUMNS if any(column[1] in mine for mine in figures.values())]
    if not shown:
        return ""
    rows = [["medians", "n", *(head for head, _, _ in shown)]]
    for name, mine in figures.items():
        count = sum(run["entrant"] == name and not {"error", "allocations"} & run["result"].keys() for run in runs)
        rows.append([name, str(count), *(f"{mine[key]:,.{digits}f}" if key in mine else "-" for _, key, digits in shown)])
    return "\n".join(lines(rows))


def allocations(runs):
    """What the daemons allocate, one kind of work per line, or nothing."""
    found = next((run["result"]["allocations"] for run in runs if "allocations" in run["result"]), None)
    if not found:
        return ""
    bulk = found["super"]
    rows = [["allocations of warren's daemons", "a sends", "b receives", "both"]]
    for key, size in (("small", 64), ("large", 1200)):
        for name in found[key]["both"]:
            rows.append([f"{name.replace('_', ' ')}, {size} bytes", *(f"{found[key][side][name]:.3f}" for side in ("a", "b", "both"))])
    rows.append([f"per super-packet of a TCP flow, {bulk['bytes_per_packet']} bytes on average",
                 *(f"{bulk[side]['per_packet']:.3f}" for side in ("a", "b", "both"))])
    rows.append(["per second with nothing to do", *(f"{found['idle'][side]:.3f}" for side in ("a", "b", "both"))])
    busiest = ", ".join(f"{name} {count:.2f}" for name, count in found["small"]["threads"].items())
    return "\n".join([*lines(rows), f"Threads, per burst of small packets: {busiest}"])


def disturbance(figures, limit):
    """A warning when others had much of the machine, or nothing."""
    most = max((mine.get("foreign", 0) for mine in figures.values()), default=0)
    if most <= limit:
        return ""
    return f"Disturbed: others took up to {most:.0%} of the CPU. CPU figures wander then; throughput, loss and round trips far more."


def soaked(run):
    soak = run["result"]["soak"]
    return (f"{run['entrant']}: {len(soak['steps'])} GB, RSS {soak['start_rss_mb']} MB at the start, {soak['end_rss_mb']} at the end, "
            f"{soak['rss_peak_mb']} at most; CPU {soak['cpu_s_per_gb']} s/GB")


def verdict_table(verdicts):
    """The bounds, one per line, or nothing."""
    if not verdicts:
        return ""
    rows = [["warren", "value", "bound", ""]]
    for verdict in verdicts:
        word = ("ok" if verdict["met"] else "MISS") + ("" if verdict["judged"] else " (report)")
        rows.append([verdict["what"], f"{verdict['value']:.3f}", verdict["bound"], word])
    return "\n".join(lines(rows))
