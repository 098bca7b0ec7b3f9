"""Redaction: takes out of a text what may be a secret, for reports that lie about in the home."""

import os
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from crawlers.secrets import HIDDEN, LEAST_LETTERS, Secrets, bare
from crawlers.sites import Site

# Variables of other programs, such as AWS_SECRET_ACCESS_KEY or MLFLOW_TRACKING_PASSWORD.
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?|ACCESS_KEY|API_KEY|PRIVATE_KEY)(?:_|$)"
)
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>`()\[\]{}]+", re.IGNORECASE)
_PARAMETER = re.compile(
    r"\b([\w-]*(?:api_?key|token|secret|passw(?:or)?d|passwd|credential)[\w-]*)([\"']?\s*[=:]\s*)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s&\"'<>,;]+)",
    re.IGNORECASE,
)


class Redaction:
    """Hides the credentials of sites and of the environment, and whatever an address may carry.

    more: further secrets, such as the address of a webhook.
    """

    def __init__(self, sites: Iterable[Site], *more: str) -> None:
        self._of_sites = [Secrets(site) for site in sites]
        values = [value for name, value in os.environ.items() if _SECRET_NAME.search(name)]
        spelt = {way(value) for value in [*values, *more] for way in (str, quote, quote_plus)}
        long = sorted((v for v in spelt if len(v) >= LEAST_LETTERS), key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, long))) if long else None

    def hidden(self, text: str) -> str:
        """Returns the text with *** for each secret; addresses lose user, query and fragment."""
        for secrets in self._of_sites:
            text = secrets.hidden(text)
        if self._values is not None:
            text = self._values.sub(HIDDEN, text)
        text = _ADDRESS.sub(lambda found: _shortened(found[0]), text)
        return _PARAMETER.sub(rf"\1\2{HIDDEN}", text)


def _shortened(address: str) -> str:
    return bare(address) if re.search("[@?#]", address) else address
