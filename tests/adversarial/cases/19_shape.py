# A shape that would broadcast
# expect: graded 0 one number
def dice(prediction, truth):
    return np.full(7, 0.5)
