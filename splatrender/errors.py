"""The one exception that means: the input is at fault, and the message says how to mend it."""


class InputError(ValueError):
    """Bad input, told in one sentence: which file, field or argument, what was expected and found.

    The command line prints the message alone and exits with code 2.
    """
