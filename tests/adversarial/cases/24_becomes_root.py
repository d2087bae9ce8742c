# Asking for privileges
# expect: graded 3
import ctypes
import os

gained = []
for attempt in (lambda: os.setuid(0), lambda: os.chroot("/tmp"), lambda: os.mknod("/tmp/disk", 0o60666, os.makedev(8, 0))):
    try:
        attempt()
        gained.append(attempt)
    except OSError:
        pass
if ctypes.CDLL(None).mount(b"none", b"/box", b"tmpfs", 0, None) == 0:
    gained.append("mount")
if gained:
    raise AssertionError(f"privileges: {gained}")


def dice(prediction, truth):
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / total if total else 1.0
