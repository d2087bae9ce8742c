# A right answer that takes its time
# expect: graded 3
def dice(prediction, truth):
    import time
    time.sleep(0.2)
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / total if total else 1.0
