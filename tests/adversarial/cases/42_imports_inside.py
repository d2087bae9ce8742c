# The course's own function, imported when called
# expect: graded 0 own answer
def dice(prediction, truth):
    from labkit import metrics
    return metrics.dice(prediction, truth)
