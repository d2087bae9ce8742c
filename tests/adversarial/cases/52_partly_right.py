# Right but for two empty masks: part of the points
# expect: graded 2.25 expected 1, got 0
def dice(prediction, truth):
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / max(total, 1)
