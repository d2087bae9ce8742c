# A process in a session of its own, meant to outlive the grading
# expect: graded 3
import subprocess

subprocess.Popen(["sleep", "98765"], start_new_session=True)


def dice(prediction, truth):
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / total if total else 1.0
