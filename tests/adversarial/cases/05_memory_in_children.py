# Each process below its limit, all of them together above it
# expect: any 0
import os
import time

children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        block = bytearray(os.urandom(1 << 20)) * 900
        time.sleep(1000)
    children.append(child)
time.sleep(1000)
