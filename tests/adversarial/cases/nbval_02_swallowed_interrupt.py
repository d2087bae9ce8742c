# A loop in the function that swallows the interrupt
# expect: fault 0 processor time
def dice(prediction, truth):
    while True:
        try:
            while True:
                pass
        except KeyboardInterrupt:
            pass
