# Writing outside its own folder; a link to the root
# expect: graded 3
import os
import sys

written = []
for folder in ("/", "/usr", "/dev", "/course", "/courses", "/agent", "/sockets", sys.prefix, np.__path__[0], *os.listdir("/proc/self/cwd/..")):
    try:
        with open(os.path.join("/", folder, "mine"), "w") as file:
            file.write("x")
        written.append(folder)
    except OSError:
        pass
if set(written) - {"box", "tmp"}:
    raise AssertionError(f"these can be written: {written}")
os.symlink("/", "root")


def dice(prediction, truth):
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / total if total else 1.0
