def session(seed):
    return lambda s: None
