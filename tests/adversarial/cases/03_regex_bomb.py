# A regular expression that never ends
# expect: fault 0 processor time
def dice(prediction, truth):
    import re
    return re.match("(a+)+$", "a" * 40 + "b")
