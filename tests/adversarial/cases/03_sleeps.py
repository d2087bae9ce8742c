# Waiting for ever, without using the processor
# expect: fault 0 did not end
def dice(prediction, truth):
    import time
    time.sleep(10_000)
