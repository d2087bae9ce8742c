# A package that solves what is to be built by hand
# expect: graded 0 ModuleNotFoundError
def dice(prediction, truth):
    import peft
    return 1.0
