# Formulas, markup, colours and line breaks in an error
# expect: graded 0
def dice(prediction, truth):
    raise ValueError("=HYPERLINK(\"http://x\") <script>alert(1)</script> \x1b[31m [click](http://x) \u202e\n,,100")
