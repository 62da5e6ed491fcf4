"""A judge: any endpoint that speaks OpenAI's chat completions. Asked once for everything, and never guessing for it.

Replies are kept by the hash of the request, so that nothing is asked twice, whenever a command is repeated. The key
stays in memory: no file, message or log has it.
"""

import concurrent.futures
import email.utils
import hashlib
import json
import os
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .... import runs
from ....errors import ConfigError, RunError

TRIES = 6  # of one request, with 1, 2, 4, ... seconds between
LONGEST_WAIT = 120  # seconds that a Retry-After may ask for
TEMPERATURES = (0.0, 0.5, 1.0)  # of a question; the later ones follow a reply that makes no sense
MAX_TOKENS = 128
_TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}

Found = TypeVar("Found")


class Judge:
    """A client of one endpoint and model."""

    def __init__(
        self,
        url: str,
        model: str,
        key_env: str = "OPENAI_API_KEY",
        *,
        workers: int = 4,
        timeout_seconds: float = 60,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keep the settings; nothing is asked yet.

        Args:
            url: base of the endpoint, for example https://api.openai.com/v1.
            model: name of the model there.
            key_env: environment variable with the key. If it is not set, requests carry none, as local servers like it.
            workers: requests at a time.
            timeout_seconds: without a byte of a reply, after which a request counts as failed.
            sleep: waits between tries.

        Raises:
            ConfigError: no http(s) address, or no model.
        """
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--judge-url is {url!r}: expected an address such as https://api.openai.com/v1.")
        if "@" in urllib.parse.urlsplit(url).netloc:
            raise ConfigError(
                "--judge-url holds a name or a password, and is written down: put the key in --judge-key-env."
            )
        if not model:
            raise ConfigError("--judge-url needs the name of a model there: add --judge-model.")
        base = url.rstrip("/").removesuffix("/chat/completions")
        self.url, self.model, self.key_env = f"{base}/chat/completions", model, key_env
        self._key = os.environ.get(key_env, "").strip()
        self._workers, self._timeout, self._sleep = workers, timeout_seconds, sleep
        self._lock = threading.Lock()

    def ask(
        self,
        prompts: Sequence[str],
        parse: Callable[[str], Found | None],
        cache: Path,
        done: Callable[[], None] = lambda: None,
    ) -> list[Found | None]:
        """What the judge says to each prompt; None where no reply of three made sense.

        Args:
            prompts: whole questions.
            parse: the meaning of a reply, or None if it has none.
            cache: .jsonl of earlier replies, which grows.
            done: called after each of the prompts that differ.

        Raises:
            RunError: the endpoint does not answer, or refuses. What it did answer is kept.
        """
        known = {row["request"]: row["reply"] for row in runs.read_rows(cache)}
        if cache.exists():
            runs.rewrite_rows(cache, runs.read_rows(cache))  # cuts off what a crash left half-written

        def one(prompt: str) -> Found | None:
            for temperature in TEMPERATURES:
                reply = self._reply(prompt, temperature, known, cache)
                if (found := parse(reply)) is not None:
                    break
            done()
            return found

        with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
            waiting = {prompt: pool.submit(one, prompt) for prompt in dict.fromkeys(prompts)}
            try:
                found = {prompt: each.result() for prompt, each in waiting.items()}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [found[prompt] for prompt in prompts]

    def describe(self) -> dict[str, Any]:
        """What is recorded of the judge: never the key."""
        return {"url": self.url, "model": self.model, "temperatures": list(TEMPERATURES), "max_tokens": MAX_TOKENS}

    def _reply(self, prompt: str, temperature: float, known: dict[str, str], cache: Path) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": temperature,
            "max_tokens": MAX_TOKENS,
        }
        request = hashlib.sha256(json.dumps([self.url, body], ensure_ascii=False).encode()).hexdigest()
        if request not in known:
            reply = self._post(body)
            with self._lock:
                known[request] = reply
                runs.append_rows(
                    cache, [{"request": request, "temperature": temperature, "prompt": prompt, "reply": reply}]
                )
        return known[request]

    def _post(self, body: dict[str, Any]) -> str:
        import requests

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        trouble = ""
        for number in range(TRIES):
            wait = float(2**number)
            try:
                response = requests.post(
                    self.url, json=body, headers=headers, timeout=self._timeout, allow_redirects=False
                )
                if response.status_code == 200:
                    if (reply := _content(response)) is not None:
                        return reply
                    trouble = f"a reply that is no chat completion: {self._shown(response.text)}"
                else:
                    trouble = f"status {response.status_code}: {self._shown(response.text)}"
                    if response.status_code not in _TRY_AGAIN:
                        raise RunError(self._refused(trouble))
                    wait = max(wait, _retry_after(response.headers.get("Retry-After", "")))
            except requests.RequestException as error:
                trouble = self._shown(f"{type(error).__name__}: {error}")
            if wait > LONGEST_WAIT:
                trouble += f"; it asks to wait {wait:.0f} seconds"
                break
            if number < TRIES - 1:
                self._sleep(wait)
        raise RunError(
            f"The judge at {self.url} does not answer after {number + 1} tries ({trouble}). "
            "What it has answered is kept: repeat the command later."
        )

    def _refused(self, trouble: str) -> str:
        key = f"the key in {self.key_env}" if self._key else f"{self.key_env}, which is not set"
        return (
            f"The judge at {self.url} refuses model {self.model!r} ({trouble}). "
            f"Check --judge-url, --judge-model and {key}."
        )

    def _shown(self, text: str) -> str:
        """The beginning of what a server said, without the key should it repeat it."""
        text = " ".join(text.split())
        return (text.replace(self._key, "***") if self._key else text)[:300]


def _content(response: Any) -> str | None:
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    return content if isinstance(content, str) else None


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After asks for, given as a number or a date; 0 if it asks for nothing readable."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
