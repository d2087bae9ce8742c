# A random answer
# expect: graded 0
def dice(prediction, truth):
    return float(np.random.rand())
