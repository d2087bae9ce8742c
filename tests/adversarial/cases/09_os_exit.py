# The process ends at once, with code 0
# expect: fault 0 kernel died
def dice(prediction, truth):
    import os
    os._exit(0)
