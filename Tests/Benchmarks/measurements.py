"""What is measured between a and b, and what the daemons spent on it."""

import json
import os
import statistics
import subprocess
import time

from network import Failed, until

CPUS = os.cpu_count()
TICKS = os.sysconf("SC_CLK_TCK")
IPERF_PORT, LOAD_PORT = 5201, 5202


def cpu_seconds(process):
    """All CPU time of a process, every thread, to the nanosecond (/proc/PID/stat counts hundredths, too coarse per packet)."""
    if process.poll() is not None:
        raise Failed(f"{process.name} ended with status {process.returncode}")
    return time.clock_gettime(~process.pid << 3 | 2)  # the kernel's clock ID of a process: see clock_getcpuclockid(3)


def resident_megabytes(process):
    """(now, peak)"""
    with open(f"/proc/{process.pid}/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return tuple(round(int(lines[key].split()[0]) * 1024 / 1e6, 1) for key in ("VmRSS", "VmHWM"))


def foreign_seconds():
    """CPU time taken since boot by processes that are neither ours nor the kernel's, and by the host of a virtual machine.

    A process counts with the children it has reaped, so nothing is lost when a short-lived one ends."""
    parents, spent = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(name)] = int(fields[1])
        spent[int(name)] = sum(map(int, fields[11:15]))

    def counts(pid):
        while pid in parents:
            if pid in (os.getpid(), 2):  # 2 is the parent of all kernel threads
                return False
            pid = parents[pid]
        return True

    with open("/proc/stat") as file:
        stolen = int(file.readline().split()[8])
    return (stolen + sum(ticks for pid, ticks in spent.items() if counts(pid))) / TICKS


