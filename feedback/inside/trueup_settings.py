"""Label Studio's own settings, and what trueup adds: a guard before its pages and its API, and a TLS proxy's word."""

from __future__ import annotations

from core.settings import base

globals().update({name: value for name, value in vars(base).items() if name.isupper()})

# It asks Django for settings while it is imported, and finds those above.
from label_studio.core.settings import label_studio as theirs  # noqa: E402

globals().update({name: value for name, value in vars(theirs).items() if name.isupper()})

MIDDLEWARE = ["trueup_guard.SecureCookies", *theirs.MIDDLEWARE, "trueup_guard.Guard"]
# A proxy that ends TLS says so in this header. Whoever reaches the server directly can only fool himself with it.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
