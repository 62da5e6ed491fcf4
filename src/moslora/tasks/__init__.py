"""The jobs that the paper measures: each folder trains, evaluates and scores one of them."""
