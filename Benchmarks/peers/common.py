"""What the parts of `make peers` share: the cores, the clock, progress, the machine in words. Import before torch."""

import math
import os
import platform
import sys
import time


def take_cores():
    """Keeps this process and its children on the first PEER_THREADS cores it may use; both sides get as many threads."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = allowed[: max(1, min(int(os.environ.get("PEER_THREADS", "2")), len(allowed)))]
    os.sched_setaffinity(0, cores)  # before torch starts threads
    os.environ["OMP_NUM_THREADS"] = os.environ["QUERN_NUM_THREADS"] = str(len(cores))
    return cores


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def busy_share():
    """How much of the machine others use, over a second of our own idleness."""

    def ticks():
        with open("/proc/stat", encoding="utf-8") as stat:
            figures = [int(x) for x in stat.readline().split()[1:9]]
        return sum(figures), figures[3] + figures[4]

    total, idle = ticks()
    time.sleep(1)
    later_total, later_idle = ticks()
    busy = 1 - (later_idle - idle) / max(1, later_total - total)
    if busy > 0.1:
        say(f"warning: others keep this machine {busy:.0%} busy; two threads that wait for each other suffer most")
    return round(busy, 3)


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.split(":", 1)[1].strip() for line in info if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def timed(call, seconds):
    """Seconds of each call for this long, as Serve.swift takes them: the first do not count, the shortest go by the dozen."""
    clock, samples, expected = time.perf_counter, [], math.inf
    start = clock()
    while True:
        before = clock()
        call()
        expected = min(expected, clock() - before)
        if clock() - start >= seconds / 10:
            break
    end = clock() + seconds
    while True:
        calls = max(1, int(5e-5 / expected))
        before = clock()
        for _ in range(calls):
            call()
        samples.append((clock() - before) / calls)
        expected = min(expected, samples[-1])
        if clock() >= end:
            return samples
