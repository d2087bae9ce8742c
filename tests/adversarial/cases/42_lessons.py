# The reference of the lessons
# expect: graded 0
def dice(prediction, truth):
    from labkit.lessons import exercises
    return exercises('00')['dice'].reference(prediction, truth)
