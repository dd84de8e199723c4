"""What an attack is, as the run needs to know it."""

from dataclasses import dataclass

from bench.attack.target import Run


@dataclass(frozen=True, slots=True)
class Attack:
    """`run` goes on in each of `processes` of each of `users` until it is killed.

    `deed` says what one count of its deeds is. One that `computes` asks for vectors, and has a
    right to its share of the processor: it is compared with neighbours who take theirs.
    """

    deed: str
    run: Run
    users: int = 1
    processes: int = 4
    computes: bool = False
