# An answer that is read from a file of the grader's
# expect: graded 0 FileNotFoundError
def dice(prediction, truth):
    return float(open("/work/grading/bundle.json").read())
