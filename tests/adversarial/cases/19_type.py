# A text that reads like a number
# expect: graded 0 one number
def dice(prediction, truth):
    return "0.5"
