"""`python -m bdqm_tune.compilation`: what `make setup` calls."""

from bdqm_tune.compilation.cache import bring

if __name__ == "__main__":
    bring()
