# Asking the keyboard
# expect: graded 0 StdinNotImplementedError
def dice(prediction, truth):
    return float(input("Dice? "))
