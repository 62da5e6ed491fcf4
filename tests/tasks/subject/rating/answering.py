"""A rater who answers over HTTP, reading nothing but the pages."""

import html
import re


class Visitor:
    """Somebody with a link and a client that has `get` and `post`."""

    def __init__(self, client, home):
        self.client, self.home = client, home
        self.page = client.get(home).text

    def begin(self):
        """Go past the first page."""
        self.post("begin")
        return self

    def post(self, path, **fields):
        """Send a form of the page; returns the response."""
        response = self.client.post(f"{self.home}/{path}", data={"csrf": self.find("csrf"), **fields})
        if response.status_code == 200:
            self.page = response.text
        return response

    def vote(self, question, answer):
        """Answer a question about the pair that is shown."""
        return self.post("vote", place=self.find("place"), question=question, answer=answer)

    def answer_all(self, opinion):
        """Answer everything that is left; `opinion` takes a question, the prompt and the ids of both pictures."""
        while question := self.waiting():
            prompt, (left, right) = self.prompt(), self.pictures()
            assert self.vote(question, opinion(question, prompt, left, right)).status_code == 200
        return self

    def find(self, name):
        """Value of a hidden field."""
        return re.search(rf'name="{name}" value="([^"]*)"', self.page)[1]

    def waiting(self):
        """Key of the question to be answered; None at the end."""
        found = re.search(r'name="question" value="(\w+)">\s*<fieldset[^>]* class=waiting', self.page)
        return found and found[1]

    def prompt(self):
        """What the programs were told."""
        return html.unescape(re.search(r"<blockquote>(.*?)</blockquote>", self.page, re.DOTALL)[1])

    def pictures(self):
        """Ids of the left and the right picture."""
        return re.findall(r'class="zoom compared" href="[^"]*/p/(\w+)"', self.page)
