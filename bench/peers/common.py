"""What the comparisons share: the inputs our benchmarks write, time, and the form of a row."""
import statistics
import sys
import time


class Wrong(Exception):
    """An answer that is not what it should be: no time is told."""


class Clock:
    """Times `run()`: once to touch what it needs, then for `seconds`, and at least `least` times."""

    def __init__(self, seconds, cpu_time):
        self.seconds = seconds
        self.now = time.thread_time if cpu_time else time.perf_counter

    def times(self, run, least=3):
        result = []
        while len(result) < least or (sum(result) < self.seconds and len(result) < 100):
            start = self.now()
            run()
            result.append(self.now() - start)
        return result


class Series:
    """Figures of one subject, one a round."""

    def __init__(self):
        self.values, self.notes = {}, {}

    def add(self, key, value, note=""):
        self.values.setdefault(key, []).append(value)
        self.notes[key] = note

    def median(self, key):
        return statistics.median(self.values[key]) if key in self.values else None


class Complaints:
    """Wrong answers, told at once and counted."""

    def __init__(self):
        self.count = 0

    def add(self, text):
        self.count += 1
        print(f"WRONG, not timed: {text}", file=sys.stderr, flush=True)
