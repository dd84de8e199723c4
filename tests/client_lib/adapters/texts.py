"""Texts that the adapter tests embed and rank."""

TEXTS = [
    "Carmen is an opera by Georges Bizet.",
    "Bread is made of flour, water and yeast.",
    "A glacier is a slow river of ice.",
]
