# An endless loop in the cell that swallows the interrupt
# expect: fault 0 processor time
while True:
    try:
        while True:
            pass
    except KeyboardInterrupt:
        pass
