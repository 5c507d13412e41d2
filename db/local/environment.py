"""The environment variables of a command, for the programs that it runs."""

import locale
import os

# They configure OpenSSL for another program. PgBouncer and openssl would read them too.
_FOREIGN = ("OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES")
_UTF8_LOCALE = "C.UTF-8"  # part of every glibc since 2.35, and of Debian 12


def prepare_environment() -> None:
    """Remove what a person set for other programs, and choose a locale that works.

    Java cannot open a path that its locale cannot write: LC_ALL=C allows only ASCII. A locale that
    this machine lacks has the same effect. It often comes with ssh.
    """
    for name in _FOREIGN:
        os.environ.pop(name, None)
    if not _has_utf8_locale():
        os.environ["LC_ALL"] = _UTF8_LOCALE


def _has_utf8_locale() -> bool:
    try:
        locale.setlocale(locale.LC_ALL, "")
    except locale.Error:
        return False
    return locale.nl_langinfo(locale.CODESET) == "UTF-8"
