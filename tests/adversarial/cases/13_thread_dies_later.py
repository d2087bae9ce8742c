# A thread that ends the process after the cell is over
# expect: fault 0 died
import os
import threading

threading.Timer(0.3, os._exit, (0,)).start()


def dice(prediction, truth):
    import time
    time.sleep(1)
    return 0.5
