"""A study: methods x learning rates x seeds x shares of the data, trained, evaluated and compared.

study.py        what is asked for, its cells and its folder
heldout.py      training questions kept aside to choose the learning rate
worker.py       the process that trains and evaluates cells; workers.py starts, feeds and replaces such processes
grid.py         brings every cell to its end
results.py      reads finished cells; needs no torch, like the two below
statistics.py   intervals, paired tests, Holm's correction, power
conclusions.py  the same in sentences
"""
