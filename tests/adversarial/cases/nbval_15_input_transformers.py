# An input transformer that deletes every later cell
# expect: graded 0 no value came back
def dice(prediction, truth):
    return 0.123


get_ipython().input_transformers_cleanup.append(lambda lines: [])
