# Not a number
# expect: graded 0 got nan
def dice(prediction, truth):
    return float("nan")
