"""Words that questions and instructions are written with, so that the tokenizer has one token for each."""

_TEXT = """
a an the is are was were be do does did has have had can could will would should may might must not no nor
yes true false right wrong correct answer answers question questions option options hint context choice
choose select pick give tell say name describe please look at see seen shown picture image photo drawing
what which who where when why how many much number amount of in on under over above below next to between
beside near far left right top bottom middle centre corner side row column cell grid first second third last
there here this that these those it its they them one two three four five six seven eight nine ten none
zero nothing something anything everything any all each every some other another same different both either
more less fewer most least than as and or but if then so with without from into by for about only just
thing things object objects item items shape shapes colour colours color pattern texture size ground
background kind type place position small medium large big bigger smaller biggest smallest plain striped
dotted checked letter letters directly single word phrase using following given based your you I
choices circles squares triangles stars hearts rings crosses moons
A B C D E F : . , ? ! ( ) / -
"""
WORDS = tuple(_TEXT.split())
# What may stand around a statement: words of instructions, none of which tells anything of a picture.
_FILLERS = """
answer answers option options letter letters question given choice choices directly with from the please look at
this picture image say tell choose word single following hint using A. B. C. D. . , or and
"""
FILLERS = tuple(_FILLERS.split())