class Bench:
    """Measures one entrant that is up. Each method returns a flat dictionary of numbers."""

    def __init__(self, network, daemons, target, options):
        self.network, self.daemons, self.target, self.options = network, daemons, target, options
        network.start("b", "iperf3", "-s", "-B", target)
        until(lambda: network.on("b", "ss", "-Hltn", f"sport = :{IPERF_PORT}"), 5, "the iperf3 server")

    def run(self, name):
        """The least disturbed of a few attempts, with `foreign`: the share of the machine's CPU that others took."""
        if name == "idle":  # what a daemon does by itself does not depend on the others
            return self.idle()
        best = None
        for _ in range(self.options.attempts):
            started, foreign = time.monotonic(), foreign_seconds()
            result = MEASUREMENTS[name](self)
            share = (foreign_seconds() - foreign) / (time.monotonic() - started) / CPUS
            result["foreign"] = round(max(0, share), 3)
            if best is None or result["foreign"] < best["foreign"]:
                best = result
            if best["foreign"] <= self.options.max_foreign:
                break
        return best

    def memory(self):
        """Of the larger daemon."""
        now, peak = zip(*map(resident_megabytes, self.daemons)) if self.daemons else ((), ())
        return {"rss_mb": max(now), "rss_peak_mb": max(peak)} if now else {}

    def spent(self, work):
        """CPU seconds of each daemon while `work()` ran, and its result."""
        before = [cpu_seconds(daemon) for daemon in self.daemons]
        result = work()
        return [cpu_seconds(daemon) - start for daemon, start in zip(self.daemons, before)], result

    def iperf(self, *words, timeout):
        for _ in range(3):  # a server sometimes resets the client that follows another too closely
            done = subprocess.run(self.network.inside("a", "iperf3", "-J", "-c", self.target, *words),
                                  capture_output=True, text=True, timeout=timeout)
            answer = json.loads(done.stdout or "{}")
            if "end" in answer and "error" not in answer:
                return answer["end"]
            time.sleep(0.3)
        raise Failed(f"iperf3: {answer.get('error') or done.stderr[-200:]}")

    def tcp(self, *words):
        seconds = self.options.seconds
        cpu, end = self.spent(lambda: self.iperf("-t", seconds, *words, timeout=seconds + 20))
        return self.per_gigabyte(cpu, end)

    def per_gigabyte(self, cpu, end):
        gigabytes = end["sum_received"]["bytes"] / 1e9
        if not gigabytes:
            raise Failed("nothing arrived")
        result = {"mbps": round(end["sum_received"]["bits_per_second"] / 1e6, 1), "retransmits": end["sum_sent"].get("retransmits", 0)}
        if self.daemons:
            result["cpu_s_per_gb"] = round(sum(cpu) / gigabytes, 3)
        return result

    def udp(self, size):
        udpload, rate, seconds = self.options.udpload, self.options.udp_rate, self.options.seconds
        receiver = self.network.start("b", udpload, "receive", self.target, LOAD_PORT, output=subprocess.PIPE)
        until(lambda: self.network.on("b", "ss", "-Hlun", f"sport = :{LOAD_PORT}"), 5, "the receiver of the load")
        send = [udpload, "send", self.target, LOAD_PORT, size, rate, seconds]
        try:
            cpu, sent = self.spent(lambda: json.loads(self.network.on("a", *send, timeout=seconds + 20)))
            got = json.loads(receiver.communicate(timeout=5)[0])
        except subprocess.TimeoutExpired as problem:
            raise Failed("no UDP packet arrived") from problem
        finally:
            receiver.terminate()
            receiver.wait()
        result = {
            "offered_pps": round(sent["packets"] / sent["seconds"]), "packets": got["packets"],
            "lost_percent": round(100 * (1 - got["packets"] / sent["packets"]), 2), "disordered": got["disordered"],
        }
        if self.daemons:
            result["cpu_us_per_packet"] = round(1e6 * sum(cpu) / got["packets"], 2)
        return result

    def ping(self, count, interval):
        done = subprocess.run(self.network.inside("a", "ping", "-n", "-i", interval, "-c", count, self.target),
                              capture_output=True, text=True, timeout=count * interval + 20)
        times = sorted(float(line.split("time=")[1].split()[0]) for line in done.stdout.splitlines() if "time=" in line)
        if not times:
            raise Failed("no ping was answered")
        return {"median_ms": statistics.median(times), "p99_ms": times[int(len(times) * 0.99)], "unanswered": count - len(times)}

    def ping_loaded(self):
        """Pings beside one TCP flow that starts before them and is ended after them."""
        words = self.network.inside("a", "iperf3", "-c", self.target, "-t", 120)
        load = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.7)
            result = self.ping(200, 0.01)
            if load.poll() is not None:
                raise Failed("the load ended before the pings")
        finally:
            load.terminate()
            load.wait()
        return result

    def idle(self):
        """CPU of the busier daemon with nothing to do, a second after the last load."""
        if not self.daemons:
            return {}
        time.sleep(1)
        seconds = self.options.idle_seconds
        cpu, _ = self.spent(lambda: time.sleep(seconds))
        return {"cpu_percent": round(100 * max(cpu) / seconds, 3)}

    def soak(self, gigabytes):
        """Gigabyte after gigabyte of one TCP flow: CPU and the larger daemon's memory after each."""
        steps = []
        start = self.memory()["rss_mb"]
        for _ in range(gigabytes):
            cpu, end = self.spent(lambda: self.iperf("-n", 10**9, timeout=600))
            steps.append({**self.per_gigabyte(cpu, end), **self.memory()})
        return {"start_rss_mb": start, "end_rss_mb": steps[-1]["rss_mb"], "rss_peak_mb": steps[-1]["rss_peak_mb"],
                "growth_mb": growth([step["rss_mb"] for step in steps]),
                "cpu_s_per_gb": round(statistics.mean(step["cpu_s_per_gb"] for step in steps), 3), "steps": steps}


def growth(samples):
    """From the second quarter (buffers and pools have found their size by then) to the last, by medians."""
    quarter = max(1, len(samples) // 4)
    return round(statistics.median(samples[-quarter:]) - statistics.median(samples[quarter:2 * quarter] or samples[:1]), 1)


MEASUREMENTS = {
    "tcp1": lambda bench: bench.tcp(),
    "tcp4": lambda bench: bench.tcp("-P", "4"),
    "rev": lambda bench: bench.tcp("-R"),
    "udp64": lambda bench: bench.udp(64),
    "udp1200": lambda bench: bench.udp(1200),
    "ping": lambda bench: bench.ping(500, 0.002),
    "pingload": lambda bench: bench.ping_loaded(),
    "idle": lambda bench: bench.idle(),
}
