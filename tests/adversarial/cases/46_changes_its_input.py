# The answer is right, but its input is not what it was
# expect: graded 0 changed its input prediction
def dice(prediction, truth):
    prediction[...] = prediction & truth
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / total if total else 1.0
