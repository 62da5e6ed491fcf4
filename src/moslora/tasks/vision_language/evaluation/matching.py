"""Which option a text means, without any guess. Pure Python.

The rules of `match_option`, in order; the first that applies decides, and a text to which none applies has no answer:

1. The text is a letter that is offered, whatever stands around it: `B`, `(b).`, `Answer: B`, `选项B`.
2. The text is the text of exactly one option, without regard to case, outer punctuation and a leading article.
3. The text begins with an offered letter and `.`, `)` or `:`: `B. a cat`. It does not count if more letters are
   listed that way; and if what follows is the text of another option, the text has no answer.
4. The text says so: `the answer is B`, `option B`, `答案是B`, `(B)`; if it says so of exactly one letter.
5. The text contains the text of exactly one option as whole words, and no negation. An option that is part of another
   one which is there as well does not count.
"""

import re
import unicodedata
from collections.abc import Mapping

_ARTICLE = re.compile(r"^(?:a|an|the)\s+")
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|cannot|without)\b|n't\b|[不没非]")
_SAYS = r"(?i:answer|option|choice|答案|选项|选择|应选|选)\s*(?:(?i:is|are|should be|would be|是|为)\s*)?:?\s*"
_DENIED = r"(?!\s+(?i:is|are)(?i:n't|\s+(?:not|wrong|incorrect|false)))"


def match_option(text: str, options: Mapping[str, str]) -> str | None:
    """The letter that a text means, or None.

    Args:
        text: what a model wrote.
        options: letter -> text of the options.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    letters = "".join(options)
    if not letters:
        return None
    plain = {letter: _plain(option) for letter, option in options.items()}
    same = [letter for letter, option in plain.items() if option and option == _plain(text)]
    if bare := re.fullmatch(rf"\W*(?:{_SAYS})?\W*([{letters}])\W*", text, re.IGNORECASE):
        return bare[1].upper()
    if len(same) == 1:
        return same[0]
    if _contradicts_itself(text, letters, plain):
        return None
    return _leading_letter(text, letters) or _said_letter(text, letters) or _contained_option(text, plain)


def match_yes_no(text: str) -> str | None:
    """`Yes` or `No` if the text holds one of the two words and not the other, else None."""
    words = set(re.findall(r"[a-z]+", text.lower())) & {"yes", "no"}
    return words.pop().capitalize() if len(words) == 1 else None


def _plain(text: str) -> str:
    """A text for comparison: one case, one space between words, no outer punctuation, no leading article."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return _ARTICLE.sub("", re.sub(r"^[^\w+\-]+|[^\w%°'\"+]+$", "", " ".join(text.split())))


def _contradicts_itself(text: str, letters: str, plain: Mapping[str, str]) -> bool:
    """Whether the text names one letter in front and then only the text of another option: `B. a dog`."""
    found = re.match(rf"\W*([{letters}])\s*[.):]\s*(.*)", text, re.DOTALL)
    return found is not None and _plain(found[2]) in {plain[each] for each in plain if plain[each] != plain[found[1]]}


def _leading_letter(text: str, letters: str) -> str | None:
    found = re.match(rf"\W*([{letters}])\s*[.):]\s*(.*)", text, re.DOTALL)
    if not found:
        return None
    listed = set(re.findall(rf"(?<!\w)([{letters}])\s*[.):](?!\w)", found[2])) - {found[1]}
    return None if listed else found[1]


def _said_letter(text: str, letters: str) -> str | None:
    said = list(re.finditer(rf"{_SAYS}[(\"'*]*([{letters}])(?![\w']){_DENIED}", text))
    said += re.finditer(rf"\(([{letters}])\){_DENIED}", text)
    # In "the answer is A dog", A may be a word; other capitals that stand alone are letters.
    words = [each[1] in "AI" and re.match(r"\s+[a-z]", text[each.end() :]) is not None for each in said]
    return said[0][1] if len({each[1] for each in said}) == 1 and not all(words) else None


def _contained_option(text: str, plain: Mapping[str, str]) -> str | None:
    text = _plain(text)
    inside = {letter: option for letter, option in plain.items() if option and _has_words(text, option)}
    whole = [
        letter
        for letter, option in inside.items()
        if not any(option != other and _has_words(other, option) for other in inside.values())
    ]
    return whole[0] if len(whole) == 1 and not _NEGATION.search(text.replace(inside[whole[0]], " ")) else None


def _has_words(text: str, words: str) -> bool:
    """Whether `words` stand in `text` and begin and end where words do; Chinese has no such places."""
    before = r"(?<![A-Za-z0-9])" if words[0].isascii() else ""
    after = r"(?![A-Za-z0-9])" if words[-1].isascii() else ""
    return re.search(before + re.escape(words) + after, text) is not None
