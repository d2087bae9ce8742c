# sys.exit() when called
# expect: graded 0 SystemExit
def dice(prediction, truth):
    import sys
    sys.exit()
