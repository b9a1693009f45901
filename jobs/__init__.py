"""One short main per stage, for spark-submit."""
