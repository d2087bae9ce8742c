# An endless loop
# expect: fault 0 processor time
def dice(prediction, truth):
    while True:
        pass
