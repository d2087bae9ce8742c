# A file of 400 MB
# expect: graded 0 OSError
def dice(prediction, truth):
    with open("big", "wb") as file:
        for _ in range(400):
            file.write(bytes(1 << 20))
