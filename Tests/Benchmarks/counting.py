"""What warren's daemons allocate: per burst of packets, per further packet in a burst, per super-packet of a bulk flow.

Both daemons run with allocations.so, which counts. A burst is one only if the daemon reads it as one: its TUN thread shares a processor with
a sender that goes first, so that it reads when the burst is complete, and it is checked that it slept once for each burst. What the
daemons allocate with nothing to do is measured before and subtracted.
"""

import json
import os
import statistics
import struct
import time

from network import SIDES, Failed

PORT = 5203
SMALL, LARGE = 64, 1200  # bytes of payload: of packets of which a whole burst is small, and of packets that fill the MTU
LENGTH = 32  # packets of a long burst; many more than the reader takes at once would be two
BURSTS, TURNS = 200, 5
IDLE_SECONDS, MOMENT = 4, 0.1
READER = "warren-tun"
RECORD = struct.Struct("=8q")


class Allocations:
    """Measures the daemons of a `CountedWarren` that is up."""

    def __init__(self, bench, entrant):
        self.bench, self.network, self.entrant = bench, bench.network, entrant
        self.daemons = dict(zip(SIDES, bench.daemons))

    def measure(self):
        reader = self.thread("a", READER)
        processor = min(os.sched_getaffinity(reader))
        os.sched_setaffinity(reader, {processor})
        for size in (SMALL, LARGE):  # until buffers have found their size
            self.bursts(size, LENGTH, BURSTS, processor)
        idle = self.rest()
        result = {"small": self.slope(SMALL, reader, processor), "large": self.slope(LARGE, reader, processor), "super": self.bulk()}
        result["idle"] = {**idle, "both": sum(idle.values())}
        return result

    # --- Counting

    def counted(self, side):
        """{thread ID: allocations so far}"""
        with open(self.network.path(f"{side}.allocations"), "rb") as file:
            records = [RECORD.unpack_from(data) for data in iter(lambda: file.read(RECORD.size), b"")]
        return {thread: allocations for thread, allocations, *_ in records if thread}

    def during(self, work):
        """Allocations of each side while `work()` ran, less what it allocates anyway, those of its threads, and the result."""
        before = {side: self.counted(side) for side in SIDES}
        started = time.monotonic()
        result = work()
        seconds = time.monotonic() - started
        threads = {}
        for side in SIDES:
            for thread, count in self.counted(side).items():
                name = f"{side}.{self.name(side, thread)}"
                threads[name] = threads.get(name, 0) + count - before[side].get(thread, 0)
        total = {side: sum(count for name, count in threads.items() if name[0] == side) - self.idle[side] * seconds for side in SIDES}
        return total, threads, result

    def rest(self):
        """Allocations per second with nothing to do: in all, and in a typical moment, which is what is subtracted."""
        self.idle = dict.fromkeys(SIDES, 0)
        moments = [self.during(lambda: time.sleep(MOMENT))[0] for _ in range(round(IDLE_SECONDS / MOMENT))]
        self.idle = {side: statistics.median(moment[side] for moment in moments) / MOMENT for side in SIDES}
        return {side: round(statistics.mean(moment[side] for moment in moments) / MOMENT, 2) for side in SIDES}

    # --- Bursts

    def slope(self, size, reader, processor):
        """Bursts of one packet and long ones take turns; what the two differ by is what the further packets cost. Medians of the turns: what
        the daemons do once in a while falls into one or the other."""
        costs = {1: [], LENGTH: []}
        slept = sent = 0
        busiest = {}
        for _ in range(TURNS):
            for length in costs:
                naps = self.naps(reader)
                total, threads, _ = self.during(lambda: self.bursts(size, length, BURSTS, processor))
                slept += self.naps(reader) - naps
                sent += BURSTS
                costs[length].append(total)
                for name, count in threads.items() if length > 1 else ():
                    busiest[name] = busiest.get(name, 0) + count / BURSTS / TURNS
        if not 0.9 * sent <= slept <= 1.1 * sent:
            raise Failed(f"{sent} bursts of packets were read in {slept} pieces: nothing can be said of a burst")
        result = {"threads": {name: round(value, 3) for name, value in sorted(busiest.items(), key=lambda item: -item[1]) if value > 0.01}}
        for side in (*SIDES, "both"):
            each = {length: [sum(total[one] for one in (SIDES if side == "both" else side)) / BURSTS for total in totals]
                    for length, totals in costs.items()}
            short, long = (statistics.median(each[length]) for length in (1, LENGTH))
            result[side] = {"per_burst_of_1": round(short, 3), f"per_burst_of_{LENGTH}": round(long, 3),
                            "per_further_packet": round((long - short) / (LENGTH - 1), 4)}
        return result

    def bursts(self, size, length, count, processor):
        spaces = [self.network.space(side) for side in SIDES]
        said = json.loads(self.network.on("a", self.bench.options.bursts, *spaces, self.bench.target, PORT, size, length, count, processor,
                                          timeout=120))
        if said["lost"] or said["damaged"] or said["repeated"]:
            raise Failed(f"bursts did not arrive: {said}")
        return said

    # --- A bulk flow

    def bulk(self):
        """One TCP flow from a: packets are counted as the daemon read them from the TUN, whole."""
        before = self.sent_by("a")
        total, _, _ = self.during(lambda: self.bench.iperf("-t", self.bench.options.seconds, timeout=self.bench.options.seconds + 20))
        packets, size = (now - then for now, then in zip(self.sent_by("a"), before))
        if not packets:
            raise Failed("nothing was sent")
        return {**{side: {"per_packet": round(count / packets, 4)} for side, count in total.items()},
                "both": {"per_packet": round(sum(total.values()) / packets, 4)}, "bytes_per_packet": round(size / packets), "packets": packets}

    def sent_by(self, side):
        peer = self.entrant.status(self.network, side)["networks"][0]["peers"]
        peer = next(one for one in peer if one["name"] != side)
        return peer["sentPackets"], peer["sentBytes"]

    # --- Threads

    def threads(self, side):
        return map(int, os.listdir(f"/proc/{self.daemons[side].pid}/task"))

    def name(self, side, thread):
        try:
            with open(f"/proc/{self.daemons[side].pid}/task/{thread}/comm") as file:
                return file.read().strip()
        except OSError:
            return "ended"

    def thread(self, side, name):
        found = [thread for thread in self.threads(side) if self.name(side, thread) == name]
        if len(found) != 1:
            raise Failed(f"{len(found)} threads of warren are called {name}")
        return found[0]

    def naps(self, thread):
        """How often a thread has gone to sleep by itself."""
        with open(f"/proc/{self.daemons['a'].pid}/task/{thread}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches:"))
