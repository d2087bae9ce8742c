"""How far a kernel in the jail gets past its limit of memory before it is ended.

`python benchmarks/memory_limit.py` hands in answers to lab 00 that take memory in one process, in several, in
steps and in files, grades each with a limit of 1 GB, and watches from outside, as often as it can, what the
jailed processes hold beyond what was there before the kernel, which itself takes 30 to 50 MB. Printed is the
most that was seen, over the limit. Root sees how Linux holds the limit; how it is counted where no control
group can be made is seen without the place where they are made:

    unshare --mount sh -c "umount --lazy /sys/fs/cgroup/memory; python benchmarks/memory_limit.py"
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import threading
import time
from pathlib import Path

from labkit.grading import cgroup
from labkit.grading.grade import grade
from labkit.grading.jail import Limits
from labkit.grading.release import release

PAUSE = 0.002
BOMBS = {
    "one process, as fast as it can": """
held = []
while True:
    held.append(b"x" * (1 << 20))
""",
    "one process, 50 MB at a time": """
import time
held = []
while True:
    held.append(b"x" * (50 << 20))
    time.sleep(0.03)
""",
    "one process, 400 MB at a time": """
held = []
while True:
    held.append(b"x" * (400 << 20))
""",
    "four children, as fast as they can": """
import os, time
for _ in range(4):
    if os.fork() == 0:
        held = []
        while len(held) < 600:
            held.append(b"x" * (1 << 20))
        time.sleep(100)
time.sleep(100)
""",
    "files in memory": """
with open("/tmp/large", "wb") as file:
    while True:
        file.write(b"x" * (1 << 20))
""",
}


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parse.add_argument("--limit-mb", type=int, default=1024)
    parse.add_argument("--repeats", type=int, default=3)
    given = parse.parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        release(folder / "release", ["00"])
        edition = (folder / "release" / "student" / "00_welcome.ipynb").read_text()
        print(f"limit {given.limit_mb} MB; load before: {os.getloadavg()[0]:.1f}")
        print("Linux holds it" if cgroup.possible() else "it is counted", flush=True)
        for title, bomb in BOMBS.items():
            seen = [
                once(folder / f"{title}-{i}", edition, bomb, given.limit_mb) for i in range(given.repeats)
            ]
            peaks = ", ".join(f"{peak / (given.limit_mb << 20):.2f}" for peak, _ in seen)
            print(f"{title}: {peaks} of the limit; {seen[0][1]}", flush=True)


def once(folder: Path, edition: str, bomb: str, limit_mb: int) -> tuple[int, str]:
    """The most bytes that were seen beyond the start, and what the grader said."""
    (folder / "in").mkdir(parents=True)
    notebook = json.loads(edition)
    for cell in notebook["cells"]:
        if cell["id"] == "dice":
            cell["source"] = f"{bomb}\ndef dice(prediction, truth):\n    return 0\n"
    (folder / "in" / "bomb.ipynb").write_text(json.dumps(notebook))
    limits = Limits(memory=limit_mb << 20)
    what = (folder / "in", folder.parent / "release", folder / "out")
    judging = threading.Thread(
        target=grade, args=what, kwargs={"lab": "00", "workers": 1, "limits": limits, "progress": False}
    )
    judging.start()
    before = most = 0
    while judging.is_alive():
        total, kernels = jailed()
        if not kernels:  # the zygote alone
            before = total
        most = max(most, total - before)
        time.sleep(PAUSE)
    line = json.loads((folder / "out" / "ledger.jsonl").read_text().splitlines()[-1])
    return most, line["exercises"]["dice"]["reason"] or str(line["exercises"]["dice"]["marks"][0]["reason"])


def jailed() -> tuple[int, int]:
    """Bytes of all processes in jails, of a shared page each its part; how many of them are a kernel's."""
    ours, total, kernels = os.readlink("/proc/self/ns/pid"), 0, 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.readlink(f"/proc/{name}/ns/pid") == ours:
                    continue
                text = Path(f"/proc/{name}/smaps_rollup").read_text()
                numbers = re.search(r"NSpid:(.*)", Path(f"/proc/{name}/status").read_text())[1].split()
            except (OSError, TypeError):  # it ended meanwhile
                continue
            rows = [
                line.split() for line in text.splitlines() if line.startswith(("Pss_Anon:", "Pss_Shmem:"))
            ]
            total += sum(int(row[1]) << 10 for row in rows)
            kernels += len(numbers) > 2  # in a space within the jail's
    return total, kernels


if __name__ == "__main__":
    main()
