"""Downloads that give up soon where there is no network."""

import threading
import urllib.request

TIMEOUT = 4.0  # seconds without an answer after which there is no network


def open_url(url: str):
    """The response to a request. In a thread, since no timeout of the standard library bounds the
    look-up of a host name.

    Raises:
      OSError, http.client.HTTPException: there is no response.
    """
    answers = []

    def fetch():
        try:
            answers.append(urllib.request.urlopen(url, timeout=TIMEOUT))
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    answer = answers[0] if answers else TimeoutError(f"no answer within {TIMEOUT:g} s")
    if isinstance(answer, Exception):
        raise answer
    return answer


def reason(error: Exception) -> str:
    """Why there is no response, in one line."""
    return " ".join(str(getattr(error, "reason", error)).split())
