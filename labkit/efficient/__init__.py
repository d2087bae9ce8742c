"""Networks small by construction, or made small: pruned, in few bits, without products, or taught."""
