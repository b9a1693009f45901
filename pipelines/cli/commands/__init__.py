"""What each command of ``dr`` does: arguments in, an :class:`~pipelines.cli.answer.Answer` out.

Whatever is slow to import (Spark, torch) is imported inside the function that needs it.
"""
