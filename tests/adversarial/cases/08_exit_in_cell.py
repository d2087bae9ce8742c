# SystemExit in the cell
# expect: graded 0 SystemExit
raise SystemExit
def dice(prediction, truth):
    return 0.123
