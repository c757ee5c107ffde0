import numpy as np

class Model: ...

class Categorical(Model):
    def __init__(
        self, probabilities: np.ndarray | None = None, perfect: bool | None = None, lazy: bool | None = None
    ) -> None: ...

class Uniform(Model):
    def __init__(self, size: int | None = None) -> None: ...

class Bernoulli(Model):
    def __init__(self, p: float | None = None, perfect: bool | None = None) -> None: ...
