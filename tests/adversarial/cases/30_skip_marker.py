# nbval's markers in the student's text
# expect: graded 0
# NBVAL_SKIP
# NBVAL_RAISES_EXCEPTION
# NBVAL_IGNORE_OUTPUT
def dice(prediction, truth):
    return 0.123
