# A thread that prints while other cells run
# expect: graded 3
import threading
import time


def later():
    while True:
        print("late")
        time.sleep(0.1)


threading.Thread(target=later, daemon=True).start()


def dice(prediction, truth):
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / total if total else 1.0
