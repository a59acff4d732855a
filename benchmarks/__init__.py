"""Side by side with what people write by hand; every figure a ratio within one run, with n, median and spread."""
